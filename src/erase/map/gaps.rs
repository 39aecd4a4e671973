//! What of a disk belongs to no partition.

#![forbid(unsafe_code)]

use crate::disk::Disk;
use crate::erase::extent::{Extent, Extents};
use crate::error::Result;

/// The stretches between and behind the partitions, in bytes of the disk. What lies before the first one is not among
/// them: boot loaders live there. Nor is the partition table itself.
///
/// # Errors
/// When there are too many to keep.
pub fn gaps(disk: &Disk) -> Result<Extents> {
    let Some(table) = &disk.table else { return Ok(Extents::default()) };
    let partitions = || table.partitions.iter().filter(|partition| !partition.is_extended());
    let Some(first) = partitions().map(|partition| partition.start).min() else {
        return Ok(Extents::default());
    };
    let taken = partitions().map(|partition| Extent { start: partition.start, length: partition.length });
    let own = table.own.iter().map(|(start, end)| Extent::between(*start, *end));
    Ok(Extents::new(taken.chain(own))?.gaps(first, disk.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Partition, PartitionTable, TableKind};

    fn partition(number: u32, type_id: &str, start: u64, length: u64) -> Partition {
        let type_id = type_id.to_owned();
        Partition { number, start, length, type_id, part_uuid: None, part_label: None, bootable: false }
    }

    fn layout(partitions: Vec<Partition>, own: Vec<(u64, u64)>) -> Disk {
        let table = PartitionTable {
            kind: TableKind::Mbr,
            sector_size: 512,
            id: String::new(),
            partitions,
            warnings: Vec::new(),
            own,
        };
        Disk { made: None, bytes: 10_000, grub: false, table: Some(table) }
    }

    #[test]
    fn neither_the_boot_area_nor_a_partition_nor_the_table_is_a_gap() {
        let partitions = vec![
            partition(1, "0x83", 1000, 1000),
            partition(2, "0x5", 3000, 4000),
            partition(5, "0x83", 3500, 500),
        ];
        let found = gaps(&layout(partitions, vec![(0, 512), (3000, 3512), (9900, 10_000)])).unwrap();
        let found: Vec<_> = found.iter().map(|extent| (extent.start, extent.end())).collect();
        assert_eq!(found, [(2000, 3000), (4000, 9900)]);
    }

    #[test]
    fn a_disk_without_partitions_has_none() {
        assert_eq!(gaps(&layout(Vec::new(), Vec::new())).unwrap().count(), 0);
    }
}
