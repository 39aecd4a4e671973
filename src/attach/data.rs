//! Where an attached disk may hold data: asked of the server or the filesystem below it, so that the holes of a mostly
//! empty disk, which read as zero, are never read.

#![forbid(unsafe_code)]

use std::ops::Range;

use super::{AttachedDisk, Guard};
use crate::erase::extent::{Extent, Extents};
use crate::error::{Context, Result};
use crate::sys::holes::next_data;
use crate::sys::interrupt;

/// The most pieces of data that are told apart; they take 16 MiB.
const PIECES: usize = 1 << 20;

/// Somebody who knows where a device has data.
pub trait DataSource: std::fmt::Debug {
    /// What of the device may hold data other than zeros; none when that cannot be told.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn data(&self) -> Result<Option<Extents>>;
}

impl AttachedDisk {
    /// The same of the whole disk.
    ///
    /// # Errors
    /// As [`Self::data`].
    pub fn all_data(&self) -> Result<Extents> {
        self.data(Extent { start: 0, length: self.bytes()? })
    }

    /// What of `within` may hold data other than zeros; the rest reads as zero. What was written but not flushed may be
    /// missing. Of a disk in more pieces than are told apart, small holes count as data.
    ///
    /// # Errors
    /// When the disk cannot be asked, or a signal came.
    pub fn data(&self, within: Extent) -> Result<Extents> {
        if let Guard::Nbd(disk) = &self.guard {
            return disk.data(within);
        }
        let file = self.open()?;
        if let Guard::Device { data: Some(source), .. } = &self.guard {
            // Who is asked looks at what the device has written.
            file.sync_all().context(|| format!("cannot flush {}", self.path.display()))?;
            if let Some(data) = source.data()? {
                return Ok(data.within(within.start, within.end()));
            }
        }
        let cannot = || format!("cannot tell where {} has data", self.path.display());
        gather(within, |from, end| next_data(&file, from, end).context(cannot))
    }
}

/// All the data in a range, piece after piece.
pub(crate) fn gather(
    within: Extent,
    mut next: impl FnMut(u64, u64) -> Result<Option<Range<u64>>>,
) -> Result<Extents> {
    let (mut data, mut at) = (Pieces::new(PIECES), within.start);
    while let Some(piece) = next(at, within.end())? {
        interrupt::check()?;
        at = piece.end;
        data.add(piece);
    }
    data.extents()
}

/// Pieces in order. When there are too many, the holes between them that are smaller than `grain` bytes are filled.
pub(super) struct Pieces {
    limit: usize,
    grain: u64,
    all: Vec<Range<u64>>,
}

impl Pieces {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, grain: 0, all: Vec::new() }
    }

    /// Adds one behind all others.
    pub(super) fn add(&mut self, piece: Range<u64>) {
        join(&mut self.all, piece, self.grain);
        while self.all.len() > self.limit {
            self.grain = self.grain.saturating_mul(2).max(512);
            let pieces = std::mem::take(&mut self.all);
            pieces.into_iter().for_each(|piece| join(&mut self.all, piece, self.grain));
        }
    }

    pub(super) fn extents(self) -> Result<Extents> {
        Extents::new(self.all.into_iter().map(|piece| Extent::between(piece.start, piece.end)))
    }
}

/// Puts a piece behind the others, or makes it one with the last.
fn join(pieces: &mut Vec<Range<u64>>, piece: Range<u64>, grain: u64) {
    match pieces.last_mut() {
        Some(last) if piece.start <= last.end.saturating_add(grain) => last.end = last.end.max(piece.end),
        _ => pieces.push(piece),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn few_pieces_are_kept_as_they_are_and_many_with_small_holes_filled(
            lengths in proptest::collection::vec((0u64..3000, 1u64..3000), 1..60), limit in 1usize..80,
        ) {
            let (mut pieces, mut at, mut exact) = (Pieces::new(limit), 0, Vec::new());
            for (hole, data) in lengths {
                let piece = at + hole..at + hole + data;
                at = piece.end;
                exact.push(Extent::between(piece.start, piece.end));
                pieces.add(piece);
            }
            let exact = Extents::new(exact).unwrap();
            let kept = pieces.extents().unwrap();
            prop_assert!(kept.count() <= limit as u64);
            prop_assert!(exact.iter().all(|extent| kept.within(extent.start, extent.end()).bytes() == extent.length));
            prop_assert!(exact.count() > limit as u64 || kept == exact);
        }
    }

    #[test]
    fn what_the_disk_says_is_gathered_to_its_end() {
        let within = Extent { start: 100, length: 900 };
        let pieces = [120..130, 400..1000];
        let next = |from: u64, _| {
            Ok(pieces.iter().find(|piece| piece.end > from).map(|piece| piece.start.max(from)..piece.end))
        };
        assert_eq!(gather(within, next).unwrap().bytes(), 610);
        let broken = gather(within, |_, _| Err(crate::Error::failed("broken")));
        assert_eq!(broken.unwrap_err().to_string(), "broken");
    }
}
