//! Where the bytes of a guest's file lie on its disks.

#![forbid(unsafe_code)]

use std::fs::File;
use std::path::Path;

use crate::disk::{Content, Storage};
use crate::error::{Context, Result};
use crate::guest::GuestRoot;
use crate::mount::place::{GuestLayout, Place};
use crate::sys::ioctl::fiemap;

/// `FIEMAP_EXTENT_LAST` and `…_MERGED` of linux/fiemap.h: any other flag says that the bytes do not stand there as they
/// are.
const PLAIN: u32 = 0x1 | 0x1000;

/// The disk and the first byte on it of a file that is exactly `length` bytes long. None when its bytes are not plain bytes
/// in one piece of one disk, on a filesystem that keeps no checksums of them: others may not be changed there.
///
/// # Errors
/// When the guest cannot be read.
pub fn file_place(
    root: &GuestRoot,
    (storage, layout): (&Storage, &GuestLayout),
    path: &Path,
    length: u64,
) -> Result<Option<(usize, u64)>> {
    let Some(real) = root.resolve(path)? else { return Ok(None) };
    let Some(file) = root.open_file(&real.path)?.map(File::from) else { return Ok(None) };
    let failed = || format!("cannot tell where {} lies in the guest", path.display());
    let place = innermost(layout, &real.path);
    let plain = matches!(place.content, Content::Ext2 | Content::Ext3 | Content::Ext4 | Content::Xfs);
    if !plain || file.metadata().context(failed)?.len() != length {
        return Ok(None);
    }
    let extents = fiemap(&file, 0).context(failed)?;
    let ([extent], Some(volume)) = (extents.as_slice(), storage.volumes.get(place.volume)) else {
        return Ok(None);
    };
    let is_disk = storage.disks.get(volume.disk).is_some_and(|disk| disk.made.is_none());
    let whole = extent.logical == 0 && extent.length >= length && extent.flags & !PLAIN == 0;
    let inside = extent.physical.checked_add(length).is_some_and(|end| end <= volume.length);
    Ok((is_disk && whole && inside).then_some((volume.disk, volume.offset + extent.physical)))
}

/// The innermost filesystem that a path is in.
pub(super) fn innermost<'a>(layout: &'a GuestLayout, path: &Path) -> &'a Place {
    let places = layout.others.iter().filter(|place| path.starts_with(&place.point));
    places.max_by_key(|place| place.point.components().count()).unwrap_or(&layout.root)
}
