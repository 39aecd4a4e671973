//! `--mount-options`, on this host and in a machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::refused::refused;
use crate::{Layout, ready};

/// What the kernel says of a mount, by a script that runs while the guest is mounted.
#[test]
fn this_host_mounts_with_them_and_with_its_own() {
    if !ready() {
        return;
    }
    let layout = Layout::new("second-disk-home");
    let script = layout.folder.path().join("script");
    let told = layout.folder.path().join("mounts");
    fs::write(
        &script,
        format!("#!/bin/sh\ngrep '/guestseal/root' /proc/self/mounts >'{}'\n", told.display()),
    )
    .unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let words = format!(
        "seal --json --operations defaults,script --script {} --mount-options /home:sync,strictatime",
        script.display()
    );
    let report = layout.guestseal(&words).expect(0).result();
    let told = fs::read_to_string(told).unwrap();
    let options = |point: &str| {
        let mut lines = told.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let found = lines.find(|words| words[1].ends_with(point)).unwrap_or_else(|| panic!("{told}"));
        found[3].split(',').map(str::to_owned).collect::<Vec<_>>()
    };
    for (point, sync) in [("/home", true), ("/root", false)] {
        let options = options(point);
        let has = |option: &str| options.iter().any(|other| other == option);
        assert!(["rw", "nosuid", "nodev", "noexec"].into_iter().all(has), "{told}");
        assert_eq!((has("sync"), has("noatime")), (sync, !sync), "{told}");
    }
    assert_eq!(report["inspection"]["layout"]["others"][0]["options"][0], "sync");
    layout.guestseal("verify --mount-options /:nodiratime").expect(0);
}

#[test]
fn a_machine_mounts_with_them() {
    if !ready() {
        return;
    }
    let layout = Layout::new("lvm");
    // Nothing of these operations is in /boot.
    refused(&layout, "seal --mount-options /:ro", 1, &["Read-only file system"]);
    refused(&layout, "seal --mount-options /:noatime;/srv:ro", 2, &["/srv", "mounted at /, /boot"]);
    refused(&layout, "inspect --mount-options /boot:compress=zstd", 2, &["ext4 has no mount option"]);
    let report = layout.guestseal("seal --json --mount-options /boot:ro").expect(0).result();
    assert_eq!(report["inspection"]["layout"]["others"][0]["options"][0], "ro");
    layout.guestseal("verify --mount-options /:nodiratime").expect(0);
}

/// Before the image is even looked for.
#[test]
fn what_weakens_or_names_something_else_is_refused() {
    if !ready() {
        return;
    }
    let layout = Layout::new("second-disk-home");
    for (option, why) in [
        ("suid", "would weaken"),
        ("subvolid=5", "would weaken"),
        ("device=/dev/sda", "names something else"),
        ("journal_path=/etc/shadow", "names something else"),
        ("context=x", "is none that guestseal passes on"),
    ] {
        for command in ["seal", "inspect", "verify"] {
            refused(&layout, &format!("{command} --mount-options /:noatime,{option}"), 2, &[option, why]);
        }
    }
    refused(&layout, "verify --residue --mount-options /:ro", 2, &["cannot be used with"]);
}
