//! The file allocation table of a vfat and where its clusters lie, read with every number checked.

#![forbid(unsafe_code)]

use std::ops::Range;

use crate::disk::{FatGeometry, fat_geometry};
use crate::erase::extent::Extent;
use crate::erase::volume::VolumeBytes;
use crate::error::{Error, Result};

/// Bytes of the table that are kept at a time; whole entries of 2 and 4 bytes fit in, and all of a table of FAT12.
const PAGE: u64 = 64 << 10;
/// The first cluster has this number.
const FIRST: u32 = 2;
/// Where FAT32 says which of its tables are used, and its root folder.
const FLAGS: usize = 0x28;
const ROOT: usize = 0x2c;
/// The state byte of the boot sector, of FAT12 and FAT16, and of FAT32: its first bit is set while it is mounted.
const STATES: [usize; 2] = [0x25, 0x41];

/// What the table says of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::erase) enum Entry {
    /// Nothing uses it.
    Free,
    /// It is not to be used.
    Bad,
    /// The last one of a file.
    Last,
    /// The file goes on in this one.
    Next(u32),
}

/// A file allocation table.
#[derive(Debug)]
pub(in crate::erase) struct Table<'a> {
    volume: VolumeBytes<'a>,
    geometry: FatGeometry,
    root: u32,
    page: (u64, Vec<u8>),
}

impl<'a> Table<'a> {
    /// Reads the boot sector, and looks whether all tables are the same.
    ///
    /// # Errors
    /// When it is no vfat, is larger than its volume or damaged, or was not unmounted.
    pub(in crate::erase) fn read(volume: &VolumeBytes<'a>) -> Result<Self> {
        let boot = volume.read_vec(0, 512)?;
        let geometry = fat_geometry(&boot)
            .ok_or_else(|| Error::unsupported("what should be a vfat has no boot sector of one"))?;
        let byte = |at: usize| boot.get(at).copied().unwrap_or_default();
        let root = u32::from_le_bytes([byte(ROOT), byte(ROOT + 1), byte(ROOT + 2), byte(ROOT + 3) & 0x0f]);
        let state = STATES[usize::from(geometry.bits == 32)];
        let table = Self { volume: *volume, geometry, root, page: (0, Vec::new()) };
        let entries = u64::from(geometry.table) * u64::from(geometry.sector) * 8 / u64::from(geometry.bits);
        if table.end() > volume.length() || entries < u64::from(geometry.clusters) + u64::from(FIRST) {
            return Err(damaged("its sizes"));
        }
        if geometry.bits == 32 && byte(FLAGS) & 0x80 != 0 {
            return Err(Error::unsupported("only one of the tables of the vfat is in use"));
        }
        if byte(state) & 1 != 0 {
            return Err(Error::unsupported("the vfat was not unmounted").hint("check it: fsck.vfat -a"));
        }
        table.check_copies()?;
        Ok(table)
    }

    /// The numbers of all clusters.
    pub(in crate::erase) fn clusters(&self) -> Range<u32> {
        FIRST..FIRST.saturating_add(self.geometry.clusters)
    }

    /// Bytes of a cluster.
    pub(in crate::erase) fn cluster_bytes(&self) -> u64 {
        self.geometry.cluster.into()
    }

    /// Whether numbers of clusters have more than 16 bits.
    pub(in crate::erase) fn is_wide(&self) -> bool {
        self.geometry.bits == 32
    }

    /// The first cluster of the root folder of FAT32; none where the root folder has a place of its own.
    pub(in crate::erase) fn root(&self) -> Option<u32> {
        self.is_wide().then_some(self.root)
    }

    /// The place of the root folder of FAT12 and FAT16; empty on FAT32.
    pub(in crate::erase) fn root_place(&self) -> Extent {
        let start = u64::from(self.geometry.reserved) + u64::from(self.geometry.tables);
        let length = if self.is_wide() { 0 } else { u64::from(self.geometry.root_entries) * 32 };
        Extent { start: start * u64::from(self.geometry.sector), length }
    }

    /// Where a cluster lies.
    ///
    /// # Errors
    /// When there is no such cluster.
    pub(in crate::erase) fn place(&self, cluster: u32) -> Result<Extent> {
        if !self.clusters().contains(&cluster) {
            return Err(damaged("the number of a cluster"));
        }
        let length = self.cluster_bytes();
        Ok(Extent { start: self.data() + u64::from(cluster - FIRST) * length, length })
    }

    /// The first byte behind the last cluster.
    pub(in crate::erase) fn end(&self) -> u64 {
        self.data() + u64::from(self.geometry.clusters) * self.cluster_bytes()
    }

    /// What the table says of a cluster.
    ///
    /// # Errors
    /// When there is no such cluster, its entry cannot be right, or the table cannot be read.
    pub(in crate::erase) fn entry(&mut self, cluster: u32) -> Result<Entry> {
        if !self.clusters().contains(&cluster) {
            return Err(damaged("the number of a cluster"));
        }
        let number = u64::from(cluster);
        let (raw, bad) = match self.geometry.bits {
            12 => {
                let pair = u32::from(u16::from_le_bytes(self.bytes(number + number / 2)?));
                (if cluster.is_multiple_of(2) { pair & 0xfff } else { pair >> 4 }, 0xff7)
            }
            16 => (u16::from_le_bytes(self.bytes(number * 2)?).into(), 0xfff7),
            _ => (u32::from_le_bytes(self.bytes(number * 4)?) & 0x0fff_ffff, 0x0fff_fff7),
        };
        match raw {
            0 => Ok(Entry::Free),
            raw if raw == bad => Ok(Entry::Bad),
            raw if raw > bad => Ok(Entry::Last),
            raw if self.clusters().contains(&raw) => Ok(Entry::Next(raw)),
            _ => Err(damaged("its table")),
        }
    }

    fn data(&self) -> u64 {
        let geometry = &self.geometry;
        let root = (u64::from(geometry.root_entries) * 32).div_ceil(geometry.sector.into());
        (u64::from(geometry.reserved) + u64::from(geometry.tables) + root) * u64::from(geometry.sector)
    }

    /// Some bytes of the table.
    fn bytes<const N: usize>(&mut self, at: u64) -> Result<[u8; N]> {
        let first = at - at % PAGE;
        if self.page.1.is_empty() || self.page.0 != first {
            let length = (self.length() - first.min(self.length())).min(PAGE);
            let length = usize::try_from(length).unwrap_or_default();
            self.page = (first, self.volume.read_vec(self.start() + first, length)?);
        }
        let within = usize::try_from(at - first).unwrap_or(usize::MAX);
        let found = self.page.1.get(within..).and_then(|tail| tail.first_chunk());
        found.copied().ok_or_else(|| damaged("its table"))
    }

    fn start(&self) -> u64 {
        u64::from(self.geometry.reserved) * u64::from(self.geometry.sector)
    }

    /// Bytes of one table.
    fn length(&self) -> u64 {
        u64::from(self.geometry.table) * u64::from(self.geometry.sector)
    }

    /// Where the tables are not the same, which is the right one cannot be told.
    fn check_copies(&self) -> Result<()> {
        let copies = u64::from(self.geometry.tables / self.geometry.table.max(1));
        let mut at = 0;
        while at < self.length() {
            crate::sys::interrupt::check()?;
            let length = usize::try_from((self.length() - at).min(1 << 20)).unwrap_or_default();
            let first = self.volume.read_vec(self.start() + at, length)?;
            for copy in 1..copies {
                if self.volume.read_vec(self.start() + copy * self.length() + at, length)? != first {
                    return Err(damaged("its table, of which the copies differ"));
                }
            }
            at += length as u64;
        }
        Ok(())
    }
}

/// What to say of what cannot be.
pub(in crate::erase) fn damaged(what: &str) -> Error {
    Error::unsupported(format!("the vfat is damaged: {what} cannot be right"))
        .hint("look at it with fsck.vfat")
}
