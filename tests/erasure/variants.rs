//! Every filesystem, format and way of writing: nothing may be left.

use crate::cells::{Way, sealed_without_a_trace};
use crate::common::{on_path, ready, require};
use crate::disk::{Filesystem, Planted};

/// What is planted in every guest: kinds that are the content of files, of swap space and of gaps.
pub(crate) const CONTENT: &[&str] = &[
    "ago",
    "deleted",
    "esp",
    "fragmented",
    "gap",
    "hardlinked",
    "large",
    "noise",
    "overwritten",
    "rotated",
    "small",
    "sparse",
    "swap",
    "swapfile",
    "tail",
    "tiny",
    "tinygone",
    "truncated",
];

/// And kinds that are metadata, or stay.
const BESIDE: &[&str] = &[
    "boot",
    "espdir",
    "espname",
    "esplongname",
    "longname",
    "manynames",
    "name",
    "slowlink",
    "xattr",
    "xattrblock",
    "fastlink",
];

/// Whether these tests can run here.
pub(crate) fn possible() -> bool {
    ready()
        && ["mcopy", "mkfs.vfat", "setfattr", "getfattr", "filefrag"]
            .iter()
            .all(|tool| require(on_path(tool), &format!("needs {tool}")))
}

pub(crate) const fn filesystem(
    name: &'static str,
    mkfs: &'static str,
    kind: &'static str,
    options: &'static str,
) -> Filesystem {
    Filesystem { name, mkfs, kind, options }
}

pub(crate) const EXT4: Filesystem = filesystem("ext4", "mkfs.ext4 -q -F -b 4096", "ext4", "");

pub(crate) const XFS: Filesystem = filesystem("xfs", "mkfs.xfs -q -f", "xfs", "");
pub(crate) const BTRFS: Filesystem = filesystem("btrfs", "mkfs.btrfs -q -f -m single", "btrfs", "");

/// The planted disk, in which every kind can be found.
pub(crate) fn planted(filesystem: Filesystem, further: &[&str]) -> Planted {
    let planted = Planted::make(filesystem);
    let text_is_compressed = filesystem.options.contains("compress");
    for kind in CONTENT.iter().chain(BESIDE).chain(further).filter(|_| !text_is_compressed) {
        assert!(planted.counts.contains_key(*kind), "{}: no {kind} in {:?}", filesystem.name, planted.counts);
    }
    assert!(planted.counts.len() > 15, "{:?}", planted.counts);
    assert_eq!(planted.compressed.is_some(), text_is_compressed);
    planted
}

/// Each way once, and each format.
fn some(filesystem: Filesystem, further: &[&str]) {
    if possible() {
        let planted = planted(filesystem, further);
        for (format, way) in [("qcow2", Way::Overlay), ("raw", Way::InPlace), ("vmdk", Way::Output)] {
            sealed_without_a_trace(&planted, format, way);
        }
    }
}

#[test]
fn ext4_in_every_format_and_way() {
    if possible() {
        let planted = planted(EXT4, &["zeroed", "reserved", "xattrgone", "slackname", "oldname"]);
        for format in ["qcow2", "raw", "vmdk"] {
            for way in [Way::Overlay, Way::Output, Way::InPlace] {
                sealed_without_a_trace(&planted, format, way);
            }
        }
    }
}

#[test]
fn ext4_with_inline_data() {
    some(filesystem("ext4-inline", "mkfs.ext4 -q -F -b 4096 -O inline_data -I 256", "ext4", ""), &["zeroed"]);
}

#[test]
fn ext4_that_journals_contents() {
    some(filesystem("ext4-journal", "mkfs.ext4 -q -F -b 4096", "ext4", "data=journal"), &["zeroed"]);
}

#[test]
fn ext4_with_blocks_of_1_kib() {
    some(filesystem("ext4-1k", "mkfs.ext4 -q -F -b 1024", "ext4", ""), &["zeroed"]);
}

#[test]
fn ext3() {
    some(filesystem("ext3", "mkfs.ext3 -q -F -b 2048", "ext3", ""), &[]);
}

#[test]
fn ext2() {
    some(filesystem("ext2", "mkfs.ext2 -q -F -b 4096", "ext2", ""), &[]);
}

#[test]
fn xfs() {
    some(XFS, &["zeroed", "reflinked", "xattrremote"]);
}

#[test]
fn btrfs() {
    some(BTRFS, &["reflinked", "snapshot"]);
}

#[test]
fn btrfs_compressed() {
    some(filesystem("btrfs-zstd", "mkfs.btrfs -q -f -m single", "btrfs", "compress=zstd"), &[]);
}

#[test]
fn btrfs_twice() {
    some(filesystem("btrfs-dup", "mkfs.btrfs -q -f -m dup -d dup", "btrfs", ""), &["reflinked", "snapshot"]);
}
