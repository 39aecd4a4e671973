//! Guests that go on running while a copy of their disk is sealed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::Value;

use crate::common::{GUESTSEAL, command, run, shell};
use crate::rig::{Daemon, Disks, NAME, guestseal, state, virsh};
use crate::{kernel_with_daemon, ready_with_daemon};

/// What is in the folder of the disks.
fn names(disks: &Disks) -> Vec<PathBuf> {
    disks.print().2
}

/// No job is left on the domain.
#[track_caller]
fn no_job(uri: &str) {
    let job = virsh(uri, &["domjobinfo", NAME]);
    assert!(job.contains("None"), "{job}");
}

/// A real guest that writes all the time.
#[test]
fn a_guest_that_goes_on_is_copied_at_one_point_in_time_and_the_copy_sealed() {
    let Some(kernel) = kernel_with_daemon() else { return };
    let disks = Disks::new();
    let daemon = Daemon::start();
    let uri = daemon.qemu();
    // By a path of its own: libvirt's would be too long for a socket.
    let agent = format!(
        "<channel type='unix'><source mode='bind' path='{}'/><target type='virtio' name='org.qemu.guest_agent.0'/></channel>",
        daemon.at("run/agent").display()
    );
    daemon.start_busy(&kernel, &format!("{}{agent}", disks.root()));
    let before = names(&disks);
    let new = disks.path("sealed.qcow2");
    let output = ["--no-shutdown", "--output", new.to_str().unwrap()];

    // Looking copies nothing.
    guestseal(&uri, "seal --dry-run", &output).expect(0).says(&["may be moving"]);
    let wrong = ["--no-shutdown", "--output", disks.root.to_str().unwrap()];
    guestseal(&uri, "seal", &wrong).expect(2).says(&["names the image itself"]);
    assert_eq!((daemon.said("frozen"), names(&disks)), (0, before.clone()));

    let sealed = guestseal(&uri, "seal --json", &output).expect(0).result();
    assert_eq!(sealed["point-in-time"], "frozen by the guest agent");
    assert_eq!(sealed["input"]["name"], "root.qcow2");
    assert!(daemon.said("frozen") > 0 && daemon.said("thawed") > 0);
    assert_eq!(state(&uri), "running");
    no_job(&uri);
    daemon.goes_on();
    let record: Value =
        serde_json::from_slice(&fs::read(disks.path("sealed.qcow2.seal.json")).unwrap()).unwrap();
    assert_eq!(record["predicate"]["point-in-time"], "frozen by the guest agent");
    assert_eq!(record["predicate"]["domain"]["name"], NAME);
    assert_eq!(record["predicate"]["commit"]["format"], "qcow2");
    run(GUESTSEAL, ["verify", new.to_str().unwrap()]).expect(0);
    for file in ["sealed.qcow2", "sealed.qcow2.seal.json"] {
        fs::remove_file(disks.path(file)).unwrap();
    }
    assert_eq!(names(&disks), before, "a run left something");

    // One that fails or is stopped gives the copy up; one that is killed leaves what the next run sweeps away.
    for (fault, code, left) in
        [("copy-begun=fail", Some(1), 0), ("copy-begun=stop", None, 0), ("copy-begun=kill", None, 1)]
    {
        let mut seal = command(GUESTSEAL);
        seal.args(["seal", "-c", &uri, "-d", NAME]).args(output).env("GUESTSEAL_FAULT", fault);
        let mut ran = seal.spawn().unwrap();
        if fault.ends_with("stop") {
            let stopped = format!("/proc/{}/status", ran.id());
            shell(&format!("timeout 60 bash -c 'until grep -q State:.T {stopped}; do sleep 0.1; done'"));
            shell(&format!("kill -INT {0}; kill -CONT {0}", ran.id()));
        }
        assert_eq!(ran.wait().unwrap().code(), code, "{fault}");
        shell(&format!(
            "timeout 60 bash -c 'until virsh -q -c \"{uri}\" domjobinfo {NAME} | grep -q None; do sleep 0.1; done'"
        ));
        assert_eq!(names(&disks).len(), before.len() + left, "{fault}: {:?}", names(&disks));
        daemon.goes_on();
    }
    // Once more, as raw, and without what the killed one left.
    let ran = guestseal(&uri, "seal --output-format raw", &output).expect(0);
    assert!(ran.stdout.contains("froze its filesystems"), "{ran:#?}");
    assert_eq!(names(&disks).len(), before.len() + 2, "{:?}", names(&disks));
    assert_eq!(daemon.said("frozen"), 5);
    run(GUESTSEAL, ["verify", "--format", "raw", new.to_str().unwrap()]).expect(0);
    daemon.goes_on();
    assert_eq!(state(&uri), "running");
}

/// Without an agent, and where it cannot be done.
#[test]
fn a_copy_without_an_agent_is_as_after_a_power_failure() {
    if !ready_with_daemon() {
        return;
    }
    let disks = Disks::new();
    let daemon = Daemon::start();
    let new = disks.path("sealed.qcow2");
    let output = ["--no-shutdown", "--output", new.to_str().unwrap()];
    let uri = daemon.qemu();
    daemon.define(&uri, NAME, &disks.root());
    // One that is off is just read.
    let sealed = guestseal(&uri, "seal --json", &output).expect(0).result();
    assert_eq!(sealed["point-in-time"], Value::Null);
    virsh(&uri, &["start", NAME]);
    let sealed = guestseal(&uri, "seal --json", &output).expect(0).result();
    assert_eq!(sealed["point-in-time"], "crash-consistent");
    assert_eq!(state(&uri), "running");
    no_job(&uri);
    run(GUESTSEAL, ["verify", new.to_str().unwrap()]).expect(0);
    // One whose definition was changed since it was started.
    let before = names(&disks);
    daemon.define(
        &uri,
        NAME,
        &disks.both().replace("type='block'", "type='file'").replace("source dev", "source file"),
    );
    guestseal(&uri, "seal", &output).expect(2).says(&["one image at a time"]);
    daemon.define(
        &uri,
        NAME,
        &disks.root().replace("root.qcow2", "data.img").replace("type='qcow2'", "type='raw'"),
    );
    guestseal(&uri, "seal", &output).expect(3).says(&["runs with other disks"]);
    // Where qemu's user has no way.
    daemon.define(&uri, NAME, &disks.root());
    let closed = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(closed.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let there = closed.path().join("new.qcow2");
    let elsewhere = ["--no-shutdown", "--output", there.to_str().unwrap()];
    guestseal(&uri, "seal", &elsewhere).expect(1).says(&["Permission denied", "get at the folder"]);
    assert_eq!(fs::read_dir(closed.path()).unwrap().count(), 0);
    assert_eq!(names(&disks), before);
    // A hypervisor that copies nothing.
    let uri = daemon.test();
    daemon.define(&uri, NAME, &disks.root());
    virsh(&uri, &["start", NAME]);
    guestseal(&uri, "seal", &output).expect(6).says(&["not supported", "--shutdown"]);
    assert_eq!(names(&disks), before);
}
