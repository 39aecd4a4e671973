//! Version 4, which has no checksums and which most kernels no longer mount: mkfs.xfs fills the filesystem, and remains
//! are put where a kernel would have left them.

use std::fmt::Write;
use std::os::unix::fs::FileExt;

use guestseal::erase::metadata::Act;

use crate::image::{GONE, Image, nothing_in, of, ready, tool};

/// A folder with these many names and a long link in it, as mkfs.xfs -p takes it.
fn prototype(names: usize) -> String {
    let mut text = "/dev/null\n0 0\nd--755 0 0\nfolder d--755 0 0\n".to_owned();
    for index in 0..names {
        writeln!(text, "KEPT-{index}{} ---644 0 0 /dev/null", "x".repeat(index % 30)).unwrap();
    }
    text += &format!("$\nlink l--777 0 0 {}\n$\n$\n", "KEPT-target".repeat(40));
    text
}

pub(crate) fn image(names: usize, options: &str) -> Image {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("prototype");
    std::fs::write(&path, prototype(names)).unwrap();
    Image::new(40, &format!("-m crc=0 -l size=4m {options} -p {}", path.display()))
}

/// What xfs_db says a place is, in bytes, and the number of an inode.
fn number(image: &Image, commands: &[&str]) -> u64 {
    let mut args = vec!["-r"];
    commands.iter().for_each(|command| args.extend(["-c", command]));
    args.push(image.path().to_str().unwrap().to_owned().leak());
    let said = tool("xfs_db", &args);
    said.trim().rsplit([' ', '=']).next().unwrap().parse().unwrap_or_else(|_| panic!("{commands:?}: {said}"))
}

/// Puts a trace at each of these places, where zeros must be.
fn put(image: &Image, kind: &str, at: u64) {
    let trace = format!("{GONE}{kind}-");
    let mut there = vec![0; trace.len()];
    image.open().read_exact_at(&mut there, at).unwrap();
    assert!(there.iter().all(|byte| *byte == 0), "{kind} at {at}: {there:?}");
    image.write(at, trace.as_bytes());
}

/// Where a directory block of this length has an unused entry: one that is as long as it says at its end.
fn unused(image: &Image, start: u64, length: usize) -> Option<u64> {
    let mut block = vec![0; length];
    image.open().read_exact_at(&mut block, start).unwrap();
    let word = |at: usize| usize::from(u16::from_be_bytes([block[at], block[at + 1]]));
    let is_free = |at: &usize| {
        let end = at + word(at + 2);
        word(*at) == 0xffff && end > at + 32 && end <= length && word(end - 2) == *at
    };
    (16..length - 8).step_by(8).find(is_free).map(|at| start + at as u64)
}

fn whole_way(names: usize, options: &str, inode: u64, block: u64) {
    if !ready() {
        return;
    }
    let image = image(names, options);
    // mkfs.xfs leaves names where a folder was small before it was large.
    image.walk(Act::Zero);
    let root = number(&image, &["sb 0", "p rootino"]);
    let log = number(&image, &["sb 0", "p logstart"]);
    let group = number(&image, &["sb 0", "p agblocks"]);
    let bits = number(&image, &["sb 0", "p agblklog"]);
    let log = ((log >> bits) * group + (log & ((1 << bits) - 1))) * block;
    // The padding of the unmount record, and a block behind it.
    put(&image, "record", log + 512 + 100);
    put(&image, "log", log + 5 * 512 + 10);
    put(&image, "slack", (root + 1) * inode - 40);
    put(&image, "free-inode", (root + 60) * inode + 150);
    // The first block of the free list, the end of a tree, and what is between the headers and the next block.
    let first = number(&image, &["agf 0", "p flfirst"]);
    put(&image, "free-list", number(&image, &["agfl 0", &format!("p bno[{first}]")]) * block + 50);
    put(&image, "tree", (number(&image, &["agf 0", "p bnoroot"]) + 1) * block - 40);
    let gap = block > 2048;
    if gap {
        put(&image, "headers", group * block + 2048 + 300);
    }
    let list = if options.contains("ftype=0") { "sfdir2" } else { "sfdir3" };
    let folder = number(&image, &[&format!("inode {root}"), &format!("p u.{list}.list[0].inumber.i4")]);
    let place = format!("inode {folder}");
    let length = usize::try_from(block.max(4096)).unwrap();
    let entry = (0..40).find_map(|number_of| {
        let at = number(&image, &[&place, &format!("dblock {number_of}"), "daddr"]) * 512;
        unused(&image, at, length)
    });
    put(&image, "entry", entry.unwrap() + 8);
    let traces = image.traces().len();
    assert_eq!(traces, if gap { 8 } else { 7 });
    let counted = image.walk(Act::Count);
    for kind in ["log", "free inodes", "inode slack", "directories", "trees", "free lists"] {
        assert!(of(&counted, kind).nonzero >= 5, "{kind}: {counted:?}");
    }
    assert_eq!(image.walk(Act::Zero), counted);
    nothing_in(&image.walk(Act::Count));
    assert_eq!(image.traces(), Vec::<String>::new());
    image.is_sound();
}

#[test]
fn small_inodes() {
    whole_way(40, "-i size=256", 256, 4096);
}

#[test]
fn large_inodes_and_small_blocks() {
    whole_way(400, "-i size=512 -b size=1024", 512, 1024);
}

#[test]
fn log_of_the_first_version() {
    whole_way(40, "-l version=1", 256, 4096);
}

#[test]
fn names_of_any_case_without_types() {
    whole_way(90, "-n version=ci,ftype=0", 256, 4096);
}

#[test]
fn what_is_not_known_is_refused() {
    if !ready() {
        return;
    }
    let refused = |change: &str, why: &str| {
        let image = Image::new(40, "-l size=6m");
        tool("xfs_db", &["-x", "-c", "sb 0", "-c", change, image.path().to_str().unwrap()]);
        let said = image.try_walk(Act::Zero).map_or_else(|error| error.chain(), |found| format!("{found:?}"));
        assert!(said.contains(why), "{change}: {said}");
    };
    refused("write -d logstart 0", "external log");
    refused("write -d rblocks 100", "realtime");
    refused("write -d features_incompat 0x103", "features");
    refused("write -d features_incompat 0x13", "features");
    refused("write -d features_ro_compat 0x103", "features");
    refused("write -d agcount 9", "superblock");
    refused("write -d dblocks 100000", "superblock");
}
