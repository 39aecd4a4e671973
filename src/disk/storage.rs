//! All that a guest keeps its data on: its disks, and what is made of them (logical volumes, opened encryption, RAID),
//! which are disks like the others once they are there.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::fstab::Source;
use super::layout::{DiskLayout, Volume};
use super::table::PartitionTable;

/// Bytes of a device that is made of others which lie in one place of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Segment {
    /// First byte of the device.
    pub start: u64,
    /// Length in bytes.
    pub length: u64,
    /// The disk below.
    pub disk: usize,
    /// First byte there.
    pub offset: u64,
    /// Whether what lies there is encrypted.
    pub encrypted: bool,
}

/// A thin pool: chunks of one device, given to volumes as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// What it is called in reports.
    pub name: String,
    /// The device that tells which chunks are used.
    pub metadata: PathBuf,
    /// Where the bytes of the device with the chunks lie, as [`Made::copies`].
    pub copies: Vec<Vec<Segment>>,
}

/// How the guest sees a device that is made of others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Made {
    /// The names that the guest has for it: `/dev/mapper/vg-root`, `/dev/md127`.
    pub names: Vec<String>,
    /// Where its bytes lie: once for each copy that is kept of them; empty when bytes do not lie in one place each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<Vec<Segment>>,
    /// The volumes that it is made of, by their indexes in [`Storage::volumes`].
    pub of: Vec<usize>,
    /// What cannot be looked into, and may hold what was deleted: a sentence each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<String>,
    /// The thin pools of the group that it belongs to; with the first of the group's devices only.
    #[serde(skip)]
    pub pools: Vec<Pool>,
    /// What of such volumes belongs to nothing: the index of the volume, the first byte in it and the length.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub free: Vec<(usize, u64, u64)>,
}

impl Made {
    /// Where a stretch of the device lies, each copy as segments that are counted from the start of the stretch. None when
    /// a part of it lies in no one place.
    pub fn resolve(&self, start: u64, length: u64) -> Option<Vec<Vec<Segment>>> {
        Segment::resolve(&self.copies, start, length)
    }
}

impl Segment {
    /// Where a stretch of a device lies whose bytes lie like this: see [`Made::resolve`].
    pub fn resolve(copies: &[Vec<Self>], start: u64, length: u64) -> Option<Vec<Vec<Self>>> {
        let copies = copies.iter().map(|copy| Self::resolve_copy(copy, start, length));
        copies.collect::<Option<Vec<_>>>().filter(|copies| !copies.is_empty())
    }

    fn resolve_copy(copy: &[Segment], start: u64, length: u64) -> Option<Vec<Segment>> {
        let (end, mut at, mut found) = (start.checked_add(length)?, start, Vec::new());
        for segment in copy {
            let (from, to) = (segment.start.max(at), segment.start.checked_add(segment.length)?.min(end));
            if from == at && to > from {
                let offset = segment.offset.checked_add(from - segment.start)?;
                found.push(Segment { start: from - start, length: to - from, offset, ..*segment });
                at = to;
            }
        }
        (at == end).then_some(found)
    }
}

/// One disk, or one device that is made of others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Disk {
    /// What it is made of; none for a disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Made>,
    /// Its size.
    pub bytes: u64,
    /// Whether a BIOS finds GRUB in its first sector.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub grub: bool,
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
    /// Puts the layouts of all disks together. Each device that is made of others comes with how that is; disks come first.
    pub fn new(layouts: Vec<(DiskLayout, Option<Made>)>) -> Self {
        let mut all = Self { disks: Vec::new(), volumes: Vec::new(), warnings: Vec::new() };
        let (layouts, made): (Vec<_>, Vec<_>) = layouts.into_iter().unzip();
        for (DiskLayout { bytes, grub, table, .. }, made) in layouts.iter().zip(made) {
            all.disks.push(Disk { made, bytes: *bytes, grub: *grub, table: table.clone() });
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
        all.put_together();
        all
    }

    /// Filesystems of which all devices are here need no other one.
    fn put_together(&mut self) {
        let whole: Vec<bool> = (0..self.volumes.len())
            .map(|index| {
                let devices = self.btrfs(index).map(|(_, devices, _)| devices).filter(|devices| *devices > 1);
                devices.is_some_and(|devices| devices == self.other_devices(index).count() as u64 + 1)
            })
            .collect();
        for (volume, _) in self.volumes.iter_mut().zip(whole).filter(|(_, whole)| *whole) {
            if let Some(superblock) = &mut volume.superblock {
                superblock.needs_other_device = false;
                // That of all devices together.
                superblock.total_bytes = None;
            }
        }
    }

    /// Of a btrfs, its UUID, how many devices it has, and which of them this is.
    fn btrfs(&self, index: usize) -> Option<(&str, u64, u64)> {
        let superblock = self.volumes.get(index)?.superblock.as_ref()?;
        let device = superblock.btrfs.as_ref()?;
        Some((superblock.uuid.as_deref()?, device.devices, device.device_id))
    }

    /// The other volumes that a volume's filesystem is on; each device of it once.
    pub fn other_devices(&self, index: usize) -> impl Iterator<Item = &Volume> {
        let own = self.btrfs(index).filter(|(_, devices, _)| *devices > 1);
        let mut seen: Vec<u64> = own.iter().map(|(_, _, device)| *device).collect();
        let others = self.volumes.iter().enumerate().filter(move |(other, _)| {
            let Some((uuid, _, device)) = self.btrfs(*other).filter(|_| *other != index) else {
                return false;
            };
            let is_new = own.is_some_and(|own| own.0 == uuid) && !seen.contains(&device);
            seen.extend(is_new.then_some(device));
            is_new
        });
        others.map(|(_, volume)| volume)
    }

    /// Whether an earlier volume has the same filesystem.
    pub fn is_further_device(&self, index: usize) -> bool {
        let own = self.btrfs(index).filter(|(_, devices, _)| *devices > 1).map(|(uuid, ..)| uuid);
        own.is_some_and(|own| (0..index).any(|other| self.btrfs(other).is_some_and(|(uuid, ..)| uuid == own)))
    }

    /// What a disk is called; none when there is only one.
    pub fn disk_name(&self, disk: usize) -> Option<String> {
        let made = self.disks.get(disk)?.made.as_ref();
        let plain = || format!("disk {}", disk + 1);
        let name = made.and_then(|made| made.names.first());
        (self.disks.len() > 1).then(|| name.cloned().unwrap_or_else(plain))
    }

    /// Where bytes of a disk lie in the end: of a disk where they are, of a device that is made of others once for each
    /// copy, counted from `start`. A device whose bytes lie in no one place is the end itself.
    pub fn resolve(&self, disk: usize, start: u64, length: u64) -> Vec<Segment> {
        let made = self.disks.get(disk).and_then(|disk| disk.made.as_ref());
        let copies = made.and_then(|made| made.resolve(start, length));
        let own = || vec![Segment { start: 0, length, disk, offset: start, encrypted: false }];
        copies.map_or_else(own, |copies| copies.into_iter().flatten().collect())
    }

    /// Whether devices are made of a volume, and are there.
    pub fn is_opened(&self, volume: usize) -> bool {
        self.disks.iter().filter_map(|disk| disk.made.as_ref()).any(|made| made.of.contains(&volume))
    }

    /// Which volume a line of the guest's fstab means.
    pub fn find(&self, source: &Source) -> Option<usize> {
        let plain = self.disks.iter().filter(|disk| disk.made.is_none()).count();
        self.volumes.iter().position(|volume| {
            let Some(made) = self.disks.get(volume.disk).and_then(|disk| disk.made.as_ref()) else {
                return source.matches(volume, volume.disk, plain);
            };
            let named = matches!(source, Source::Device(path) if made.names.contains(path));
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
        DiskLayout { bytes: 9, grub: false, table: None, volumes, warnings: vec!["odd".into()] }
    }

    #[test]
    fn volumes_know_their_disk_and_one_disk_has_no_name() {
        let one = Storage::new(vec![(layout(2), None)]);
        assert!(one.volumes.iter().all(|volume| volume.disk == 0 && volume.on.is_none()));
        assert_eq!(one.warnings, ["odd"]);
        let names = vec!["/dev/mapper/vg-root".to_owned(), "/dev/vg/root".to_owned()];
        let made = Made { names, of: vec![0], ..Made::default() };
        let two = Storage::new(vec![(layout(1), None), (layout(1), Some(made))]);
        assert!(two.is_opened(0) && !two.is_opened(1));
        let names: Vec<_> = two.volumes.iter().map(|volume| volume.on.as_deref().unwrap()).collect();
        assert_eq!(names, ["disk 1", "/dev/mapper/vg-root"]);
        assert_eq!(two.warnings, ["disk 1: odd", "/dev/mapper/vg-root: odd"]);
        let find = |path: &str| two.find(&Source::parse(path, "ext4"));
        assert_eq!((find("/dev/vg/root"), find("/dev/vg/other")), (Some(1), None));
        assert_eq!((find("/dev/sda"), find("/dev/sdb")), (Some(0), None));
    }

    #[test]
    fn stretches_are_found_below() {
        let segment = |start, length, offset| Segment { start, length, disk: 3, offset, encrypted: false };
        let copies = vec![vec![segment(0, 10, 100), segment(10, 10, 500)]];
        let made = Made { copies, ..Made::default() };
        assert_eq!(made.resolve(5, 10), Some(vec![vec![segment(0, 5, 105), segment(5, 5, 500)]]));
        assert_eq!((made.resolve(15, 6), Made::default().resolve(0, 1)), (None, None));
    }
}
