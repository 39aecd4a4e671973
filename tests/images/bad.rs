//! Images that cannot be sealed: each is refused with its exit code and a sentence, and not a byte of it changes.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use crate::common::{Ran, ready, tool};
use crate::disks::{Label, make_disk, volume};
use crate::guests::guest;
use crate::stage::Stage;

const MIB: u64 = 1 << 20;
const GPT: Label = Label(Some("gpt"), 512);

/// A raw image of zeros with these bytes at these places.
fn bytes(mib: u64, parts: &[(u64, &[u8])]) -> Stage {
    let stage = Stage::new("bad.raw");
    let file = File::create(&stage.image).unwrap();
    file.set_len(mib * MIB).unwrap();
    for (offset, bytes) in parts {
        file.write_all_at(bytes, *offset).unwrap();
    }
    stage
}

/// `seal` and `inspect` refuse it with the same words.
fn refused(stage: &Stage, code: i32, words: &[&str]) -> Ran {
    // What is in layers would be put into a machine, which tests/layouts looks at.
    stage.unchanged_by("inspect --isolate never", code).says(words);
    let ran = stage.unchanged_by("seal --isolate never", code);
    ran.says(words);
    ran.says(&["error: "]);
    ran
}

#[test]
fn no_image_at_all() {
    if !ready() {
        return;
    }
    let stage = Stage::new("guest.raw");
    stage.guestseal("seal").expect(1).says(&["guest.raw", "No such file"]);
    fs::create_dir(&stage.image).unwrap();
    stage.guestseal("seal").expect(2).says(&["guest.raw", "folder"]);
}

#[test]
fn not_an_image() {
    if !ready() {
        return;
    }
    let text = "This is a letter, and no disk.\n".repeat(40_000);
    let stage = Stage::new("letter.txt");
    stage.write("letter.txt", 0o644, &text);
    refused(&stage, 6, &["neither a partition table nor a filesystem", "what to do", "--format"]);
    stage.write("letter.txt", 0o644, "");
    refused(&stage, 6, &["letter.txt", "empty"]);
    stage.write("letter.txt", 0o644, "short");
    refused(&stage, 6, &["neither a partition table nor a filesystem"]);
}

#[test]
fn an_empty_disk() {
    if !ready() {
        return;
    }
    refused(&bytes(64, &[]), 6, &["neither a partition table nor a filesystem"]);
}

#[test]
fn half_of_a_qcow2() {
    if !ready() {
        return;
    }
    let stage = Stage::convert(&guest("arch").image, "qcow2", &[]);
    let file = File::options().write(true).open(&stage.image).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    // What is cut off reads as zeros, so the filesystem's own checks find it.
    stage.unchanged_by("seal", 1).says(&["error: "]);
    file.set_len(50).unwrap();
    stage.unchanged_by("seal", 1).says(&["guest.qcow2", "header is damaged", "what to do"]);
}

#[test]
fn half_of_a_raw_disk() {
    if !ready() {
        return;
    }
    let stage = Stage::copy(&guest("alpine").image);
    let file = File::options().write(true).open(&stage.image).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    let ran = stage.unchanged_by("seal", 6);
    ran.says(&["what to do"]);
}

#[test]
fn half_of_a_whole_disk_filesystem() {
    if !ready() {
        return;
    }
    let stage = Stage::copy(&guest("arch").image);
    let file = File::options().write(true).open(&stage.image).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    stage.unchanged_by("seal", 6).says(&["the whole disk", "what to do"]);
}

#[test]
fn no_operating_system() {
    if !ready() {
        return;
    }
    let stage = Stage::new("data.raw");
    fs::File::create(&stage.image).unwrap().set_len(64 * MIB).unwrap();
    tool("mkfs.ext4", ["-q", "-F", stage.image.to_str().unwrap()]);
    refused(&stage, 6, &["no operating system", "ext4"]);
}

#[test]
fn two_operating_systems() {
    if !ready() {
        return;
    }
    let stage = Stage::new("two.raw");
    make_disk(&stage.image, GPT, &[volume(64, "ext4", "/", "UUID"), volume(64, "ext4", "/", "UUID")], "");
    refused(&stage, 6, &["2 operating systems", "partition 1", "partition 2", "what to do"]);
}

#[test]
fn filesystems_and_containers_of_other_kinds() {
    if !ready() {
        return;
    }
    // Sectors of 512 bytes, 8 a cluster, the file table at cluster 4.
    let ntfs: [(u64, &[u8]); 3] = [(3, b"NTFS    \0\x02\x08"), (0x30, &[4]), (4 * 4096, b"FILE")];
    refused(&bytes(64, &ntfs), 6, &["no operating system", "ntfs"]);
    const REISER: u64 = 64 << 10;
    let reiser: [(u64, &[u8]); 4] =
        [(REISER, &[0xe8, 3]), (REISER + 12, &[18]), (REISER + 44, &[0, 16]), (REISER + 52, b"ReIsEr2Fs")];
    refused(&bytes(64, &reiser), 6, &["no operating system", "reiserfs"]);
    let mut lvm = b"LABELONE\x01\0\0\0\0\0\0\0\0\0\0\0\x20\0\0\0LVM2 001".to_vec();
    lvm.extend(b"abcdefghijklmnopqrstuvwxyz012345");
    lvm.extend((64 * MIB).to_le_bytes());
    refused(&bytes(64, &[(512, &lvm)]), 6, &["LVM2_member", "what to do", "in a virtual machine"]);
    let luks = b"LUKS\xba\xbe\0\x02\0\0\0\0\0\0\x40\0";
    refused(&bytes(64, &[(0, luks)]), 6, &["LUKS", "what to do"]);
    let stage = Stage::new("luks.raw");
    make_disk(&stage.image, GPT, &[volume(64, "empty", "-", "-")], "");
    File::options().write(true).open(&stage.image).unwrap().write_all_at(luks, MIB).unwrap();
    refused(&stage, 6, &["crypto_LUKS", "what to do", "--key"]);
}

#[test]
fn a_filesystem_with_errors() {
    if !ready() {
        return;
    }
    let stage = Stage::copy(&guest("arch").image);
    tool("debugfs", ["-w", "-R", "set_super_value state 2", stage.image.to_str().unwrap()]);
    refused(&stage, 6, &["ext4", "errors", "what to do", "e2fsck"]);
}

#[test]
fn a_hibernated_guest() {
    if !ready() {
        return;
    }
    let stage = Stage::new("asleep.raw");
    make_disk(&stage.image, GPT, &[volume(64, "ext4", "/", "UUID"), volume(32, "swap", "-", "-")], "");
    // Where swap says SWAPSPACE2, a kernel that wrote its memory image says S1SUSPEND.
    let mut file = File::options().write(true).open(&stage.image).unwrap();
    file.seek(SeekFrom::Start(65 * MIB + 4096 - 10)).unwrap();
    file.write_all(b"S1SUSPEND\0").unwrap();
    drop(file);
    refused(&stage, 6, &["hibernated", "partition 2", "what to do"]);
}

#[test]
fn layers_and_snapshots() {
    if !ready() {
        return;
    }
    let stage = Stage::convert(&guest("arch").image, "qcow2", &[]);
    tool("qemu-img", ["snapshot", "-c", "before", stage.image.to_str().unwrap()]);
    stage.unchanged_by("seal", 6).says(&["snapshot", "what to do", "--drop-snapshots"]);
    tool("qemu-img", ["snapshot", "-d", "before", stage.image.to_str().unwrap()]);
    tool("qemu-img", ["bitmap", "--add", stage.image.to_str().unwrap(), "dirty"]);
    stage.unchanged_by("seal", 6).says(&["bitmaps", "what to do", "--drop-snapshots"]);
    let thin = Stage::new("thin.qcow2");
    let args = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-F",
        "qcow2",
        "-b",
        stage.image.to_str().unwrap(),
        thin.image.to_str().unwrap(),
    ];
    tool("qemu-img", args);
    thin.unchanged_by("seal", 6).says(&["backing file", "what to do", "--flatten", "--allow-backing"]);
    thin.unchanged_by("inspect", 6).says(&["backing file"]);
    thin.unchanged_by("seal --allow-backing --output /nowhere/new", 2).says(&["--flatten"]);
}
