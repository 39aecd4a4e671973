use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::disk::content::Content;
use crate::disk::testing::{Disk, GptPlan, MbrEntry, noise, put_ext2, put_mbr};
use crate::error::ErrorKind;

const SIZE: u64 = 64 << 20;

fn read_all(disk: &mut Disk) -> Result<DiskLayout> {
    read_disk(disk, disk.bytes)
}

fn contents(layout: &DiskLayout) -> Vec<Option<Content>> {
    layout.volumes.iter().map(|volume| volume.superblock.as_ref().map(|known| known.content)).collect()
}

fn with_mbr(entries: &[(u64, MbrEntry)]) -> Disk {
    let mut disk = Disk::new(SIZE);
    put_mbr(&mut disk, 0, entries);
    disk
}

#[test]
fn an_empty_disk_is_one_unknown_volume() {
    for bytes in [0, 1, 511, 512, 4096, SIZE] {
        let found = read_all(&mut Disk::new(bytes)).unwrap();
        assert_eq!((contents(&found), found.table), (vec![None], None));
        assert_eq!((found.volumes[0].offset, found.volumes[0].length), (0, bytes));
    }
}

#[test]
fn a_table_with_a_filesystem_in_it_wins() {
    let mut disk = with_mbr(&[(0, (0x83, 2048, 8192))]);
    put_ext2(&mut disk, 0, 16, 1);
    put_ext2(&mut disk, 2048 * 512, 16, 2);
    let found = read_all(&mut disk).unwrap();
    assert_eq!(contents(&found), [Some(Content::Ext2)]);
    assert_eq!(found.volumes[0].offset, 2048 * 512);
    assert!(found.warnings[0].contains("as a whole has a superblock of ext2"), "{:?}", found.warnings);
    assert_eq!(read_table(&mut disk, SIZE).unwrap().unwrap().partitions.len(), 1);
}

#[test]
fn a_whole_disk_filesystem_wins_over_an_unproven_table() {
    let mut disk = with_mbr(&[(0, (0x83, 2048, 8192))]);
    put_ext2(&mut disk, 0, 16, 1);
    let found = read_all(&mut disk).unwrap();
    assert_eq!((contents(&found), found.table.is_none()), (vec![Some(Content::Ext2)], true));
    assert!(found.warnings[0].contains("looks like a partition table"), "{:?}", found.warnings);
    // And over one that makes no sense, without a word: boot code looks like that.
    let mut disk = with_mbr(&[(0, (0x83, 0, u32::MAX))]);
    put_ext2(&mut disk, 0, 16, 1);
    let found = read_all(&mut disk).unwrap();
    assert_eq!((contents(&found), found.warnings.len()), (vec![Some(Content::Ext2)], 0));
}

#[test]
fn a_superblock_at_the_end_of_the_last_partition_is_its_own() {
    let mut disk = with_mbr(&[(0, (0x83, 2048, u32::try_from(SIZE / 512 - 2048).unwrap()))]);
    disk.put(SIZE - 65_536, &0xa92b_4efc_u32.to_le_bytes()).put(SIZE - 65_536 + 8, &[90]);
    let found = read_all(&mut disk).unwrap();
    assert_eq!((contents(&found), found.warnings.len()), (vec![Some(Content::MdMember)], 0));
}

/// A superblock whose checksum is wrong was overwritten, by the table for instance.
#[test]
fn a_damaged_superblock_does_not_win() {
    let mut disk = with_mbr(&[(0, (0x83, 2048, 8192))]);
    put_ext2(&mut disk, 0, 16, 1);
    disk.put(1024 + 100, &[0, 4]); // metadata_csum, and no checksum
    let found = read_all(&mut disk).unwrap();
    assert_eq!(contents(&found), [None]);
    assert_eq!(found.volumes[0].offset, 2048 * 512);
}

#[test]
fn a_gpt_wins_over_everything() {
    let mut disk = Disk::new(SIZE);
    GptPlan::new(512, &[(1, 2048, 4095)]).put(&mut disk);
    put_mbr(&mut disk, 0, &[(0, (0x83, 8192, 100)), (1, (0xee, 1, 8000))]);
    put_ext2(&mut disk, 8192 * 512, 16, 1);
    let found = read_all(&mut disk).unwrap();
    assert_eq!(found.volumes.len(), 1);
    assert_eq!(found.volumes[0].partition.as_ref().unwrap().number, 1);
}

#[test]
fn announced_and_missing() {
    let mut disk = with_mbr(&[(0, (0xee, 1, u32::MAX))]);
    let error = read_all(&mut disk).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("announces a GPT"), "{error}");
    put_ext2(&mut disk, 0, 16, 1);
    assert_eq!(contents(&read_all(&mut disk).unwrap()), [Some(Content::Ext2)]);
}

#[test]
fn a_gpt_that_nothing_announces() {
    let mut disk = Disk::new(SIZE);
    GptPlan::new(512, &[(1, 2048, 4095)]).put(&mut disk);
    disk.put(510, &[0, 0]);
    let found = read_all(&mut disk).unwrap();
    assert_eq!(found.table.as_ref().unwrap().partitions.len(), 1);
    assert!(found.warnings[0].contains("does not announce"), "{:?}", found.warnings);
    // It is old when there is something else.
    put_mbr(&mut disk, 0, &[(0, (0x83, 8192, 100))]);
    assert_eq!(read_all(&mut disk).unwrap().volumes[0].offset, 8192 * 512);
}

#[test]
fn warnings_about_volumes() {
    let mut disk = with_mbr(&[(0, (0x83, 2048, 1024))]);
    put_ext2(&mut disk, 2048 * 512, 5000, 2);
    let found = read_all(&mut disk).unwrap();
    assert!(found.warnings[0].contains("5120000 bytes, but there are only 524288"), "{:?}", found.warnings);
    let mut disk = Disk::new(SIZE);
    put_ext2(&mut disk, 0, 16, 2);
    disk.put(64 << 10, &[0; 48]).put((64 << 10) + 48, &(64_u64 << 10).to_le_bytes());
    disk.put((64 << 10) + 64, b"_BHRfS_M").put((64 << 10) + 144, &4096_u32.to_le_bytes());
    disk.put((64 << 10) + 196, &[1]).put((64 << 10) + 136, &[1]);
    let found = read_all(&mut disk).unwrap();
    assert_eq!(found.warnings, ["the disk is taken as ext2, but there are superblocks of btrfs as well"]);
}

#[test]
fn a_disk_that_cannot_be_read() {
    let mut disk = with_mbr(&[(0, (0x83, 2048, 8192)), (1, (0x05, 20_000, 8192))]);
    put_ext2(&mut disk, 0, 16, 1);
    for (bad, what) in
        [(0, "first sector"), (70_000, "the disk"), (2048 * 512, "partition 1"), (20_000 * 512, "table")]
    {
        disk.bad = Some(bad);
        let error = read_all(&mut disk).unwrap_err();
        assert!(error.chain().contains(what) && error.chain().ends_with("bad sector"), "{}", error.chain());
    }
}

#[test]
fn the_form_of_the_json() {
    let mut disk = with_mbr(&[(0, (0x83, 2048, 8192))]);
    put_ext2(&mut disk, 2048 * 512, 16, 2);
    let storage = super::super::Storage::new(vec![(read_all(&mut disk).unwrap(), None)]);
    let json = serde_json::to_value(storage).unwrap();
    assert_eq!(json["disks"][0]["table"]["kind"], "mbr");
    assert_eq!(json["disks"][0]["table"]["partitions"][0]["type-id"], "0x83");
    assert_eq!(json["volumes"][0]["superblock"]["content"], "ext2");
    assert_eq!(json["volumes"][0]["superblock"]["state"], "clean");
}

/// What every hostile disk must hold to: an answer, little read, small buffers, volumes inside the disk and apart.
fn check(mut disk: Disk) {
    let bytes = disk.bytes;
    let found = read_all(&mut disk);
    assert!(disk.largest <= 1 << 20, "a buffer of {} bytes", disk.largest);
    assert!(disk.read <= 512 << 20, "{} bytes were read", disk.read);
    let Ok(found) = found else { return };
    let mut ends = 0;
    let mut volumes = found.volumes;
    volumes.sort_by_key(|volume| volume.offset);
    for volume in volumes {
        assert!(volume.offset >= ends && volume.offset + volume.length <= bytes, "{volume:?}");
        ends = volume.offset + volume.length;
    }
}

/// Places where tables and superblocks stand.
fn hot() -> impl Strategy<Value = u64> {
    prop_oneof![0..2048_u64, 32_768..34_816_u64, 65_536..66_048_u64, SIZE - 17_000..SIZE, 0..SIZE]
}

proptest! {
    #[test]
    fn noise_is_survived(seed in any::<u64>(), len in 0_usize..8192) {
        let bytes = noise(seed, len);
        let len = bytes.len() as u64;
        let _ = read_disk(&mut Cursor::new(bytes.clone()), len);
        let _ = read_disk(&mut Cursor::new(bytes), u64::MAX);
    }

    #[test]
    fn forged_entries_are_survived(
        entries in prop::collection::vec((0_u64..4, (prop::sample::select(vec![0_u8, 5, 0xf, 0x83, 0xee]), any::<u32>(), any::<u32>())), 0..4),
        records in prop::collection::vec((0_u64..200, 0_u64..4, (prop::sample::select(vec![5_u8, 0x83]), 0_u32..300, 0_u32..300)), 0..40),
        extended in 1_u32..100,
    ) {
        let mut disk = with_mbr(&entries);
        put_mbr(&mut disk, 0, &[(0, (5, extended, 200))]);
        for (sector, index, entry) in records {
            put_mbr(&mut disk, (u64::from(extended) + sector) * 512, &[(index, entry)]);
        }
        check(disk);
    }

    #[test]
    fn forged_gpts_are_survived(
        partitions in prop::collection::vec((1_u64..=128, prop_oneof![0..200_000_u64, any::<u64>()], prop_oneof![0..200_000_u64, any::<u64>()]), 0..10),
        count in prop_oneof![Just(128_u32), any::<u32>()],
        entry_size in prop_oneof![Just(128_u32), any::<u32>()],
        entries_at in prop::option::of(any::<u64>()),
        large in any::<bool>(),
    ) {
        let mut disk = Disk::new(SIZE);
        let sector = if large { 4096 } else { 512 };
        GptPlan { count, entry_size, entries_at, ..GptPlan::new(sector, &partitions) }.put(&mut disk);
        check(disk);
    }

    #[test]
    fn changed_bytes_are_survived(changes in prop::collection::vec((hot(), any::<u8>()), 1..60), gpt in any::<bool>()) {
        let mut disk = Disk::new(SIZE);
        if gpt {
            GptPlan::new(512, &[(1, 2048, 4095), (2, 4096, 9000)]).put(&mut disk);
        } else {
            put_mbr(&mut disk, 0, &[(0, (0x83, 2048, 2048)), (1, (0x05, 4096, 9000))]);
            put_mbr(&mut disk, 4096 * 512, &[(0, (0x83, 10, 500)), (1, (0x05, 1000, 600))]);
        }
        put_ext2(&mut disk, 2048 * 512, 1000, 1);
        for (at, byte) in changes {
            disk.put(at, &[byte]);
        }
        check(disk);
    }
}
