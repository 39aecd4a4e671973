//! What the kernel says of a mounted btrfs as a whole.

#![forbid(unsafe_code)]

use std::os::fd::BorrowedFd;

use super::item::damaged;
use crate::error::{Context, Error, Result};
use crate::sys::ioctl::{btrfs_features, btrfs_fs_info};

/// What changed the trees in a way that is known: the incompatible features up to RAID1C34, and simple quotas.
const KNOWN_INCOMPATIBLE: u64 = 0xfff | 1 << 16;
/// Free space tree, its validity, verity, block group tree.
const KNOWN_WHEN_READ: u64 = 0xf;

/// Sizes and identity of a filesystem.
#[derive(Debug, Clone, Copy)]
pub(super) struct Info {
    /// Length of a tree's block.
    pub(super) node: u64,
    /// Length of what one checksum of data is of.
    pub(super) sector: u64,
    /// Length of a checksum.
    pub(super) checksum: u64,
    /// What its devices are marked with: one or the other.
    pub(super) uuids: [[u8; 16]; 2],
}

impl Info {
    /// Asks the kernel.
    ///
    /// # Errors
    /// When it is no btrfs, or has features that change what the trees mean.
    pub(super) fn read(mounted: BorrowedFd<'_>) -> Result<Self> {
        let what = || "cannot ask the btrfs for its features";
        let [_, when_read, incompatible] = btrfs_features(mounted).context(what)?;
        let (hard, soft) = (incompatible & !KNOWN_INCOMPATIBLE, when_read & !KNOWN_WHEN_READ);
        if (hard, soft) != (0, 0) {
            return Err(Error::unsupported(format!(
                "the btrfs has features whose trees guestseal does not know (incompatible {hard:#x}, read-only {soft:#x})"
            )));
        }
        let info = btrfs_fs_info(mounted).context(what)?;
        let [node, sector] = [32, 36].map(|at| u64::from(u32::from_ne_bytes(bytes(&info, at))));
        let checksum = u64::from(u16::from_ne_bytes(bytes(&info, 46)));
        if node == 0 || !sector.is_power_of_two() || !(1..=32).contains(&checksum) {
            return Err(damaged("size of blocks"));
        }
        Ok(Self { node, sector, checksum, uuids: [bytes(&info, 16), bytes(&info, 64)] })
    }
}

fn bytes<const N: usize>(info: &[u8; 1024], at: usize) -> [u8; N] {
    info.get(at..).and_then(|tail| tail.first_chunk()).copied().unwrap_or([0; N])
}
