//! What no file of a vfat uses, by its file allocation table, of which one entry stands for one cluster: Microsoft's
//! "FAT32 File System Specification" (fatgen103).

#![forbid(unsafe_code)]

pub(in crate::erase) mod table;

use self::table::{Entry, Table};
use super::gather::Gather;
use crate::erase::extent::{Extent, Extents};
use crate::erase::volume::VolumeBytes;
use crate::error::Result;
use crate::sys::interrupt;

/// How many entries of the table are looked at between two looks for a signal.
const STEP: u32 = 1 << 20;

/// The clusters of a FAT12, FAT16 or FAT32 that its table says are free or bad, and what lies behind the last cluster.
///
/// # Errors
/// When it is no such filesystem, is damaged or was not unmounted, or cannot be read.
pub fn free_extents(volume: &VolumeBytes<'_>) -> Result<Extents> {
    let mut table = Table::read(volume)?;
    let mut free = Gather::default();
    for cluster in table.clusters() {
        if cluster.is_multiple_of(STEP) {
            interrupt::check()?;
        }
        if matches!(table.entry(cluster)?, Entry::Free | Entry::Bad) {
            free.add(table.place(cluster)?)?;
        }
    }
    free.add(Extent::between(table.end(), volume.length()))?;
    free.finish()
}
