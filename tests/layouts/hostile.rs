//! Layers below filesystems that are made to harm: the machine's own tools read them, and whatever becomes of those, there
//! is an error in time and the image is as it was. The metadata are patched so that their checksums are right.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::common::tool;
use crate::refused::refused;
use crate::{Layout, ready};

/// How long the worst may take, start of the machine under emulation included.
const PATIENCE: Duration = Duration::from_secs(240);

/// Patches each disk of a layout, and has it refused.
#[track_caller]
fn attack(name: &str, code: i32, says: &[&str], patch: &dyn Fn(&mut [u8])) {
    if !ready() {
        return;
    }
    let mut layout = Layout::new(name);
    for disk in &mut layout.disks {
        let raw = disk.with_extension("raw");
        tool("qemu-img", [Path::new("convert"), "-O".as_ref(), "raw".as_ref(), disk, &raw]);
        let mut bytes = fs::read(&raw).unwrap();
        patch(&mut bytes);
        fs::write(&raw, bytes).unwrap();
        fs::remove_file(&*disk).unwrap();
        *disk = raw;
    }
    let started = Instant::now();
    refused(&layout, "seal", code, says);
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
}

fn find(bytes: &[u8], text: &[u8]) -> usize {
    bytes.windows(text.len()).position(|window| window == text).unwrap()
}

/// LVM's own, which begins with another number and is not inverted.
fn crc(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0xf597_a6cf, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 * (crc & 1)))
    })
}

/// Replaces the text of a volume group (lib/format_text/layout.h of LVM2): its place and checksum stand in the header of
/// the metadata area, which has a checksum as well.
fn lvm_text(disk: &mut [u8], change: &dyn Fn(String) -> Vec<u8>) {
    const FIRST_TEXT: usize = 512;
    let volume = find(disk, b"LABELONE") - 512;
    let area = &mut disk[volume + 4096..volume + (1 << 20)];
    assert_eq!(&area[4..20], b" LVM2 x[5A%r0N*>");
    let word = |at: usize| usize::try_from(u64::from_le_bytes(area[at..at + 8].try_into().unwrap())).unwrap();
    let old = area[word(40)..word(40) + word(48)].to_vec();
    let new = change(String::from_utf8(old).unwrap());
    area[FIRST_TEXT..FIRST_TEXT + new.len()].copy_from_slice(&new);
    area[40..48].copy_from_slice(&(FIRST_TEXT as u64).to_le_bytes());
    area[48..56].copy_from_slice(&(new.len() as u64).to_le_bytes());
    area[56..60].copy_from_slice(&crc(&new).to_le_bytes());
    let sum = crc(&area[4..512]);
    area[..4].copy_from_slice(&sum.to_le_bytes());
}

/// Replaces what follows a word, up to the end of its line, each time that it comes.
fn after(text: &str, word: &str, new: &str) -> Vec<u8> {
    let lines = text.lines().map(|line| match line.find(word) {
        Some(at) => format!("{}{new}", &line[..at + word.len()]),
        None => line.to_owned(),
    });
    let lines: Vec<_> = lines.collect();
    assert!(lines.join("\n") != text, "{text}");
    (lines.join("\n") + "\n").into_bytes()
}

#[test]
fn volume_groups_whose_text_is_none() {
    attack("lvm", 6, &["LVM does not understand"], &|disk| {
        lvm_text(disk, &|text| (0..text.len()).map(|at| u8::try_from(at * 7919 % 256).unwrap()).collect());
    });
    // LVM reads it by recursion, until its stack is full.
    attack("lvm", 1, &["cannot list volume groups", "signal: 11"], &|disk| {
        lvm_text(disk, &|_| b"a{".repeat(400_000));
    });
}

#[test]
fn volume_groups_that_go_round_or_out_of_their_disk() {
    let stays_shut = ["no operating system was found", "LVM2_member on partition 2"];
    // The root lies on itself.
    attack("lvm", 6, &stays_shut, &|disk| {
        lvm_text(disk, &|text| text.replacen("\"pv0\", 0", "\"root\", 0", 1).into_bytes());
    });
    attack("lvm", 6, &stays_shut, &|disk| {
        lvm_text(disk, &|text| after(&text, "extent_count = ", "4000000000"));
    });
    attack("lvm", 1, &["cannot activate the volume group vg0"], &|disk| {
        lvm_text(disk, &|text| after(&text, "pe_start = ", "9223372036854775807"));
    });
}

#[test]
fn volumes_with_names_that_lead_elsewhere() {
    attack("lvm", 6, &["LVM does not understand"], &|disk| {
        lvm_text(disk, &|text| text.replacen("vg0 {", "\"../../dev/vda\" {", 1).into_bytes());
    });
    attack("lvm", 6, &["no operating system was found"], &|disk| {
        lvm_text(disk, &|text| text.replacen("\nroot {", "\n\"../../vda\" {", 1).into_bytes());
    });
}

/// Changes the superblock of an array's member (`struct mdp_superblock_1` of the kernel's include/uapi/linux/raid/md_p.h),
/// which is 4 KiB into the first partition.
fn md_field(disk: &mut [u8], at: usize, value: &[u8]) {
    let superblock = &mut disk[(1 << 20) + 4096..(1 << 20) + 8192];
    assert_eq!(superblock[..4], 0xa92b_4efc_u32.to_le_bytes());
    superblock[at..at + value.len()].copy_from_slice(value);
    superblock[216..220].fill(0);
    let roles = u32::from_le_bytes(superblock[220..224].try_into().unwrap());
    let (words, rest) = superblock[..256 + 2 * roles as usize].as_chunks::<4>();
    let sum: u64 = words.iter().map(|word| u64::from(u32::from_le_bytes(*word))).sum();
    let sum = sum + rest.try_into().map_or(0, |rest| u64::from(u16::from_le_bytes(rest)));
    let sum = u32::try_from((sum & 0xffff_ffff) + (sum >> 32)).unwrap();
    superblock[216..220].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn arrays_with_absurd_numbers() {
    let lacks = ["lacks members, or cannot be put together"];
    let attack = |name: &str, at: usize, value: &[u8]| {
        attack(name, 6, &lacks, &|disk| md_field(disk, at, value));
    };
    // Members; the level; the place and the length of the data; the length of a chunk of RAID 0; a change half done.
    attack("md-raid1", 92, &0x7fff_ffff_u32.to_le_bytes());
    attack("md-raid1", 72, &i32::MAX.to_le_bytes());
    attack("md-raid1", 128, &(1_u64 << 62).to_le_bytes());
    attack("md-raid1", 136, &(1_u64 << 60).to_le_bytes());
    attack("md-raid0", 88, &[0; 4]);
    attack("md-raid1", 8, &4_u32.to_le_bytes());
}

/// Changes the metadata of a LUKS2 volume, in both headers (LUKS2 On-Disk Format Specification 1.1.1).
fn luks_metadata(disk: &mut [u8], change: &dyn Fn(Value) -> Vec<u8>) {
    let first = find(disk, b"LUKS\xba\xbe\0\x02");
    let length = u64::from_be_bytes(disk[first + 8..first + 16].try_into().unwrap());
    let length = usize::try_from(length).unwrap();
    for header in [first, first + length].map(|at| at..at + length) {
        let header = &mut disk[header];
        let text = header[4096..].split(|byte| *byte == 0).next().unwrap();
        let new = change(serde_json::from_slice(text).unwrap());
        header[4096..].fill(0);
        header[4096..4096 + new.len()].copy_from_slice(&new);
        header[448..512].fill(0);
        let sum = Sha256::digest(&*header);
        header[448..480].copy_from_slice(&sum);
    }
}

/// The same for one number of each key slot's key derivation.
fn luks_cost(disk: &mut [u8], name: &str, number: u64) {
    luks_metadata(disk, &|mut metadata| {
        for slot in metadata["keyslots"].as_object_mut().unwrap().values_mut() {
            slot["kdf"][name] = number.into();
        }
        serde_json::to_vec(&metadata).unwrap()
    });
}

#[test]
fn encryption_whose_key_takes_all_memory_or_for_ever() {
    attack("luks2", 6, &["partition 2 cannot be opened", "needs 4096 MiB of memory"], &|disk| {
        luks_cost(disk, "memory", 4 << 20);
    });
    attack("luks2", 6, &["partition 2 cannot be opened", "one try takes hours"], &|disk| {
        luks_cost(disk, "time", u32::MAX.into());
    });
}

#[test]
fn encryption_whose_metadata_is_none_or_lies() {
    attack("luks2", 6, &["partition 2 cannot be opened", "its header is not understood"], &|disk| {
        luks_metadata(disk, &|_| b"{\"a\":".repeat(2400));
    });
    attack("luks2", 1, &["cannot open partition 2", "beyond real size of device"], &|disk| {
        luks_metadata(disk, &|mut metadata| {
            metadata["segments"]["0"]["offset"] = "18446744073709547520".into();
            serde_json::to_vec(&metadata).unwrap()
        });
    });
}
