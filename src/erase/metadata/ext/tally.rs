//! What was found, and the one place where bytes become zero.

#![forbid(unsafe_code)]

use crate::disk::number::nonzero;
use crate::erase::metadata::{Act, Remains};

/// The kinds of places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Blocks of the journal behind its superblock.
    Journal,
    /// Slots of inodes that are free.
    FreeInodes,
    /// Unused parts of inodes, of blocks with extended attributes and of blocks with extents.
    InodeSlack,
    /// Unused parts of directory blocks.
    Directories,
    /// Blocks that are allocated and were not written since: they read as zero in the guest.
    Preallocated,
}

const KINDS: [(Kind, &str); 5] = [
    (Kind::Journal, "journal"),
    (Kind::FreeInodes, "free inodes"),
    (Kind::InodeSlack, "inode slack"),
    (Kind::Directories, "directories"),
    (Kind::Preallocated, "preallocated"),
];

/// The account of one walk.
#[derive(Debug)]
pub(super) struct Tally {
    act: Act,
    found: [(u64, u64); KINDS.len()],
}

impl Tally {
    pub(super) fn new(act: Act) -> Self {
        Self { act, found: Default::default() }
    }

    /// Puts places of `bytes` bytes to the account.
    pub(super) fn place(&mut self, kind: Kind, bytes: u64) {
        let place = &mut self.found[kind as usize].0;
        *place = place.saturating_add(bytes);
    }

    /// Counts what of these bytes is not zero and, when that is the act, makes them zero; whether they changed.
    pub(super) fn wipe(&mut self, kind: Kind, bytes: &mut [u8]) -> bool {
        let nonzero = nonzero(bytes);
        let found = &mut self.found[kind as usize].1;
        *found = found.saturating_add(nonzero);
        let change = nonzero > 0 && self.act == Act::Zero;
        if change {
            bytes.fill(0);
        }
        change
    }

    /// Both.
    pub(super) fn clean(&mut self, kind: Kind, bytes: &mut [u8]) -> bool {
        self.place(kind, bytes.len() as u64);
        self.wipe(kind, bytes)
    }

    /// One account of each kind.
    pub(super) fn remains(&self) -> Vec<Remains> {
        let one = |(kind, name): &(Kind, &str)| {
            let (bytes, nonzero) = self.found[*kind as usize];
            Remains { kind: (*name).to_owned(), bytes, nonzero }
        };
        KINDS.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_act_of_zeroing_changes_bytes() {
        for (act, after) in [(Act::Count, [1, 2]), (Act::Zero, [0, 0])] {
            let (mut tally, mut bytes) = (Tally::new(act), [1, 2]);
            assert_eq!(tally.clean(Kind::Journal, &mut bytes), act == Act::Zero);
            assert_eq!(bytes, after);
            let journal = &tally.remains()[0];
            assert_eq!((journal.kind.as_str(), journal.bytes, journal.nonzero), ("journal", 2, 2));
        }
    }
}
