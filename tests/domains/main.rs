//! Domains of libvirt: their disks, and what they are doing. By libvirt itself, with its test driver and with a real qemu.
//! Needs root.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails or says so")]

#[path = "../images/common.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod common;
mod define;
#[path = "../images/guests.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod guests;
#[path = "../common/kernel.rs"]
mod kernel;
mod live;
mod machine;
mod refused;
mod rig;
mod running;
mod templates;

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::common::{on_path, ready, require, shell};
use crate::rig::{Disks, NAME, UUID, guestseal};

/// Whether there is virsh.
fn ready_with_virsh() -> bool {
    ready() && require(on_path("virsh"), "needs virsh")
}

/// Whether there is a daemon to be started.
fn ready_with_daemon() -> bool {
    ready_with_virsh() && require(on_path("libvirtd"), "needs libvirtd")
}

/// The kernel of real guests, where there is a daemon to be started too.
fn kernel_with_daemon() -> Option<PathBuf> {
    let kernel = kernel::kernel();
    let ready =
        ready_with_daemon() && require(kernel.exists(), "no kernel for virtual machines: run scripts/setup");
    ready.then_some(kernel)
}

/// How often the planted secret is in the second disk.
fn planted(disks: &Disks) -> String {
    shell(&format!("grep -c PLANTED-SECRET {} || true", disks.data.display())).trim().to_owned()
}

#[test]
fn a_domain_that_is_off_is_sealed_with_all_its_disks() {
    if !ready_with_virsh() {
        return;
    }
    let disks = Disks::new();
    let uri = disks.off(&disks.both());
    assert_eq!(planted(&disks), "1");
    let looked = guestseal(&uri, "inspect", &[]).expect(0);
    assert!(
        looked.stdout.contains("Alpine") && looked.stdout.contains("note: the disk hdc is left alone"),
        "{looked:#?}"
    );
    assert!(!looked.stderr.contains("warning"), "{looked:#?}");
    let before = disks.print();
    guestseal(&uri, "seal --dry-run", &[]).expect(0);
    assert_eq!(disks.print(), before);

    let sealed = guestseal(&uri, "seal --json", &[]).expect(0).result();
    let domain = json!({ "name": NAME, "uuid": UUID, "uri": uri });
    assert_eq!(sealed["domain"], domain);
    let formats: Vec<_> = (0..2).map(|disk| sealed["input"][disk]["format"].clone()).collect();
    assert_eq!(formats, ["qcow2", "raw"]);
    assert_eq!(planted(&disks), "0");
    let record: Value =
        serde_json::from_slice(&fs::read(disks.path("root.qcow2.seal.json")).unwrap()).unwrap();
    assert_eq!(record["predicate"]["domain"], domain);
    assert_eq!(record["subject"][1]["name"], "data.img");
    guestseal(&uri, "verify", &[]).expect(0);
    guestseal(&uri, "verify --residue", &[]).expect(0);
    // In another order they are other disks.
    shell(&format!("printf x | dd of={} bs=1 seek=1000000 conv=notrunc status=none", disks.data.display()));
    guestseal(&uri, "verify", &[]).expect(5);
}

#[test]
fn a_domain_is_found_by_its_uuid_and_in_virt_syspreps_place() {
    if !ready_with_virsh() {
        return;
    }
    let disks = Disks::new();
    let uri = disks.off(&disks.root());
    let called = disks.path("virt-sysprep");
    std::os::unix::fs::symlink(common::GUESTSEAL, &called).unwrap();
    let words = ["-c", &uri, "-d", &UUID.to_uppercase(), "--enable", "machine-id", "--hostname", "sealed"];
    common::run(&called, words).expect(0);
    let customize = disks.path("virt-customize");
    std::os::unix::fs::symlink(common::GUESTSEAL, &customize).unwrap();
    common::run(&customize, ["--connect", &uri, "--domain", NAME, "--touch", "/srv/here"]).expect(0);
    // -c alone means nothing there, and is a mistake here.
    let root = disks.root.to_str().unwrap();
    common::run(&called, ["-n", "-c", &uri, "-a", root]).expect(0);
    common::run(common::GUESTSEAL, ["seal", "-n", "-c", &uri, "-a", root])
        .expect(2)
        .says(&["-c", "none is named"]);
}

#[test]
fn the_format_is_libvirts_and_not_what_the_guest_wrote() {
    if !ready_with_virsh() {
        return;
    }
    let disks = Disks::new();
    // To this guest the disk begins with a qcow2 header, and holds nothing else.
    let uri = disks.off(&disks.root().replace("type='qcow2'", "type='raw'"));
    let before = disks.print();
    guestseal(&uri, "seal", &[]).expect(6);
    assert_eq!(disks.print(), before);
}
