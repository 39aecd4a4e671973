//! btrfs has no ioctl that names its free space. Its trees do: what the chunks have besides the extents of the extent
//! tree, on every stripe, and what of a device is in no chunk. The copies of the superblock lie in both and stay.
//!
//! The trees that are read must be those on the disk: sync the filesystem, let nobody write to it, mount it read-only
//! at best.

#![forbid(unsafe_code)]

mod chunk;
mod info;
mod item;
mod search;
mod subvolume;
mod unread;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};

use self::chunk::Chunks;
use self::item::{damaged, kind};
use self::search::{FIRST, LAST, each, tree};
use self::subvolume::Subvolumes;
use super::gather::Gather;
use crate::erase::extent::{Extent, Extents};
use crate::error::{Error, Result};

pub use self::subvolume::snapshots;
pub use self::unread::{Unread, unread};

/// Bytes of each device by its id.
pub type Devices = BTreeMap<u64, u64>;
/// Extents of each device by its id, in bytes from its start.
pub type OnDevices = BTreeMap<u64, Extents>;

/// Where a device's chunks begin (`BTRFS_DEVICE_RANGE_RESERVED`). The boot loader may lie before, beside the first
/// copy of the superblock. `mkfs.btrfs` makes this area zero, `btrfs-convert` leaves in it what was there.
const RESERVED: u64 = 1 << 20;
/// Where the other copies of the superblock are, and how long each is (`btrfs_sb_offset`).
const SUPERBLOCKS: [u64; 2] = [64 << 20, 256 << 30];
const SUPERBLOCK: u64 = 4096;

/// The length of each device that the filesystem uses, by device id. What a volume has behind that is in no map.
///
/// # Errors
/// As [`free_extents`].
pub fn devices(mounted: impl AsFd) -> Result<Devices> {
    Ok(Chunks::read(mounted.as_fd())?.devices)
}

/// What no file and no tree of the filesystem that `mounted` is in uses, on each of its devices. What lies in a
/// device's first mebibyte is in no map.
///
/// # Errors
/// When it is no btrfs, has RAID5 or RAID6 chunks, features whose trees are not known, or a deleted subvolume whose
/// content is still there; when its trees are damaged or its free space is in too many pieces; and without
/// `CAP_SYS_ADMIN`.
pub fn free_extents(mounted: impl AsFd) -> Result<OnDevices> {
    let mounted = mounted.as_fd();
    let chunks = Chunks::read(mounted)?;
    Subvolumes::read(mounted)?;
    let mut free: BTreeMap<u64, Gather> = chunks.devices.keys().map(|id| (*id, Gather::default())).collect();
    let mut add = |device, extent| free.entry(device).or_default().add(extent);
    let mut gaps = chunks.gaps();
    each(mounted, tree::EXTENTS, (FIRST, LAST), |item| {
        let length = match item.kind {
            kind::EXTENT => item.offset,
            kind::METADATA => chunks.info.node,
            _ => return Ok(()),
        };
        gaps.used(Extent { start: item.object, length }, &mut add)
    })?;
    gaps.rest(&mut add)?;
    unallocated(mounted, &chunks.devices, &mut add)?;
    let mut found = OnDevices::new();
    for (device, gather) in free {
        let end = chunks.devices.get(&device).copied().unwrap_or_default();
        found.insert(device, gather.finish()?.within(RESERVED, end).without(&superblocks()?));
    }
    Ok(found)
}

/// Where logical addresses, as FIEMAP gives them for a file of a btrfs, lie on its devices: every copy of them.
///
/// # Errors
/// As [`free_extents`]; when some of them lie nowhere; and when checksums are of them, so that nothing else may be
/// written there.
pub fn on_devices(mounted: impl AsFd, logical: &Extents) -> Result<OnDevices> {
    let mounted = mounted.as_fd();
    let chunks = Chunks::read(mounted)?;
    let checked = unread::checked(mounted, &chunks)?;
    if logical.without(&checked) != *logical {
        return Err(Error::unsupported(
            "the file on the btrfs has checksums, which would not be right any more",
        ));
    }
    chunks.on_devices(logical)
}

/// What of each device is in no chunk.
fn unallocated(
    mounted: BorrowedFd<'_>,
    devices: &Devices,
    mut add: impl FnMut(u64, Extent) -> Result<()>,
) -> Result<()> {
    let mut at: BTreeMap<u64, u64> = devices.keys().map(|id| (*id, 0)).collect();
    each(mounted, tree::DEVICES, (FIRST, LAST), |item| {
        if item.kind != kind::DEVICE_EXTENT {
            return Ok(());
        }
        let end = item.offset.checked_add(item::device_extent(item.bytes)?);
        let (Some(at), Some(end)) = (at.get_mut(&item.object), end) else {
            return Err(damaged("device extent"));
        };
        if item.offset < *at {
            return Err(damaged("device extent"));
        }
        add(item.object, Extent::between(*at, item.offset))?;
        *at = end;
        Ok(())
    })?;
    at.iter().try_for_each(|(device, at)| {
        let end = devices.get(device).copied().unwrap_or_default();
        if *at > end { Err(damaged("device extent")) } else { add(*device, Extent::between(*at, end)) }
    })
}

fn superblocks() -> Result<Extents> {
    Extents::new(SUPERBLOCKS.map(|start| Extent { start, length: SUPERBLOCK }))
}
