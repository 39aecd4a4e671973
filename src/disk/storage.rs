//! All that a guest keeps its data on: its disks, and what is made of them (logical volumes, opened encryption, RAID),
//! which are disks like the others once they are there.

use serde::{Deserialize, Serialize};

use super::fstab::Source;
use super::layout::{DiskLayout, Volume};
use super::table::PartitionTable;

/// One disk, or one device that is made of others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Disk {
    /// The names that the guest has for it, for one that is made of others: `/dev/mapper/vg-root`, `/dev/md127`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Its size.
    pub bytes: u64,
    /// Its partition table; none when it is one volume.
    pub table: Option<PartitionTable>,
}

/// The disks of a guest and the volumes on them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Storage {
    /// The disks in the order in which they were given, then what is made of them.
    pub disks: Vec<Disk>,
    /// The volumes of all disks: all partitions but extended ones, and the disks without partitions.
    pub volumes: Vec<Volume>,
    /// What is odd about them, each a sentence.
    pub warnings: Vec<String>,
}

impl Storage {
    /// Puts the layouts of all disks together. Each comes with the names of a device that is made of others; disks have
    /// none, and come first.
    pub fn new(layouts: Vec<(DiskLayout, Vec<String>)>) -> Self {
        let mut all = Self { disks: Vec::new(), volumes: Vec::new(), warnings: Vec::new() };
        let (layouts, names): (Vec<_>, Vec<_>) = layouts.into_iter().unzip();
        for (DiskLayout { bytes, table, .. }, names) in layouts.iter().zip(names) {
            all.disks.push(Disk { names, bytes: *bytes, table: table.clone() });
        }
        for (disk, layout) in layouts.into_iter().enumerate() {
            let on = all.disk_name(disk);
            let DiskLayout { table, volumes, warnings, .. } = layout;
            let of_table = table.iter().flat_map(|table| &table.warnings);
            let named = |warning: &String| match &on {
                Some(name) => format!("{name}: {warning}"),
                None => warning.clone(),
            };
            all.warnings.extend(warnings.iter().chain(of_table).map(named));
            all.volumes.extend(volumes.into_iter().map(|volume| Volume { disk, on: on.clone(), ..volume }));
        }
        all
    }

    /// What a disk is called; none when there is only one.
    pub fn disk_name(&self, disk: usize) -> Option<String> {
        let names = &self.disks.get(disk)?.names;
        let plain = || format!("disk {}", disk + 1);
        (self.disks.len() > 1).then(|| names.first().cloned().unwrap_or_else(plain))
    }

    /// Which volume a line of the guest's fstab means.
    pub fn find(&self, source: &Source) -> Option<usize> {
        let plain = self.disks.iter().filter(|disk| disk.names.is_empty()).count();
        self.volumes.iter().position(|volume| {
            let names = self.disks.get(volume.disk).map_or(&[][..], |disk| &disk.names);
            if names.is_empty() {
                return source.matches(volume, volume.disk, plain);
            }
            let named = matches!(source, Source::Device(path) if names.contains(path));
            // No number of a disk: what is made of disks has none.
            (named && volume.partition.is_none()) || source.matches(volume, usize::MAX, usize::MAX)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(partitions: usize) -> DiskLayout {
        let volume =
            |offset| Volume { disk: 0, on: None, partition: None, offset, length: 1, superblock: None };
        let volumes = (0..partitions as u64).map(volume).collect();
        DiskLayout { bytes: 9, table: None, volumes, warnings: vec!["odd".into()] }
    }

    #[test]
    fn volumes_know_their_disk_and_one_disk_has_no_name() {
        let one = Storage::new(vec![(layout(2), vec![])]);
        assert!(one.volumes.iter().all(|volume| volume.disk == 0 && volume.on.is_none()));
        assert_eq!(one.warnings, ["odd"]);
        let made = vec!["/dev/mapper/vg-root".to_owned(), "/dev/vg/root".to_owned()];
        let two = Storage::new(vec![(layout(1), vec![]), (layout(1), made)]);
        let names: Vec<_> = two.volumes.iter().map(|volume| volume.on.as_deref().unwrap()).collect();
        assert_eq!(names, ["disk 1", "/dev/mapper/vg-root"]);
        assert_eq!(two.warnings, ["disk 1: odd", "/dev/mapper/vg-root: odd"]);
        let find = |path: &str| two.find(&Source::parse(path, "ext4"));
        assert_eq!((find("/dev/vg/root"), find("/dev/vg/other")), (Some(1), None));
        assert_eq!((find("/dev/sda"), find("/dev/sdb")), (Some(0), None));
    }
}
