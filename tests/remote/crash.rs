//! A commit into a device that is killed, and what recovers it: the same device only, whatever it is called by then.

use std::fs;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use guestseal::fault::{Point, VARIABLE};

use crate::common::{GUESTSEAL, command, fingerprint, ready, tool};
use crate::device::{Loop, Rig, sha256};

/// Seals the device and is killed at this point.
fn killed(rig: &Rig, device: &Path, point: Point) {
    let mut run = command(GUESTSEAL);
    run.env(VARIABLE, format!("{}=kill", point.name()));
    let output = run.args(rig.words("seal", &[device])).output().unwrap();
    assert_eq!(output.status.signal(), Some(9), "{}: {output:?}", point.name());
}

fn folder_of(rig: &Rig) -> PathBuf {
    let mut folders = fs::read_dir(rig.path("work")).unwrap();
    folders.next().unwrap().unwrap().path()
}

#[test]
fn a_commit_that_was_killed_is_finished_on_its_own_device() {
    if !ready() {
        return;
    }
    for point in [Point::JournalNamed, Point::ImageWritten, Point::JournalMarked, Point::RecordNamed] {
        let rig = Rig::new();
        let (device, other) = (Loop::over(&rig.file), rig.path("other"));
        killed(&rig, &device.0, point);
        for words in ["seal", "inspect", "verify"] {
            let refused = rig.guestseal(words, &[&device.0]).expect(4);
            refused.says(&["interrupted", "guestseal recover --work-dir"]);
        }
        // The number is given to another device, which is a copy even.
        tool("cp", [Path::new("--sparse=always"), &rig.file, &other]);
        let before = fingerprint(&other);
        let number = device.0.clone();
        drop(device);
        tool("losetup", [&number, &other]);
        let another = Loop(number);
        let nothing = rig.guestseal("recover --json", &[&another.0]).expect(0).result();
        assert_eq!(nothing["recovered"], false);
        // Not even when somebody puts the journal where that device's would be.
        rig.guestseal("seal --in-place --digest none --enable machine-id", &[&another.0]).expect(0);
        let after = fingerprint(&other);
        assert_ne!(after, before);
        let folders: Vec<_> = fs::read_dir(rig.path("work")).unwrap().map(|f| f.unwrap().path()).collect();
        let has_journal = |folder: &&PathBuf| folder.join(".disk.guestseal-journal").exists();
        let (theirs, its): (Vec<_>, Vec<_>) = folders.iter().partition(has_journal);
        let names = [".disk.guestseal-journal", ".disk.guestseal-overlay"];
        names.iter().for_each(|name| fs::rename(theirs[0].join(name), its[0].join(name)).unwrap());
        let refused = rig.guestseal("recover", &[&another.0]).expect(1);
        refused.says(&["it was made for another image: the file differs"]);
        assert_eq!(fingerprint(&other), after);
        names.iter().for_each(|name| fs::rename(its[0].join(name), theirs[0].join(name)).unwrap());
        // Its own number is taken: it comes back under another.
        let device = Loop::over(&rig.file);
        assert_ne!(device.0, another.0);
        let done = rig.guestseal("recover --json", &[&device.0]).expect(0).result();
        assert_eq!((&done["recovered"], &done["sha256"]), (&true.into(), &sha256(&device.0).into()));
        rig.guestseal("verify", &[&device.0]).expect(0);
        assert!(!rig.kept().iter().any(|name| name.starts_with('.')), "{:?}", rig.kept());
    }
}

/// No time tells that a device was written, so its content is looked at.
#[test]
fn a_device_that_was_used_after_its_commit_is_not_written_over() {
    if !ready() {
        return;
    }
    let rig = Rig::new();
    let device = Loop::over(&rig.file);
    killed(&rig, &device.0, Point::JournalMarked);
    // A superblock's time of the last mount, which the overlay has a newer one of.
    let open = fs::File::options().write(true).open(&device.0).unwrap();
    open.write_all_at(&[1, 2, 3, 4], 1024 + 0x2c).unwrap();
    open.sync_all().unwrap();
    drop(open);
    let before = fingerprint(&rig.file);
    let refused = rig.guestseal("recover", &[&device.0]).expect(1);
    refused.says(&["written by another program after its commit"]);
    assert_eq!(fingerprint(&rig.file), before);
    assert!(folder_of(&rig).join(".disk.guestseal-journal").exists());
}
