use super::*;
use crate::disk::testing::{Disk, put_mbr};

const SIZE: u64 = 100 << 20;
const SECTORS: u32 = 204_800;

fn table(disk: &mut Disk) -> Result<PartitionTable> {
    let boot =
        read_block(disk, 0, 512).unwrap().as_ref().and_then(BootSector::parse).expect("no boot signature");
    assert!(boot.is_table());
    read(disk, disk.bytes, &boot, 512)
}

fn with(entries: &[(u64, (u8, u32, u32))]) -> Disk {
    let mut disk = Disk::new(SIZE);
    put_mbr(&mut disk, 0, entries);
    disk.put(440, &[4, 3, 2, 1]);
    disk
}

/// An extended partition from sector 1000 to 100,999 with records at 1000, 2000 and 3000.
fn chained() -> Disk {
    let mut disk = with(&[(0, (0x83, 100, 900)), (2, (0x0f, 1000, 100_000))]);
    put_mbr(&mut disk, 1000 * 512, &[(0, (0x83, 10, 500)), (1, (0x05, 1000, 600))]);
    put_mbr(&mut disk, 2000 * 512, &[(0, (0x82, 20, 500)), (1, (0x05, 2000, 600))]);
    put_mbr(&mut disk, 3000 * 512, &[(0, (0x07, 30, 500))]);
    disk
}

fn refused(disk: &mut Disk) -> String {
    table(disk).expect_err("not refused").to_string()
}

#[test]
fn logical_partitions_follow_the_chain() {
    let found = table(&mut chained()).unwrap();
    let places: Vec<_> = found
        .partitions
        .iter()
        .map(|partition| {
            (partition.number, partition.start / 512, partition.length / 512, &*partition.type_id)
        })
        .collect();
    let expected = [
        (1, 100, 900, "0x83"),
        (3, 1000, 100_000, "0xf"),
        (5, 1010, 500, "0x83"),
        (6, 2020, 500, "0x82"),
        (7, 3030, 500, "0x7"),
    ];
    assert_eq!(places, expected);
    assert_eq!(found.id, "01020304");
    assert_eq!(found.partitions[4].part_uuid.as_deref(), Some("01020304-07"));
    assert_eq!(found.warnings, [""; 0]);
}

#[test]
fn the_active_flag_and_a_missing_identity() {
    let mut disk = with(&[(0, (0x83, 100, 900)), (3, (0xc, 2000, 9))]);
    disk.put(440, &[0; 4]).put(446 + 48, &[0x80]);
    let found = table(&mut disk).unwrap();
    let flags: Vec<_> =
        found.partitions.iter().map(|partition| (partition.number, partition.bootable)).collect();
    assert_eq!(flags, [(1, false), (4, true)]);
    assert_eq!(found.partitions[0].part_uuid, None);
}

#[test]
fn chains_in_circles() {
    let mut disk = chained();
    put_mbr(&mut disk, 3000 * 512, &[(1, (0x05, 1000, 600))]);
    assert_eq!(refused(&mut disk), "the extended boot records lead in a circle to sector 2000");
    put_mbr(&mut disk, 1000 * 512, &[(1, (0x05, 0, 600))]);
    assert_eq!(refused(&mut disk), "the extended boot records lead in a circle to sector 1000");
}

#[test]
fn chains_out_of_bounds() {
    for link in [100_000, u32::MAX, u32::MAX - 999] {
        let mut disk = chained();
        put_mbr(&mut disk, 3000 * 512, &[(1, (0x05, link, 600))]);
        assert!(refused(&mut disk).contains("lead out of bounds"), "{link}");
    }
    let mut disk = chained();
    put_mbr(&mut disk, 3000 * 512, &[(0, (0x83, 99_999, 2))]);
    assert!(refused(&mut disk).contains("logical partition 7 reaches out of its extended partition"));
}

#[test]
fn chains_without_end() {
    let mut disk = with(&[(0, (0x05, 1000, SECTORS - 1000))]);
    for number in 0..1000 {
        put_mbr(
            &mut disk,
            (1000 + number * 10) * 512,
            &[(1, (0x05, (u32::try_from(number).unwrap() + 1) * 10, 5))],
        );
    }
    assert!(refused(&mut disk).contains("more than 256"));
    assert!(disk.read < 1 << 20, "read {} bytes", disk.read);
}

#[test]
fn chains_that_break() {
    let mut disk = chained();
    disk.put(3000 * 512 + 510, &[0, 0]);
    let found = table(&mut disk).unwrap();
    assert_eq!(found.partitions.len(), 4);
    assert_eq!(found.warnings, ["the chain of logical partitions breaks at sector 3000"]);
    // An extended partition without any record is empty.
    let found = table(&mut with(&[(0, (0x05, 1000, 1000))])).unwrap();
    assert_eq!((found.partitions.len(), found.warnings.len()), (1, 0));
}

/// DR-DOS has the link first; an empty record takes no number.
#[test]
fn unusual_records() {
    let mut disk = with(&[(1, (0x05, 1000, 100_000))]);
    put_mbr(&mut disk, 1000 * 512, &[(0, (0x05, 1000, 600))]);
    put_mbr(&mut disk, 2000 * 512, &[(1, (0x83, 20, 500)), (3, (0x83, 98_996, 5))]);
    let found = table(&mut disk).unwrap();
    let numbers: Vec<_> =
        found.partitions.iter().map(|partition| (partition.number, partition.start / 512)).collect();
    assert_eq!(numbers, [(2, 1000), (5, 2020)]);
    assert_eq!(found.warnings, ["the boot record at sector 2000 has a senseless entry"]);
}

#[test]
fn two_extended_partitions() {
    let mut disk = with(&[(0, (0x05, 1000, 1000)), (1, (0x85, 5000, 1000))]);
    put_mbr(&mut disk, 1000 * 512, &[(0, (0x83, 10, 500))]);
    put_mbr(&mut disk, 5000 * 512, &[(0, (0x83, 10, 500))]);
    let found = table(&mut disk).unwrap();
    let numbers: Vec<_> =
        found.partitions.iter().map(|partition| (partition.number, partition.start / 512)).collect();
    assert_eq!(numbers, [(1, 1000), (2, 5000), (5, 1010), (6, 5010)]);
}

#[test]
fn lying_entries_are_refused() {
    for (entries, why) in [
        (&[(0, (0x83, 100, 100)), (1, (0x83, 199, 100))][..], "partition 1 and partition 2 overlap"),
        (&[(0, (0x83, 100, 100)), (1, (0x05, 50, 500))], "partition 2 and partition 1 overlap"),
        (&[(0, (0x83, 0, 100))], "the partition table and partition 1 overlap"),
        (
            &[(0, (0x83, 100, SECTORS))],
            "partition 1 ends at sector 204899, but the disk has only 204800 sectors",
        ),
        (&[(3, (0x83, u32::MAX, u32::MAX))], "partition 4 ends at sector"),
    ] {
        let error = refused(&mut with(entries));
        assert!(error.contains(why), "{error}");
    }
    let mut disk = chained();
    put_mbr(&mut disk, 1000 * 512, &[(0, (0x83, 10, 1010))]);
    assert_eq!(refused(&mut disk), "partition 5 and the boot record at sector 2000 overlap on the disk");
}

#[test]
fn what_is_no_table() {
    let parse = |disk: &mut Disk| BootSector::parse(&read_block(disk, 0, 512).unwrap().unwrap());
    assert!(parse(&mut Disk::new(SIZE)).is_none());
    assert!(!parse(&mut with(&[])).unwrap().is_table());
    let mut disk = with(&[(0, (0x83, 100, 100))]);
    assert!(parse(&mut disk).unwrap().is_table());
    disk.put(446 + 32, b"k"); // boot code instead of a flag
    assert!(!parse(&mut disk).unwrap().is_table());
}

#[test]
fn more_partitions_than_the_kernel_shows_are_refused() {
    // Of each record four entries are used, so that a chain of 80 records has more than 256 partitions.
    let disk = |records: u32| {
        let mut disk = with(&[(0, (0x05, 1000, 100_000))]);
        for record in 0..records {
            let at = u64::from(1000 + record * 100) * 512;
            let data = |place: u32| (0x83, 10 + 20 * place, 10);
            let link = (0x05, (record + 1) * 100, 100);
            put_mbr(&mut disk, at, &[(0, data(0)), (1, link), (2, data(1)), (3, data(2))]);
        }
        disk
    };
    assert_eq!(table(&mut disk(80)).unwrap().partitions.len(), 241);
    assert_eq!(refused(&mut disk(90)), "the MBR has more than 256 partitions");
}
