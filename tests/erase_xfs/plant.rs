//! What is planted, deleted, and expected to stay.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{FallocateFlags, XattrFlags, fallocate, getxattr, removexattr, setxattr};

use crate::image::GONE;

/// How many names the directories have at first: one inside the inode, one block, a leaf, a tree.
const NAMES: [usize; 4] = [4, 30, 400, 4000];
/// Of so many, one stays.
const KEPT: usize = 23;

fn name(index: usize, size: usize) -> String {
    let kind = if index.is_multiple_of(KEPT) { "KEPT-" } else { GONE };
    format!("{kind}name-{index}{}", "x".repeat(index % size))
}

fn value(kind: &str, length: usize) -> Vec<u8> {
    kind.repeat(length / kind.len() + 1).into_bytes()[..length].to_vec()
}

/// Plants everything.
pub(crate) fn plant(root: &Path) {
    for names in NAMES {
        let folder = root.join(format!("names-{names}"));
        fs::create_dir(&folder).unwrap();
        for index in 0..names {
            let kind = if index.is_multiple_of(KEPT) { "KEPT-" } else { GONE };
            let content = if index % 8 == 1 { format!("{kind}content-{index}") } else { String::new() };
            fs::write(folder.join(name(index, 40)), content).unwrap();
        }
    }
    let links = root.join("links");
    fs::create_dir(&links).unwrap();
    for index in 0..200_usize {
        // A short target lies in the inode, a long one in a block.
        let length = if index % 2 == 0 { 30 + index } else { 600 + index };
        let kind = if index.is_multiple_of(KEPT) { "KEPT-target-" } else { "GONE-target-" };
        symlink(String::from_utf8(value(kind, length)).unwrap(), links.join(format!("{index}"))).unwrap();
    }
    let attributes = root.join("attributes");
    fs::create_dir(&attributes).unwrap();
    for index in 0..60 {
        let path = attributes.join(format!("{index}"));
        fs::write(&path, "").unwrap();
        // From a few bytes inside the inode to values in blocks of their own.
        let (count, length) = [(2, 20), (20, 150), (200, 60), (3, 3000), (2, 60_000)][index % 5];
        for number in 0..count {
            let (kind, text) = if number == 0 { ("KEPT", "KEPT-value-") } else { ("GONE", "GONE-value-") };
            let name = format!("user.{kind}-attribute-{number}");
            setxattr(&path, &name, &value(text, length), XattrFlags::empty()).unwrap();
        }
    }
    fs::write(root.join("large"), value("GONE-large-", 40 << 20)).unwrap();
}

/// Deletes all but what is to stay. `room` is how much is allocated and not written then.
pub(crate) fn delete(root: &Path, room: u64) {
    for names in NAMES {
        for index in (0..names).filter(|index| !index.is_multiple_of(KEPT)) {
            fs::remove_file(root.join(format!("names-{names}")).join(name(index, 40))).unwrap();
        }
    }
    for index in (0..200_usize).filter(|index| !index.is_multiple_of(KEPT)) {
        fs::remove_file(root.join(format!("links/{index}"))).unwrap();
    }
    for index in 0..60 {
        let path = root.join(format!("attributes/{index}"));
        if index % 3 == 1 {
            fs::remove_file(&path).unwrap();
            continue;
        }
        let count = [2, 20, 200, 3, 2][index % 5];
        (1..count).for_each(|number| removexattr(&path, format!("user.GONE-attribute-{number}")).unwrap());
    }
    fs::remove_file(root.join("large")).unwrap();
    rustix::fs::syncfs(fs::File::open(root).unwrap()).unwrap();
    let file = fs::File::create(root.join("room")).unwrap();
    fallocate(&file, FallocateFlags::empty(), 0, room).unwrap();
}

/// Looks at all that stays.
pub(crate) fn check(root: &Path, room: u64) {
    for names in NAMES {
        let mut found: Vec<_> = fs::read_dir(root.join(format!("names-{names}")))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort_unstable();
        let mut wanted: Vec<_> = (0..names).step_by(KEPT).map(|index| name(index, 40)).collect();
        wanted.sort_unstable();
        assert_eq!(found, wanted);
        for kept in found {
            fs::symlink_metadata(root.join(format!("names-{names}/{kept}"))).unwrap();
        }
    }
    for index in (0..200).step_by(KEPT) {
        let length = if index % 2 == 0 { 30 + index } else { 600 + index };
        let target = fs::read_link(root.join(format!("links/{index}"))).unwrap();
        assert_eq!(target.into_os_string().into_encoded_bytes(), value("KEPT-target-", length));
    }
    for index in (0..60).filter(|index| index % 3 != 1) {
        let length = [20, 150, 60, 3000, 60_000][index % 5];
        let mut found = vec![0; 64 << 10];
        let path = root.join(format!("attributes/{index}"));
        let read = getxattr(&path, "user.KEPT-attribute-0", &mut found).unwrap();
        assert_eq!(found[..read], value("KEPT-value-", length));
    }
    assert_eq!(fs::metadata(root.join("room")).unwrap().len(), room);
}

/// A little of everything, for a small filesystem.
pub(crate) fn plant_little(root: &Path) {
    for names in [4, 30, 400] {
        let folder = root.join(format!("names-{names}"));
        fs::create_dir(&folder).unwrap();
        (0..names).for_each(|index| fs::write(folder.join(name(index, 40)), "").unwrap());
        (0..names).step_by(3).for_each(|index| fs::remove_file(folder.join(name(index, 40))).unwrap());
    }
    symlink("t".repeat(30), root.join("short")).unwrap();
    symlink("t".repeat(900), root.join("long")).unwrap();
    for (count, length) in [(2, 20), (20, 150), (90, 100), (3, 3000)] {
        let path = root.join(format!("attributes-{count}"));
        fs::write(&path, "").unwrap();
        for number in 0..count {
            setxattr(&path, format!("user.{number}"), &value("value", length), XattrFlags::empty()).unwrap();
        }
        (1..count).step_by(2).for_each(|number| removexattr(&path, format!("user.{number}")).unwrap());
    }
    // Every second block: the list of extents becomes a tree.
    let file = fs::File::create(root.join("room")).unwrap();
    (0..200).for_each(|index| fallocate(&file, FallocateFlags::empty(), index * 8192, 1024).unwrap());
}
