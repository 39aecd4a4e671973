//! What lies on the disk in extents that files use, and yet no file reads: btrfs keeps an extent whole as long as any
//! part of it is in use, so what was overwritten or cut off behind stays; and room that was set aside for a file
//! (fallocate) holds what was there before.

#![forbid(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd};

use super::OnDevices;
use super::chunk::Chunks;
use super::item::{self, FileExtent, Stored, damaged, kind};
use super::search::{FIRST, LAST, each, tree};
use super::subvolume::Subvolumes;
use crate::erase::extent::{Extent, Extents};
use crate::erase::map::gather::Gather;
use crate::error::Result;

/// The most plain bytes that a compressed extent has (`BTRFS_MAX_UNCOMPRESSED`).
const MAX_PLAIN: u64 = 128 << 10;

/// What is in extents that are in use and is read by no file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unread {
    /// What no checksum is of: it can be made zero below the filesystem.
    pub plain: OnDevices,
    /// What checksums are of: made zero below the filesystem, scrub would find it damaged. Logical addresses.
    pub checked: Extents,
    /// Plain bytes of compressed extents that no file reads; they go when the file's part is written again.
    pub compressed: u64,
    /// Files that were deleted while they were open and are still there; they go when their subvolume is mounted for
    /// writing and looked at.
    pub deleted_files: u64,
}

/// What is in extents that are in use and is read by no file, of the btrfs that `mounted` is in.
///
/// # Errors
/// As [`super::free_extents`], and when the trees of files and the extent tree do not agree.
pub fn unread(mounted: impl AsFd) -> Result<Unread> {
    let mounted = mounted.as_fd();
    let chunks = Chunks::read(mounted)?;
    let read = Read::of_all(mounted, chunks.info.sector)?;
    let mut unread = Gather::default();
    each(mounted, tree::EXTENTS, (FIRST, LAST), |item| {
        if item.kind != kind::EXTENT || !item::is_data(item.bytes)? {
            return Ok(());
        }
        let extent = Extent { start: item.object, length: item.offset };
        let end = extent.start.checked_add(extent.length).ok_or_else(|| damaged("data extent"))?;
        // Every data extent is named by a file: else there are files that were not seen.
        if read.named.within(extent.start, end).count() == 0 {
            return Err(damaged("data extent"));
        }
        read.live.gaps(extent.start, end).iter().try_for_each(|gap| unread.add(gap))
    })?;
    let unread = unread.finish()?;
    let checked = checked(mounted, &chunks)?;
    let plain = chunks.on_devices(&unread.without(&checked))?;
    let checked = unread.without(&unread.without(&checked));
    Ok(Unread { plain, checked, compressed: read.compressed, deleted_files: read.deleted_files })
}

/// What data has checksums, by logical address.
pub(super) fn checked(mounted: BorrowedFd<'_>, chunks: &Chunks) -> Result<Extents> {
    let mut checked = Gather::default();
    each(mounted, tree::CHECKSUMS, (FIRST, LAST), |item| {
        if item.kind == kind::CHECKSUMS {
            let sums = item.bytes.len() as u64 / chunks.info.checksum;
            checked.add(Extent { start: item.offset, length: sums.saturating_mul(chunks.info.sector) })?;
        }
        Ok(())
    })?;
    checked.finish()
}

/// What the files of all subvolumes read, and the kernel's own.
struct Read {
    /// Every byte that is read.
    live: Extents,
    /// The same, and what is set aside.
    named: Extents,
    compressed: u64,
    deleted_files: u64,
}

impl Read {
    fn of_all(mounted: BorrowedFd<'_>, sector: u64) -> Result<Self> {
        let subvolumes = Subvolumes::read(mounted)?;
        let mut seen = Seen { sector, ..Seen::default() };
        // The first free space cache is in files of the tree of roots.
        for tree in subvolumes.ids().chain([tree::ROOTS, tree::MOVED_DATA]) {
            each(mounted, tree, (FIRST, LAST), |found| {
                match found.kind {
                    kind::FILE_EXTENT => {
                        if let FileExtent::Stored(stored) = item::file_extent(found.bytes)? {
                            seen.add(&stored)?;
                        }
                    }
                    kind::ORPHAN if tree != tree::ROOTS => seen.deleted_files += 1,
                    _ => {}
                }
                Ok(())
            })?;
        }
        let (plain, plain_read) = (seen.plain.finish()?, seen.plain_read.finish()?);
        Ok(Self {
            live: seen.live.finish()?,
            named: seen.named.finish()?,
            compressed: plain.without(&plain_read).bytes(),
            deleted_files: seen.deleted_files,
        })
    }
}

#[derive(Default)]
struct Seen {
    sector: u64,
    live: Gather,
    named: Gather,
    /// Plain bytes of compressed extents, each extent with [`MAX_PLAIN`] of addresses of its own; and those read.
    plain: Gather,
    plain_read: Gather,
    deleted_files: u64,
}

impl Seen {
    fn add(&mut self, stored: &Stored) -> Result<()> {
        let wrong = || damaged("file extent");
        let end = stored.start.checked_add(stored.length).ok_or_else(wrong)?;
        if stored.encoded {
            self.live.add(Extent::between(stored.start, end))?;
            self.named.add(Extent::between(stored.start, end))?;
            return self.add_plain(stored);
        }
        let from = stored.start.checked_add(stored.offset).ok_or_else(wrong)?;
        let to = from.checked_add(stored.part).filter(|to| *to <= end).ok_or_else(wrong)?;
        self.named.add(Extent::between(from, to))?;
        if stored.preallocated { Ok(()) } else { self.live.add(Extent::between(from, to)) }
    }

    fn add_plain(&mut self, stored: &Stored) -> Result<()> {
        let wrong = || damaged("file extent");
        let end = stored.offset.checked_add(stored.part).filter(|end| *end <= stored.plain);
        let end = end.filter(|_| stored.plain <= MAX_PLAIN).ok_or_else(wrong)?;
        let base = (stored.start / self.sector.max(1)).checked_mul(MAX_PLAIN).ok_or_else(wrong)?;
        let at = |offset: u64| base.checked_add(offset).ok_or_else(wrong);
        self.plain.add(Extent::between(base, at(stored.plain)?))?;
        self.plain_read.add(Extent::between(at(stored.offset)?, at(end)?))
    }
}
