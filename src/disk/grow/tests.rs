use proptest::prelude::*;

use super::*;
use crate::disk::read_table;
use crate::disk::testing::{Disk, GptPlan, put_ext2, put_mbr};

const SIZE: u64 = 64 << 20;

/// The table of a disk that had `SIZE` bytes, was made longer and got the patches; and which partitions grew.
fn grown(disk: &mut Disk, bytes: u64, number: u32) -> (PartitionTable, Vec<u32>) {
    let before = read_table(disk, SIZE).unwrap().unwrap();
    let planned = grow_partition(disk, bytes, (&before, number), bytes > SIZE).unwrap();
    disk.bytes = bytes;
    for patch in &planned.patches {
        disk.put(patch.at, &patch.bytes);
    }
    let after = read_table(disk, bytes).unwrap().unwrap();
    for (number, start, length) in &planned.grown {
        let partition = after.partitions.iter().find(|partition| partition.number == *number).unwrap();
        assert_eq!((partition.start, partition.length), (*start, *length));
    }
    (after, planned.grown.iter().map(|(number, ..)| *number).collect())
}

fn refused(disk: &mut Disk, bytes: u64, number: u32) -> String {
    let table = read_table(disk, SIZE).unwrap().unwrap();
    grow_partition(disk, bytes, (&table, number), bytes > SIZE).unwrap_err().to_string()
}

/// A boot partition and a root that ends where tools let it end.
fn gpt(sector: u64) -> Disk {
    let mut disk = Disk::new(SIZE);
    let last = SIZE / sector - 1 - (128 * 128_u64).div_ceil(sector) - 1;
    let mib = (1 << 20) / sector;
    GptPlan::new(sector, &[(1, mib, 2 * mib - 1), (3, 2 * mib, last)]).put(&mut disk);
    disk
}

#[test]
fn a_gpt_follows_the_disk() {
    for sector in [512, 4096] {
        let mut disk = gpt(sector);
        let old = disk.clone();
        let (table, numbers) = grown(&mut disk, 3 * SIZE, 3);
        assert_eq!((numbers.as_slice(), table.warnings.as_slice()), ([3].as_slice(), [].as_slice()));
        let [boot, root] = &table.partitions[..] else { panic!("{table:?}") };
        assert_eq!((boot.start, boot.length), (1 << 20, 1 << 20));
        assert_eq!(root.end(), 3 * SIZE - (1 << 20));
        // Of the old backup nothing is left, and the boot sector covers the disk.
        assert!((SIZE - 33 * 512..SIZE).all(|at| disk.get(at) == 0));
        let covered = [458, 459, 460, 461].map(|at| disk.get(at));
        assert_eq!(u64::from(u32::from_le_bytes(covered)), 3 * SIZE / sector - 1);
        assert!((0..440).all(|at| disk.get(at) == old.get(at)));
    }
}

#[test]
fn what_is_large_enough_stays() {
    let mut disk = gpt(512);
    let table = read_table(&mut disk, SIZE).unwrap().unwrap();
    let planned = grow_partition(&mut disk, SIZE, (&table, 3), false).unwrap();
    assert_eq!(planned, GrownTable { patches: vec![], grown: vec![] });
    let planned = grow_partition(&mut disk, SIZE, (&table, 1), false).unwrap();
    assert_eq!(planned.grown, []);
}

#[test]
fn what_lies_behind_is_named() {
    assert_eq!(
        refused(&mut gpt(512), 2 * SIZE, 1),
        "partition 1 cannot grow: partition 3 lies behind it on the disk"
    );
    assert_eq!(
        refused(&mut mbr(), 2 * SIZE, 1),
        "partition 1 cannot grow: partition 3 lies behind it on the disk"
    );
    assert!(refused(&mut mbr(), 2 * SIZE, 5).contains("partition 6 lies behind it"));
}

#[test]
fn a_damaged_primary_is_not_grown() {
    let mut disk = gpt(512);
    disk.put(512 + 20, &[1]);
    assert!(refused(&mut disk, 2 * SIZE, 3).contains("the primary GPT is damaged"));
}

/// A root, and an extended partition with two logical ones.
fn mbr() -> Disk {
    let mut disk = Disk::new(SIZE);
    put_mbr(&mut disk, 0, &[(0, (0x83, 2048, 20_000)), (2, (0x05, 40_000, 60_000))]);
    put_mbr(&mut disk, 40_000 * 512, &[(0, (0x83, 100, 9_900)), (1, (0x05, 20_000, 10_000))]);
    put_mbr(&mut disk, 60_000 * 512, &[(0, (0x83, 200, 9_800))]);
    put_ext2(&mut disk, 2048 * 512, 100, 7);
    disk
}

#[test]
fn a_logical_partition_takes_its_extended_one_along() {
    let mut disk = mbr();
    let (table, numbers) = grown(&mut disk, 2 * SIZE, 6);
    assert_eq!(numbers, [3, 6]);
    let ends: Vec<_> = table.partitions.iter().map(|partition| (partition.number, partition.end())).collect();
    assert_eq!(ends, [(1, 22_048 * 512), (3, 2 * SIZE), (5, 50_000 * 512), (6, 2 * SIZE)]);
    // What the record before says of it: from its record to its end.
    let sectors = [474, 475, 476, 477].map(|at| disk.get(40_000 * 512 + at));
    assert_eq!(u64::from(u32::from_le_bytes(sectors)), 2 * SIZE / 512 - 60_000);
}

#[test]
fn a_primary_partition_of_an_mbr_grows() {
    let mut disk = Disk::new(SIZE);
    put_mbr(&mut disk, 0, &[(1, (0x83, 2048, 20_000))]);
    disk.put(440, &[4, 3, 2, 1]);
    put_ext2(&mut disk, 2048 * 512, 100, 7);
    let (table, numbers) = grown(&mut disk, SIZE + 100 * 512, 2);
    assert_eq!((numbers.as_slice(), table.partitions[0].end()), ([2].as_slice(), SIZE));
    let too_much = (1 << 41) + (1 << 30);
    assert!(refused(&mut disk.clone(), too_much, 2).contains("an MBR knows 2199023255040 bytes at most"));
}

/// A table that ends where the disk does has no room for its backup.
#[test]
fn a_gpt_without_room_for_its_backup_is_refused() {
    let mut disk = Disk::new(SIZE);
    let last = SIZE / 512 - 1;
    GptPlan::new(512, &[(1, 2048, last - 40)]).put(&mut disk);
    let table = read_table(&mut disk, SIZE).unwrap().unwrap();
    // Made shorter by a tool that knew nothing of partitions.
    let shorter = SIZE - 24 * 512;
    let error = grow_partition(&mut disk, shorter, (&table, 1), false).unwrap_err().to_string();
    assert!(error.contains("no room for the backup"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_damaged_table_ends_in_an_answer(
        gpt_table in any::<bool>(),
        damage in proptest::collection::vec((0usize..4, 446u64..512, any::<u8>()), 1..8),
        number in 1u32..8,
    ) {
        let mut disk = if gpt_table { gpt(512) } else { mbr() };
        for (record, at, value) in damage {
            disk.put([0, 40_000, 60_000, 1][record] * 512 + at, &[value]);
        }
        disk.put(510, &[0x55, 0xaa]);
        if let Ok(Some(table)) = read_table(&mut disk, SIZE) {
            for wants_room in [false, true] {
                let _ = grow_partition(&mut disk, SIZE + (1 << 20), (&table, number), wants_room);
            }
        }
    }

    #[test]
    fn any_gpt_stays_whole(
        large in any::<bool>(),
        lengths in proptest::collection::vec((1u64..40, 1u64..20), 1..6),
        more in 0u64..5000,
    ) {
        let sector = if large { 4096 } else { 512 };
        let (mut at, mut plan) = (300, Vec::new());
        for (number, (length, gap)) in (1..).zip(&lengths) {
            plan.push((number, at, at + length * 8 - 1));
            at += (length + gap) * 8;
        }
        let mut disk = Disk::new(SIZE);
        GptPlan::new(sector, &plan).put(&mut disk);
        let before = read_table(&mut disk, SIZE).unwrap().unwrap();
        let number = u32::try_from(plan.len()).unwrap();
        let bytes = SIZE + more * 512;
        let (after, _) = grown(&mut disk, bytes - bytes % sector, number);
        prop_assert_eq!(&after.warnings, &Vec::<String>::new());
        let others = plan.len() - 1;
        prop_assert_eq!(&before.partitions[..others], &after.partitions[..others]);
        let (old, new) = (&before.partitions[others], &after.partitions[others]);
        prop_assert!(new.end() >= old.end() && new.end() > bytes - (3 << 20) && new.start == old.start);
        // Once more changes nothing.
        let again = grow_partition(&mut disk, bytes - bytes % sector, (&after, number), false).unwrap();
        prop_assert_eq!(again.patches, Vec::new());
    }
}
