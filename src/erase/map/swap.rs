//! Swap space is pieces of the memory of a running system: all of it goes but the first page, which has the label, the
//! UUID and the list of bad pages.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;

use nix::sys::statfs::{BTRFS_SUPER_MAGIC, fstatfs};

use super::btrfs::{self, OnDevices};
use super::gather::Gather;
use crate::disk::{Content, probe};
use crate::erase::extent::{Extent, Extents};
use crate::erase::volume::VolumeBytes;
use crate::error::{Context, Error, Result};
use crate::sys::interrupt;
use crate::sys::ioctl::{FiemapExtent, fiemap};

/// The most extents of a swap file that are kept account of.
const LIMIT: u64 = 1 << 20;

/// `FIEMAP_EXTENT_LAST`, `…_UNWRITTEN` and `…_MERGED` of linux/fiemap.h: any other flag says that the bytes are not
/// plain bytes of this file alone at this place.
const FINE: u32 = 0x1 | 0x800 | 0x1000;
const LAST: u32 = 0x1;

/// Where a swap file's bytes lie below its filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// On the filesystem's volume.
    Volume(Extents),
    /// On the devices of a btrfs.
    Devices(OnDevices),
}

/// What of a volume that is swap space may hold pages of memory.
///
/// # Errors
/// When it is no swap space, or holds a suspended system.
pub fn extents(volume: &VolumeBytes<'_>) -> Result<Extents> {
    let header = header(&mut volume.stream(), volume.length())?;
    Extents::new([Extent::between(header, volume.length())])
}

/// Where the bytes of a swap file behind its header lie. They have to be made zero there, below the filesystem and when
/// it is unmounted: a swap file must get no holes.
///
/// # Errors
/// When it is no swap space or holds a suspended system; when it shares bytes with other files, has checksums, or its
/// filesystem cannot tell where they are.
pub fn file_extents(file: &File) -> Result<Place> {
    let metadata = file.metadata().context(|| "cannot look at a swap file")?;
    if !metadata.is_file() {
        return Err(Error::unsupported("what should be a swap file is no file"));
    }
    let header = header(&mut { file }, metadata.len())?;
    let found = mapped(|start| fiemap(file, start).context(|| "cannot tell where a swap file lies"), header)?;
    let filesystem = fstatfs(file).context(|| "cannot look at the filesystem of a swap file")?;
    if filesystem.filesystem_type() == BTRFS_SUPER_MAGIC {
        Ok(Place::Devices(btrfs::on_devices(file.as_fd(), &found)?))
    } else {
        Ok(Place::Volume(found))
    }
}

/// The length of the header page.
fn header<R: Read + Seek>(reader: &mut R, length: u64) -> Result<u64> {
    let found = probe(reader, 0, length).context(|| "cannot read the header of a swap space")?;
    let found = found.filter(|found| found.content == Content::Swap && !found.ambivalent);
    let found = found.ok_or_else(|| Error::unsupported("what should be swap space has no swap header"))?;
    if found.hibernated {
        return Err(Error::unsupported("the swap space holds a suspended system")
            .hint("start the guest and shut it down instead of suspending it"));
    }
    found.block_size.map(u64::from).ok_or_else(|| Error::unsupported("the swap space names no page size"))
}

/// What FIEMAP says of a file's bytes from `from` on; `page` asks it for the extents from a byte of the file on.
fn mapped(mut page: impl FnMut(u64) -> Result<Vec<FiemapExtent>>, from: u64) -> Result<Extents> {
    let mut found = Gather::default();
    let (mut start, mut count) = (from, 0);
    loop {
        interrupt::check()?;
        let extents = page(start)?;
        let (Some(last), false) = (extents.last(), count > LIMIT) else { break };
        count += extents.len() as u64;
        let next = last.logical.saturating_add(last.length);
        for extent in &extents {
            if extent.flags & !FINE != 0 {
                let flags = extent.flags;
                return Err(Error::unsupported(format!(
                    "a swap file does not have plain bytes of its own (FIEMAP flags {flags:#x})"
                )));
            }
            let skipped = from.saturating_sub(extent.logical).min(extent.length);
            let (first, end) =
                (extent.physical.checked_add(skipped), extent.physical.checked_add(extent.length));
            let (Some(first), Some(end)) = (first, end) else {
                return Err(Error::unsupported("a swap file lies outside of its filesystem"));
            };
            found.add(Extent::between(first, end))?;
        }
        if last.flags & LAST != 0 || next <= start {
            break;
        }
        start = next;
    }
    if count > LIMIT {
        return Err(Error::unsupported(format!("a swap file is in more than {LIMIT} pieces")));
    }
    found.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extent(logical: u64, physical: u64, length: u64, flags: u32) -> FiemapExtent {
        let mut extent = FiemapExtent::default();
        (extent.logical, extent.physical, extent.length, extent.flags) = (logical, physical, length, flags);
        extent
    }

    fn pairs(extents: &Extents) -> Vec<(u64, u64)> {
        extents.iter().map(|extent| (extent.start, extent.length)).collect()
    }

    #[test]
    fn the_header_page_is_left_out() {
        let pages = [vec![extent(0, 100_000, 8192, 0)], vec![extent(8192, 50_000, 4096, LAST | 0x800)]];
        let found = mapped(|start| Ok(pages[usize::from(start >= 8192)].clone()), 4096).unwrap();
        assert_eq!(pairs(&found), [(50_000, 4096), (104_096, 4096)]);
        // The header page alone, in an extent of its own.
        let found = mapped(|_| Ok(vec![extent(0, 7, 4096, 0), extent(4096, 90_000, 5, LAST)]), 4096).unwrap();
        assert_eq!(pairs(&found), [(90_000, 5)]);
    }

    #[test]
    fn bytes_that_are_not_plain_are_refused() {
        for bit in 0..32 {
            let result = mapped(|_| Ok(vec![extent(0, 0, 8192, LAST | 1 << bit)]), 4096);
            assert_eq!(result.is_ok(), FINE & 1 << bit != 0, "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn any_answers_come_to_an_end(
            pages in proptest::collection::vec(proptest::collection::vec(any::<(u64, u64, u64)>(), 0..4), 1..5), from in 0u64..70_000,
        ) {
            let mut pages = pages.iter().cycle();
            let page = |_| {
                let page = pages.next().into_iter().flatten();
                Ok(page.map(|(logical, physical, length)| extent(*logical, *physical, *length, 0)).collect())
            };
            let _ = mapped(page, from);
        }
    }
}
