use super::*;
use crate::disk::testing::{Disk, GptPlan, put_mbr};

const SIZE: u64 = 64 << 20;

fn read_gpt(disk: &mut Disk) -> Result<Gpt> {
    let boot = read_block(disk, 0, 512).unwrap().as_ref().and_then(BootSector::parse);
    read(disk, disk.bytes, boot.as_ref())
}

fn made(plan: &GptPlan) -> Disk {
    let mut disk = Disk::new(SIZE);
    plan.put(&mut disk);
    disk
}

fn found(disk: &mut Disk) -> PartitionTable {
    match read_gpt(disk).unwrap() {
        Gpt::Table(table) => table,
        Gpt::Absent => panic!("absent"),
        Gpt::Unannounced(_) => panic!("unannounced"),
    }
}

fn refused(disk: &mut Disk) -> String {
    match read_gpt(disk) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("not refused"),
    }
}

#[test]
fn partitions_keep_their_numbers() {
    for sector in [512, 4096] {
        let mut disk = made(&GptPlan::new(sector, &[(2, 100, 199), (7, 200, 200)]));
        let table = found(&mut disk);
        assert_eq!((table.kind, u64::from(table.sector_size)), (TableKind::Gpt, sector));
        assert_eq!(table.id, "d1d1d1d1-d1d1-d1d1-d1d1-d1d1d1d1d1d1");
        let [two, seven] = &table.partitions[..] else { panic!("{table:?}") };
        assert_eq!((two.number, two.start, two.length), (2, 100 * sector, 100 * sector));
        assert_eq!((seven.number, seven.start, seven.end()), (7, 200 * sector, 201 * sector));
        assert_eq!(two.type_id, "afafafaf-afaf-afaf-afaf-afafafafafaf");
        assert_eq!(two.part_uuid.as_deref(), Some("00000000-0000-0000-0000-000000000002"));
        assert_eq!(table.warnings, [""; 0]);
    }
}

#[test]
fn forged_headers_are_damage() {
    let plan = || GptPlan::new(512, &[(1, 100, 199)]);
    for (forged, why) in [
        (GptPlan { count: u32::MAX, ..plan() }, "impossible number or size"),
        (GptPlan { count: 0, ..plan() }, "impossible number or size"),
        (GptPlan { entry_size: u32::MAX, ..plan() }, "impossible number or size"),
        (GptPlan { entry_size: 256, count: 64, ..plan() }, "impossible number or size"),
        (GptPlan { entries_at: Some(u64::MAX), ..plan() }, "wrong checksum of the entries"),
        (GptPlan { entries_at: Some(SIZE / 512 - 1), ..plan() }, "wrong checksum of the entries"),
        (GptPlan { entries_at: Some(u64::MAX / 512 + 3), ..plan() }, "wrong checksum of the entries"),
    ] {
        let mut disk = made(&forged);
        let error = refused(&mut disk);
        assert!(error.contains("both copies") && error.contains(why), "{error}");
        assert!(disk.largest < 1 << 20, "asked for {} bytes", disk.largest);
    }
}

#[test]
fn lying_entries_are_refused() {
    for (partitions, why) in [
        (&[(1, 100, 200), (2, 200, 300)][..], "partition 1 and partition 2 overlap"),
        (&[(1, 100, 200), (2, 150, 160)], "partition 1 and partition 2 overlap"),
        (&[(1, 200, 100)], "partition 1 ends before it starts"),
        (&[(1, 100, SIZE / 512)], "but the disk has only 131072 sectors"),
        (&[(1, 100, u64::MAX)], "but the disk has only 131072 sectors"),
        (&[(1, 0, 200)], "the GPT itself and partition 1 overlap"),
        (&[(1, 33, 200)], "the GPT itself and partition 1 overlap"),
    ] {
        let error = refused(&mut made(&GptPlan::new(512, partitions)));
        assert!(error.contains(why), "{partitions:?}: {error}");
    }
}

#[test]
fn partitions_outside_the_usable_area_are_odd_only() {
    let mut disk = made(&GptPlan::new(512, &[(1, 100, 199), (2, SIZE / 512 - 40, SIZE / 512 - 30)]));
    let table = found(&mut disk);
    assert_eq!(table.partitions.len(), 2);
    assert!(table.warnings[0].starts_with("partition 2 lies outside"), "{:?}", table.warnings);
}

#[test]
fn the_backup_stands_in() {
    let mut disk = made(&GptPlan::new(4096, &[(1, 100, 199)]));
    disk.put(4096, b"X");
    let table = found(&mut disk);
    assert_eq!((table.partitions.len(), table.sector_size), (1, 4096));
    assert!(table.warnings[0].contains("the backup at the end"), "{:?}", table.warnings);
    disk.put(SIZE - 4096, b"X");
    assert!(matches!(read_gpt(&mut disk).unwrap(), Gpt::Absent));
}

#[test]
fn a_backup_that_differs_is_odd_only() {
    let mut disk = made(&GptPlan::new(512, &[(1, 100, 199)]));
    let other = made(&GptPlan::new(512, &[(1, 100, 198)]));
    for at in SIZE - 33 * 512..SIZE {
        disk.put(at, &[other.get(at)]);
    }
    assert_eq!(found(&mut disk).warnings, ["the backup GPT differs from the primary one"]);
    disk.put(SIZE - 512, &[0; 512]);
    assert_eq!(found(&mut disk).warnings, ["the backup GPT is missing or damaged"]);
}

#[test]
fn the_boot_sector_must_announce_it() {
    let mut disk = made(&GptPlan::new(512, &[(1, 100, 199)]));
    disk.put(450, &[0x83]);
    assert!(matches!(read_gpt(&mut disk).unwrap(), Gpt::Unannounced(table) if table.partitions.len() == 1));
    // One that lies is not worth an error when nobody announces it.
    let mut disk = made(&GptPlan::new(512, &[(1, 200, 100)]));
    disk.put(510, &[0, 0]);
    assert!(matches!(read_gpt(&mut disk).unwrap(), Gpt::Absent));
    // A hybrid MBR announces it beside partitions of its own.
    let mut disk = made(&GptPlan::new(512, &[(1, 100, 199)]));
    put_mbr(&mut disk, 0, &[(0, (0x83, 100, 100)), (1, (0xee, 1, 99))]);
    assert_eq!(found(&mut disk).partitions.len(), 1);
}

#[test]
fn of_two_tables_the_boot_sector_tells_which() {
    let mut disk = made(&GptPlan::new(4096, &[(1, 100, 199)]));
    let older = GptPlan { entries_at: Some(1000), ..GptPlan::new(512, &[(1, 2000, 2001), (2, 2002, 2003)]) };
    let older = made(&older);
    for at in 512..512 + 92 {
        disk.put(at, &[older.get(at)]);
    }
    for at in 0..128 * 128 {
        disk.put(1000 * 512 + at, &[older.get(1024 + at)]);
    }
    let table = found(&mut disk);
    assert_eq!((table.sector_size, table.partitions.len()), (4096, 1));
    assert!(table.warnings.iter().any(|warning| warning.contains("two GPTs")), "{:?}", table.warnings);
    put_mbr(&mut disk, 0, &[(0, (0xee, 1, u32::try_from(SIZE / 512 - 1).unwrap()))]);
    assert_eq!(found(&mut disk).sector_size, 512);
}

#[test]
fn more_partitions_than_a_kernel_shows() {
    let plan = |count| GptPlan {
        count: 512,
        ..GptPlan::new(
            512,
            &(1..=count).map(|number| (number, 9000 + number, 9000 + number)).collect::<Vec<_>>(),
        )
    };
    assert_eq!(found(&mut made(&plan(256))).partitions.len(), 256);
    assert!(refused(&mut made(&plan(257))).contains("more than 256 partitions"));
}
