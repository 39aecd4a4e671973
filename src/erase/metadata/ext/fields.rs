//! Numbers in the bytes of on-disk structures. What lies outside of the bytes reads as zero and is not written.

#![forbid(unsafe_code)]

use std::ops::Range;

pub(super) use crate::disk::number::{be32, byte, le16, le32};

/// A number of 16 bits as a place or count.
pub(super) fn size16(bytes: &[u8], at: usize) -> usize {
    usize::from(le16(bytes, at))
}

pub(super) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    let place = at.checked_add(value.len()).and_then(|end| bytes.get_mut(at..end));
    if let Some(place) = place {
        place.copy_from_slice(value);
    }
}

/// The part of `range` that is there.
pub(super) fn part(bytes: &[u8], range: Range<usize>) -> &[u8] {
    let end = range.end.min(bytes.len());
    bytes.get(range.start.min(end)..end).unwrap_or_default()
}

/// The same to write to.
pub(super) fn part_mut(bytes: &mut [u8], range: Range<usize>) -> &mut [u8] {
    let end = range.end.min(bytes.len());
    bytes.get_mut(range.start.min(end)..end).unwrap_or_default()
}
