//! One test for each way of making and mounting a btrfs.

use std::fs;

use guestseal::erase::map::btrfs::{OnDevices, free_extents};

use crate::disks::{Disks, Mounted, ready};
use crate::plant::{digests, files, sync};

/// How a filesystem is made and mounted.
struct Way {
    disks: usize,
    mebibytes: u64,
    mkfs: &'static str,
    options: &'static str,
}

impl Way {
    const PLAIN: Self = Self { disks: 1, mebibytes: 160, mkfs: "-d single -m single", options: "rw" };

    /// Plants, deletes and keeps files; everything deleted must be in the map and nothing kept.
    fn check(&self) {
        if !ready() {
            return;
        }
        let disks = Disks::new(self.disks, self.mebibytes, self.mkfs);
        let mounted = disks.mount(self.options);
        files(&mounted.path().join("kept"), "KEPT");
        files(&mounted.path().join("secret"), "CANARY");
        sync(mounted.path());
        let kept = digests(&mounted.path().join("kept"));
        fs::remove_dir_all(mounted.path().join("secret")).unwrap();
        sync(mounted.path());
        mounted.close();
        let before = disks.canaries();
        assert!(before.len() >= 9, "not all kinds of canaries are there: {before:?}");
        erase(&disks, |mounted| free_extents(mounted.open()).unwrap());
        assert_eq!(disks.canaries(), []);
        disks.check();
        let mounted = disks.mount("ro");
        assert_eq!(digests(&mounted.path().join("kept")), kept);
        mounted.close();
    }
}

/// Makes zero what the map of a fresh, read-only mount names.
pub(crate) fn erase(disks: &Disks, map: impl FnOnce(&Mounted) -> OnDevices) {
    let mounted = disks.mount("ro");
    let maps = map(&mounted);
    mounted.close();
    assert_eq!(maps.len(), disks.paths().count());
    for (id, extents) in &maps {
        disks.zero(*id, extents);
    }
}

#[test]
fn single() {
    Way::PLAIN.check();
}

#[test]
fn two_copies_on_one_disk() {
    Way { mkfs: "-d dup -m dup", mebibytes: 300, ..Way::PLAIN }.check();
}

#[test]
fn mixed_groups_in_blocks_of_4_kib() {
    Way { mkfs: "-M -n 4096", mebibytes: 100, ..Way::PLAIN }.check();
}

#[test]
fn nodes_of_64_kib() {
    Way { mkfs: "-n 65536 -d single -m single", ..Way::PLAIN }.check();
}

#[test]
fn old_features() {
    Way {
        mkfs: "-d single -m dup -n 4096 -O ^no-holes,^skinny-metadata,^extref -R ^free-space-tree",
        ..Way::PLAIN
    }
    .check();
}

#[test]
fn the_first_free_space_cache() {
    Way { mkfs: "-R ^free-space-tree", options: "rw,space_cache=v1", ..Way::PLAIN }.check();
}

#[test]
fn compressed() {
    Way { options: "rw,compress-force=zstd", ..Way::PLAIN }.check();
}

#[test]
fn without_checksums() {
    Way { options: "rw,nodatacow", ..Way::PLAIN }.check();
}

#[test]
fn other_checksums() {
    Way { mkfs: "--csum blake2 -d single -m single", ..Way::PLAIN }.check();
}

#[test]
fn one_copy_on_each_of_two_disks() {
    Way { disks: 2, mebibytes: 220, mkfs: "-d raid1 -m raid1", ..Way::PLAIN }.check();
}

#[test]
fn three_copies_on_three_disks() {
    Way { disks: 3, mebibytes: 220, mkfs: "-d single -m raid1c3", ..Way::PLAIN }.check();
}

#[test]
fn striped_over_three_disks() {
    Way { disks: 3, mebibytes: 130, mkfs: "-d raid0 -m raid1", ..Way::PLAIN }.check();
}

#[test]
fn striped_and_copied_over_four_disks() {
    Way { disks: 4, mebibytes: 130, mkfs: "-d raid10 -m raid10", ..Way::PLAIN }.check();
}
