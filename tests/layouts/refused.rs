//! What is missing: keys, members, disks, kernels. The images stay as they are.

use std::fs;
use std::path::PathBuf;

use crate::common::{GUESTSEAL, run};
use crate::{Layout, ready};

/// Runs a command that must fail and leave the disks alone.
#[track_caller]
pub(crate) fn refused(layout: &Layout, words: &str, code: i32, says: &[&str]) {
    let before: Vec<_> = layout.disks.iter().map(|disk| fs::read(disk).unwrap()).collect();
    layout.guestseal(words).expect(code).says(says);
    let after: Vec<_> = layout.disks.iter().map(|disk| fs::read(disk).unwrap()).collect();
    assert!(before == after, "{words} changed a disk");
    let names = fs::read_dir(layout.folder.path()).unwrap().count();
    assert_eq!(names, layout.disks.len(), "{words} left something in the folder");
}

#[test]
fn without_a_key_or_with_a_wrong_one() {
    if !ready() {
        return;
    }
    let mut layout = Layout::new("luks2");
    layout.keys.clear();
    refused(&layout, "seal", 6, &["stays shut: no key was given", "give its key with --key"]);
    let wrong = "seal --key all:key:not-the-passphrase";
    refused(&layout, wrong, 6, &["stays shut: no key that was given fits"]);
    refused(&layout, "seal --key all:word:x", 2, &["--key takes ID:key:PASSPHRASE"]);
}

#[test]
fn arrays_and_groups_that_lack_a_part() {
    if !ready() {
        return;
    }
    let layout = Layout::new("md-raid1-degraded");
    refused(&layout, "seal", 6, &["lacks members", "--degraded"]);
    let mut layout = Layout::new("lvm-xfs-two-disks");
    fs::remove_file(layout.disks.pop().unwrap()).unwrap();
    refused(&layout, "seal", 6, &["lacks physical volumes", "give all its disks"]);
    let mut layout = Layout::new("btrfs-two-devices");
    fs::remove_file(layout.disks.pop().unwrap()).unwrap();
    refused(&layout, "seal", 6, &["has more devices than this disk"]);
}

#[test]
fn where_no_machine_may_or_can_be() {
    if !ready() {
        return;
    }
    let layout = Layout::new("lvm");
    refused(&layout, "seal --isolate never", 6, &["LVM2_member", "--isolate vm"]);
    refused(&layout, "seal --isolate vm --attach fuse", 2, &["leave one of them out"]);
    refused(&layout, "seal --isolate vm --script /bin/true", 2, &["leave one of them out"]);
    let disk = layout.disks[0].clone();
    let words = ["seal", "--kernel", "/etc/passwd"].map(PathBuf::from).into_iter().chain([disk]);
    run(GUESTSEAL, words).expect(7).says(&["/etc/passwd"]);
}
