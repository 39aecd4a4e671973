//! Numbers in the bytes of on-disk structures. What lies outside of the bytes reads as zero and is not written.

#![forbid(unsafe_code)]

use std::ops::Range;

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let found = at.checked_add(N).and_then(|end| bytes.get(at..end));
    found.and_then(|found| found.try_into().ok()).unwrap_or([0; N])
}

pub(super) fn le16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array(bytes, at))
}

pub(super) fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

/// A number of 16 bits as a place or count.
pub(super) fn size16(bytes: &[u8], at: usize) -> usize {
    usize::from(le16(bytes, at))
}

pub(super) fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(array(bytes, at))
}

pub(super) fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
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
