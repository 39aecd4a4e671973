//! Partition tables and superblocks of a sparse disk.

use guestseal::disk::{self, DiskLayout};

use crate::sparse::{Disk, Input};
use crate::targets::check_error;

/// The most that may be read of a disk for one volume: 72 KiB at its start, 2 MiB of a FAT root folder, a megabyte
/// of an XFS log, and far less for all else.
const READ_OF_VOLUME: u64 = 4 << 20;
/// The kernel shows no more partitions than this.
const PARTITIONS: usize = 256;

/// One volume: what superblock it has.
pub(crate) fn probe(data: &[u8]) {
    let mut disk = Disk::parse(&mut Input(data));
    let bytes = disk.bytes;
    let found = disk::probe(&mut disk, 0, bytes).expect("a disk in memory can be read");
    assert!(disk.read <= READ_OF_VOLUME, "{} bytes were read", disk.read);
    if let Some(superblock) = found {
        assert!(!superblock.damaged || superblock.state == disk::FsState::Errors);
        assert!(superblock.label.as_ref().is_none_or(|label| !label.is_empty() && label.len() <= 3 * 1024));
        assert!(superblock.uuid.as_ref().is_none_or(|uuid| !uuid.is_empty() && uuid.len() <= 128));
        assert!(!superblock.also.contains(&superblock.content));
        serde_json::to_vec(&superblock).expect("it can be shown");
    }
}

/// A whole disk as it is.
pub(crate) fn mbr(data: &[u8]) {
    layout(&mut Disk::parse(&mut Input(data)));
}

/// A whole disk whose GPTs get the checksums that they should have, so that what is behind them is reached. The first
/// byte says which.
pub(crate) fn gpt(data: &[u8]) {
    let mut input = Input(data);
    let right = input.u8();
    let mut disk = Disk::parse(&mut input);
    for (bit, size) in [(1, 512), (2, 4096)] {
        if right & bit != 0 {
            let last = (disk.bytes / size).saturating_sub(1);
            [1, last].into_iter().for_each(|lba| correct(&mut disk, size, lba));
        }
    }
    layout(&mut disk);
}

/// Writes the checksums of a GPT: of its entries at byte 88, of its header at byte 16.
fn correct(disk: &mut Disk, size: u64, lba: u64) {
    let Some(at) = lba.checked_mul(size).filter(|at| *at < disk.bytes) else { return };
    let mut header = disk.get(at, 512);
    let word = |header: &[u8], at: usize| u64::from_le_bytes(header[at..at + 8].try_into().unwrap());
    if !header.starts_with(b"EFI PART") {
        return;
    }
    let count = (word(&header, 80) as u32).min(4096) as usize;
    if let Some(entries) = word(&header, 72).checked_mul(size).filter(|at| *at < disk.bytes) {
        let sum = crc32(&disk.get(entries, count * 128));
        header[88..92].copy_from_slice(&sum.to_le_bytes());
    }
    header[16..20].fill(0);
    let length = (word(&header, 12) as u32).clamp(92, 512) as usize;
    let sum = crc32(&header[..length]);
    header[16..20].copy_from_slice(&sum.to_le_bytes());
    disk.put(at, &header);
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}

fn layout(disk: &mut Disk) {
    let bytes = disk.bytes;
    match disk::read_disk(disk, bytes) {
        Ok(layout) => check(&layout, bytes),
        Err(error) => {
            assert_eq!(error.kind(), guestseal::ErrorKind::Unsupported, "{error:?}");
            check_error(&error);
        }
    }
    // The volumes are looked at for both sector sizes, and the disk as a whole.
    let most = (2 * PARTITIONS as u64 + 1) * READ_OF_VOLUME;
    assert!(disk.read <= most, "{} bytes were read", disk.read);
}

fn check(layout: &DiskLayout, bytes: u64) {
    assert_eq!(layout.bytes, bytes);
    assert!(!layout.volumes.is_empty() || layout.table.is_some());
    let mut extents: Vec<_> = layout.volumes.iter().map(|volume| (volume.offset, volume.length)).collect();
    extents.sort_unstable();
    let mut free = 0;
    for (offset, length) in extents {
        assert!(offset >= free, "two volumes overlap: {layout:?}");
        free = offset.checked_add(length).expect("a volume ends within 64 bits");
        assert!(free <= bytes, "a volume reaches out of the disk: {layout:?}");
    }
    if let Some(table) = &layout.table {
        assert!(table.partitions.len() <= PARTITIONS, "{} partitions", table.partitions.len());
        let mut numbers: Vec<_> = table.partitions.iter().map(|partition| partition.number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), table.partitions.len(), "two partitions have one number");
        assert!(numbers.first() != Some(&0));
        assert!(table.partitions.iter().all(|partition| partition.length > 0 && partition.end() <= bytes));
    }
    let storage = disk::Storage::new(vec![(layout.clone(), None)]);
    assert!(serde_json::to_vec(&storage).expect("it can be shown").len() <= 4 << 20);
}
