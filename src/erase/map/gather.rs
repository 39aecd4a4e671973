//! Gathering extents of which many touch or are named more than once: the memory follows the pieces that they make
//! together, not how often they are named.

#![forbid(unsafe_code)]

use crate::erase::extent::{Extent, Extents};
use crate::error::Result;

/// How many are gathered before they are put in order for the first time.
const FIRST: usize = 64 << 10;

/// Extents on the way to [`Extents`].
#[derive(Debug)]
pub(super) struct Gather {
    sorted: Extents,
    new: Vec<Extent>,
    room: usize,
}

impl Default for Gather {
    fn default() -> Self {
        Self { sorted: Extents::default(), new: Vec::new(), room: FIRST }
    }
}

impl Gather {
    /// One more.
    ///
    /// # Errors
    /// When they make more pieces than guestseal keeps an account of.
    pub(super) fn add(&mut self, extent: Extent) -> Result<()> {
        match self.new.last_mut() {
            _ if extent.length == 0 => {}
            Some(last) if last.end() == extent.start => *last = Extent::between(last.start, extent.end()),
            _ => self.new.push(extent),
        }
        if self.new.len() >= self.room { self.sort() } else { Ok(()) }
    }

    /// All of them.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub(super) fn finish(mut self) -> Result<Extents> {
        self.sort()?;
        Ok(self.sorted)
    }

    fn sort(&mut self) -> Result<()> {
        let (sorted, new) = (std::mem::take(&mut self.sorted), std::mem::take(&mut self.new));
        self.sorted = Extents::new(sorted.iter().chain(new))?;
        // As much as there is: so each one is sorted a few times only.
        self.room = FIRST.max(usize::try_from(self.sorted.count()).unwrap_or(usize::MAX));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_of_few_pieces_make_few_pieces() {
        let mut gather = Gather::default();
        for turn in 0..40_u64 {
            for piece in 0..10_000 {
                gather.add(Extent { start: piece * 10 + turn % 2, length: 4 }).unwrap();
            }
        }
        let extents = gather.finish().unwrap();
        assert_eq!((extents.count(), extents.bytes()), (10_000, 50_000));
    }
}
