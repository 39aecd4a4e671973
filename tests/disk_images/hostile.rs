//! Real images with bytes changed: whatever is in them, reading ends, asks for little and finds volumes that lie inside
//! the disk and apart from each other.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Result, Seek, SeekFrom};

use guestseal::disk::read_disk;
use proptest::prelude::*;

use crate::tools::{Image, has};

const MIB: u64 = 1 << 20;

/// A file with other bytes in some places, and a count of what is read.
struct Changed {
    file: File,
    changes: BTreeMap<u64, u8>,
    read: u64,
    largest: usize,
}

impl Read for Changed {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let at = self.file.stream_position()?;
        let len = self.file.read(buffer)?;
        for (place, byte) in self.changes.range(at..at + len as u64) {
            buffer[usize::try_from(place - at).unwrap()] = *byte;
        }
        self.read += len as u64;
        self.largest = self.largest.max(buffer.len());
        Ok(len)
    }
}

impl Seek for Changed {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        self.file.seek(to)
    }
}

/// Changes up to 40 bytes near `hot` places and reads the disk, 300 times.
fn survive(image: &Image, hot: &[u64]) {
    let bytes = image.bytes;
    let places = prop::sample::select(hot.to_vec());
    let change = (places, 0..1024_u64, prop_oneof![Just(0), Just(0xff), any::<u8>()]);
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(changes in prop::collection::vec(change, 1..40))| {
        let changes = changes.into_iter().map(|(place, offset, byte)| (place + offset, byte)).collect();
        let mut disk = Changed { file: image.open(), changes, read: 0, largest: 0 };
        let found = read_disk(&mut disk, bytes);
        prop_assert!(disk.largest <= 1 << 20, "a buffer of {} bytes", disk.largest);
        prop_assert!(disk.read <= 64 * MIB, "{} bytes were read", disk.read);
        let Ok(mut found) = found else { return Ok(()) };
        found.volumes.sort_by_key(|volume| volume.offset);
        let mut end = 0;
        for volume in found.volumes {
            prop_assert!(volume.offset >= end && volume.offset + volume.length <= bytes, "{volume:?}");
            end = volume.offset + volume.length;
        }
    });
}

#[test]
fn changed_filesystems() {
    for (tool, args, hot) in [
        ("mke2fs", &["-qFt", "ext4", "{}"][..], &[1024][..]),
        ("mkfs.btrfs", &["-qf", "{}"], &[64 << 10, (64 << 10) + 1024]),
        ("mkfs.vfat", &["-F", "32", "{}"], &[0, 512, 32 * 512, (32 + 2 * 4033) * 512]),
        ("mkfs.vfat", &["-F", "16", "{}"], &[0, 512]),
        ("mkswap", &["{}"], &[1024, 3500]),
    ] {
        if has(&[tool]) {
            survive(&Image::new(512 * MIB).make(tool, args, ""), hot);
        }
    }
}

#[test]
fn changed_xfs_with_its_log() {
    if has(&["mkfs.xfs"]) {
        let image = Image::new(512 * MIB).make("mkfs.xfs", &["-qf", "{}"], "");
        // The log starts in the third of four allocation groups.
        survive(&image, &[0]);
        survive(&image, &[256 * MIB + 24 * 1024]);
    }
}

#[test]
fn changed_tables() {
    if !has(&["sfdisk"]) {
        return;
    }
    let script = "label: dos\nsize=10MiB\nsize=50MiB, type=5\n5 : size=5MiB\n6 : size=6MiB\n7 : size=7MiB\n";
    let image = Image::new(100 * MIB).make("sfdisk", &["-q", "{}"], script);
    survive(&image, &[0, 11 * MIB, 17 * MIB, 24 * MIB]);
    let script = "label: gpt\nsize=10MiB\nsize=20MiB\n";
    let image = Image::new(100 * MIB).make("sfdisk", &["-q", "{}"], script);
    survive(&image, &[0, 446, 512, 1024, 100 * MIB - 1024, 100 * MIB - 33 * 512]);
}
