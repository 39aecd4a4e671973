//! Domains that run, are asked to shut down, and are started again at the wrong moment.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::common::{GUESTSEAL, run};
use crate::rig::{Daemon, Disks, NAME, UUID, guestseal, state, virsh};
use crate::{kernel_with_daemon, ready_with_daemon};

#[test]
fn a_running_domain_is_shut_down_and_sealed() {
    if !ready_with_daemon() {
        return;
    }
    let disks = Disks::new();
    let daemon = Daemon::start();
    let uri = daemon.test();
    // By a volume of a pool.
    virsh(&uri, &["pool-define-as", "images", "dir", "--target", disks.path("").to_str().unwrap()]);
    virsh(&uri, &["pool-start", "images"]);
    virsh(&uri, &["vol-create-as", "images", "root.qcow2", "1M"]);
    let volume = disks.root().replace("type='file'", "type='volume'");
    let file = format!("file='{}'", disks.root.display());
    daemon.define(&uri, NAME, &volume.replace(&file, "pool='images' volume='root.qcow2'"));
    virsh(&uri, &["start", NAME]);
    // Not when it is only looked at.
    guestseal(&uri, "seal --shutdown --dry-run", &[]).expect(0).says(&["may be moving"]);
    assert_eq!(state(&uri), "running");
    let ran = guestseal(&uri, "seal --shutdown -v", &[]).expect(0);
    assert!(ran.stdout.contains("asked the domain web to shut down; waiting up to 300 s"), "{ran:#?}");
    assert!(
        ran.stdout.contains("has shut down after") && ran.stderr.contains("waiting for the guest"),
        "{ran:#?}"
    );
    assert_eq!(state(&uri), "shut off");
    guestseal(&uri, "verify", &[]).expect(0);
    // One that is off already is not asked.
    let again = guestseal(&uri, "seal --shutdown", &[]).expect(0);
    assert!(!again.stdout.contains("asked"), "{again:#?}");
    // A volume is found by its pool, which must run.
    virsh(&uri, &["pool-destroy", "images"]);
    guestseal(&uri, "seal", &[]).expect(1).says(&["cannot find the volume", "virsh pool-start images"]);
}

/// The test driver takes no locks: only libvirt knows that the domain was started.
#[test]
fn a_domain_that_is_started_or_changed_meanwhile_is_left_as_it_was() {
    if !ready_with_daemon() {
        return;
    }
    let disks = Disks::new();
    let daemon = Daemon::start();
    let uri = daemon.test();
    daemon.define(&uri, NAME, &disks.root());
    let script = disks.path("meanwhile");
    let meanwhile = |line: &str| {
        fs::write(&script, format!("#!/bin/sh\nvirsh -q -c '{uri}' {line}\n")).unwrap();
        fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    };
    meanwhile(&format!("start {NAME}"));
    let before = disks.print();
    let run_script = ["--script", script.to_str().unwrap()];
    guestseal(&uri, "seal --operations defaults,script", &run_script).expect(3).says(&["is running"]);
    assert_eq!(disks.print(), before);
    virsh(&uri, &["destroy", NAME]);
    meanwhile(&format!("define {}", daemon.xml(&uri, NAME, &disks.both()).display()));
    let before = disks.print();
    let ran = guestseal(&uri, "seal --operations defaults,script", &run_script).expect(3);
    ran.says(&["the disks of the domain web were changed meanwhile"]);
    assert_eq!(disks.print(), before);
}

/// A real qemu with a kernel that hears its power button.
#[test]
fn a_guest_that_shuts_down_in_its_own_time_is_waited_for_and_sealed() {
    let Some(kernel) = kernel_with_daemon() else { return };
    let disks = Disks::new();
    let daemon = Daemon::start();
    let uri = daemon.qemu();
    daemon.start_listening(&kernel, &disks.root());
    let ran = guestseal(&uri, "seal --shutdown --json", &[]).expect(0);
    assert_eq!(state(&uri), "shut off");
    assert_eq!(ran.result()["phases"][0]["name"], "shutting-down");
    guestseal(&uri, "verify", &[]).expect(0);
}

/// A real qemu without a system: nobody in it hears that it shall shut down.
#[test]
fn a_guest_that_does_not_shut_down_goes_on_running() {
    if !ready_with_daemon() {
        return;
    }
    let disks = Disks::new();
    let daemon = Daemon::start();
    let uri = daemon.qemu();
    daemon.define(&uri, NAME, &disks.root());
    virsh(&uri, &["start", NAME]);
    let ran = guestseal(&uri, "seal", &[]).expect(3);
    ran.says(&["is running", "--shutdown"]);
    // Its image is locked too.
    run(GUESTSEAL, ["seal", "-a", disks.root.to_str().unwrap()]).expect(3).says(&["in use"]);
    let ran =
        run(GUESTSEAL, ["seal", "--shutdown", "--shutdown-timeout", "2", "-c", &uri, "-d", UUID]).expect(3);
    ran.says(&["did not shut down within 2 s", "--shutdown-timeout"]);
    assert_eq!(state(&uri), "running");
    assert_eq!(disks.print().2.len(), 2, "a run left something");
    virsh(&uri, &["destroy", NAME]);
    guestseal(&uri, "seal", &[]).expect(0);
}
