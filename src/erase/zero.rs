//! Making stretches of an attached disk zero, in the guest's view and in the image file's own bytes.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt};

use nix::errno::Errno;

use super::extent::{Extent, Extents};
use crate::attach::AttachedDisk;
use crate::disk::number::nonzero;
use crate::error::{Context, Result};
use crate::sys::holes;
use crate::sys::interrupt;
use crate::sys::ioctl::block_device_discard;

/// What is read or written at once.
const CHUNK: usize = 1 << 20;
/// How many places that are not zero are listed.
const PLACES: usize = 20;

/// Makes zero what of a disk has data and is free.
///
/// First whole clusters of the image are punched: the image format drops them, so that their bytes in the file go too,
/// at no cost however many there are. That is a request which formats, servers and kernels may pass over, so zeros are
/// written to whatever still has data after it.
///
/// # Errors
/// When the disk cannot be written.
pub(super) fn zero(disk: &AttachedDisk, free: &Extents, cluster_bytes: u64) -> Result<()> {
    let (Some(first), Some(last)) = (free.iter().next(), free.iter().last()) else { return Ok(()) };
    let file = &disk.open()?;
    for extent in free.iter() {
        let first = extent.start.next_multiple_of(cluster_bytes);
        let whole = Extent::between(first, extent.end() / cluster_bytes * cluster_bytes);
        if whole.length > 0 && !punch(file, whole)? {
            break;
        }
    }
    let left = disk.data(Extent::between(first.start, last.end()))?;
    let (zeros, mut look) = (vec![0; CHUNK], vec![0; if disk.tells_holes() { 0 } else { CHUNK }]);
    for extent in free.shared_with(&left).iter() {
        write_zeros(file, extent, &zeros, &mut look)?;
    }
    file.sync_all().context(|| "cannot flush the erased disk")
}

/// False when this disk takes no such request.
fn punch(file: &File, extent: Extent) -> Result<bool> {
    let failed = || format!("cannot erase {} bytes at byte {} of the disk", extent.length, extent.start);
    if !file.metadata().context(failed)?.file_type().is_block_device() {
        return holes::punch(file, extent.start..extent.end()).context(failed);
    }
    match block_device_discard(file, extent.start, extent.length) {
        Ok(()) => Ok(true),
        Err(Errno::EOPNOTSUPP | Errno::ENOTTY) => Ok(false),
        Err(errno) => Err(errno).context(failed),
    }
}

/// With room to `look`, only where something else than zeros is read: writing zeros to a hole may fill it.
fn write_zeros(file: &File, extent: Extent, zeros: &[u8], look: &mut [u8]) -> Result<()> {
    let mut at = extent.start;
    while at < extent.end() {
        interrupt::check_before("erasing on")?;
        // Chunks end at multiples of their size: whole clusters of zeros are seen as such by the image format.
        let end = (at + 1).next_multiple_of(CHUNK as u64).min(extent.end());
        let length = usize::try_from(end - at).unwrap_or(CHUNK);
        let failed = || format!("cannot erase at byte {at} of the disk");
        let is_zero = match look.get_mut(..length) {
            Some(seen) => file.read_exact_at(seen, at).map(|()| nonzero(seen) == 0).context(failed)?,
            None => false,
        };
        if !is_zero {
            file.write_all_at(&zeros[..length], at).context(failed)?;
        }
        at = end;
    }
    Ok(())
}

/// How many bytes of these stretches of the disk are not zero, and the first places of such bytes.
///
/// # Errors
/// When the disk cannot be read.
pub(super) fn count_nonzero(file: &mut File, extents: &Extents) -> Result<(u64, Vec<Extent>)> {
    let (mut count, mut places) = (0, Vec::new());
    let mut bytes = vec![0; CHUNK];
    let mut pieces = extents.iter().flat_map(chunks).peekable();
    while let Some(first) = pieces.next() {
        interrupt::check_before("proving on")?;
        // Small pieces that lie near one another are read together.
        let mut together = vec![first];
        while let Some(next) = pieces.next_if(|next| next.end() - first.start <= CHUNK as u64) {
            together.push(next);
        }
        let end = together.last().map_or(first.end(), |last| last.end());
        let length = usize::try_from(end - first.start).unwrap_or(CHUNK);
        let failed = || format!("cannot read at byte {} of the disk", first.start);
        file.seek(SeekFrom::Start(first.start)).context(failed)?;
        file.read_exact(&mut bytes[..length]).context(failed)?;
        for piece in together {
            let at = usize::try_from(piece.start - first.start).unwrap_or(0);
            let piece_bytes = &bytes[at..at + usize::try_from(piece.length).unwrap_or(0)];
            let nonzero = nonzero(piece_bytes);
            count += nonzero;
            if nonzero > 0 && places.len() < PLACES {
                places.push(piece);
            }
        }
    }
    Ok((count, places))
}

/// An extent in pieces of at most one chunk.
fn chunks(extent: Extent) -> impl Iterator<Item = Extent> {
    let step = CHUNK as u64;
    (extent.start..extent.end())
        .step_by(CHUNK)
        .map(move |start| Extent::between(start, start.saturating_add(step).min(extent.end())))
}
