//! A stretch of a volume in memory, of which only what was changed is written back: zeros over zeros would make a
//! sparse image grow.

#![forbid(unsafe_code)]

use std::ops::Range;

use super::fields::{part, part_mut};
use super::tally::{Kind, Tally};
use crate::erase::volume::VolumeBytes;
use crate::error::Result;

/// What is written at least.
const GRAIN: usize = 4096;

/// What is read at once of a stretch that is made zero as a whole.
const LOT: u64 = 256 << 10;

/// The stretch.
#[derive(Debug)]
pub(super) struct Sheet {
    at: u64,
    pub(super) bytes: Vec<u8>,
    changed: Vec<bool>,
}

impl Sheet {
    pub(super) fn read(volume: &VolumeBytes<'_>, at: u64, length: usize) -> Result<Self> {
        let bytes = volume.read_vec(at, length)?;
        Ok(Self { at, bytes, changed: vec![false; length.div_ceil(GRAIN)] })
    }

    /// The bytes in `range`, as far as they are there.
    pub(super) fn part(&mut self, range: Range<usize>) -> &mut [u8] {
        part_mut(&mut self.bytes, range)
    }

    /// Counts or makes zero the bytes in `range`.
    pub(super) fn wipe(&mut self, tally: &mut Tally, kind: Kind, range: Range<usize>) {
        let mut at = range.start;
        while at < range.end {
            // By grains, so that zeros are not written over zeros.
            let end = (at + 1).next_multiple_of(GRAIN).min(range.end);
            if tally.wipe(kind, self.part(at..end)) {
                self.changed(at..end);
            }
            at = end;
        }
    }

    /// Notes that the bytes in `range` are to be written.
    pub(super) fn changed(&mut self, range: Range<usize>) {
        let grains = range.start / GRAIN..range.end.div_ceil(GRAIN).min(self.changed.len());
        self.changed.get_mut(grains).unwrap_or_default().fill(true);
    }

    /// Writes what was changed.
    pub(super) fn store(&self, volume: &VolumeBytes<'_>) -> Result<()> {
        let mut at = 0;
        for grains in self.changed.chunk_by(|one, next| one == next) {
            let end = (at + grains.len() * GRAIN).min(self.bytes.len());
            if grains.first() == Some(&true) {
                volume.write(self.at.saturating_add(at as u64), &self.bytes[at..end])?;
            }
            at = end;
        }
        Ok(())
    }
}

/// Counts or makes zero the whole of a stretch; its holes are not read.
pub(super) fn blank(
    volume: &VolumeBytes<'_>,
    tally: &mut Tally,
    kind: Kind,
    (start, end): (u64, u64),
) -> Result<()> {
    tally.place(kind, end.saturating_sub(start));
    let mut at = start;
    while at < end {
        at = volume.next_data(at, end)?;
        let length = usize::try_from((end - at).min(LOT)).unwrap_or(GRAIN);
        let mut sheet = Sheet::read(volume, at, length)?;
        sheet.wipe(tally, kind, 0..length);
        sheet.store(volume)?;
        at = at.saturating_add(length as u64);
    }
    Ok(())
}

/// What is read ahead of places that lie near each other.
const AHEAD: u64 = 64 << 10;

/// Small reads out of a larger one, for what mostly lies in a row: descriptors, bitmaps.
#[derive(Debug)]
pub(super) struct Window<'a> {
    volume: VolumeBytes<'a>,
    at: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    pub(super) fn new(volume: VolumeBytes<'a>) -> Self {
        Self { volume, at: 0, bytes: Vec::new() }
    }

    /// The `length` bytes at `at`.
    pub(super) fn read(&mut self, at: u64, length: usize) -> Result<&[u8]> {
        let inside = at.checked_sub(self.at).and_then(|from| usize::try_from(from).ok());
        let inside = inside.filter(|from| from.saturating_add(length) <= self.bytes.len());
        let from = match inside {
            Some(from) => from,
            None => {
                let most = self.volume.length().saturating_sub(at).min(AHEAD.max(length as u64));
                self.bytes = self.volume.read_vec(at, usize::try_from(most).unwrap_or(length).max(length))?;
                self.at = at;
                0
            }
        };
        Ok(part(&self.bytes, from..from + length))
    }
}
