//! Stretches of bytes, and what can be said of many of them together.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The most extents that are kept of one volume; they take 16 bytes each.
const LIMIT: usize = 8 << 20;

/// A stretch of a volume or disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Extent {
    /// Its first byte.
    pub start: u64,
    /// Its length in bytes.
    pub length: u64,
}

impl Extent {
    /// From its first byte to the one behind its last.
    pub fn between(start: u64, end: u64) -> Self {
        Self { start, length: end.saturating_sub(start) }
    }

    /// The first byte behind it.
    pub fn end(self) -> u64 {
        self.start.saturating_add(self.length)
    }
}

/// Extents in order, none of which touches another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extents(Vec<Extent>);

impl Extents {
    /// From extents in any order, which may touch and overlap.
    ///
    /// # Errors
    /// When there are more than guestseal keeps an account of.
    pub fn new(extents: impl IntoIterator<Item = Extent>) -> Result<Self> {
        let mut sorted = Vec::new();
        for extent in extents.into_iter().filter(|extent| extent.length > 0) {
            if sorted.len() >= LIMIT {
                return Err(Error::unsupported(format!("its free space is in more than {LIMIT} pieces")));
            }
            sorted.push(extent);
        }
        sorted.sort_unstable();
        let mut merged: Vec<Extent> = Vec::with_capacity(sorted.len());
        for extent in sorted {
            match merged.last_mut() {
                Some(last) if extent.start <= last.end() => {
                    *last = Extent::between(last.start, last.end().max(extent.end()));
                }
                _ => merged.push(extent),
            }
        }
        Ok(Self(merged))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Extent> + '_ {
        self.0.iter().copied()
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// Their lengths together, in bytes.
    pub fn bytes(&self) -> u64 {
        self.iter().map(|extent| extent.length).fold(0, u64::saturating_add)
    }

    /// The first byte of them that is at `at` or behind it; none when there is none.
    pub fn first_from(&self, at: u64) -> Option<u64> {
        let from = self.0.partition_point(|extent| extent.end() <= at);
        self.0.get(from).map(|extent| extent.start.max(at))
    }

    /// What lies between `start` and `end` and in none of them.
    #[must_use]
    pub fn gaps(&self, start: u64, end: u64) -> Self {
        let mut at = start;
        let mut gaps = Vec::new();
        let from = self.0.partition_point(|extent| extent.end() <= start);
        for extent in self.0[from..].iter().copied() {
            if extent.start >= end {
                break;
            }
            if extent.start > at {
                gaps.push(Extent::between(at, extent.start));
            }
            at = at.max(extent.end());
        }
        if at < end {
            gaps.push(Extent::between(at, end));
        }
        Self(gaps)
    }

    /// What of them lies between `start` and `end`.
    #[must_use]
    pub fn within(&self, start: u64, end: u64) -> Self {
        let from = self.0.partition_point(|extent| extent.end() <= start);
        let cut = |extent: &Extent| Extent::between(extent.start.max(start), extent.end().min(end));
        let inside = self.0[from..].iter().take_while(|extent| extent.start < end);
        Self(inside.map(cut).filter(|extent| extent.length > 0).collect())
    }

    /// What of them lies in none of `others`.
    #[must_use]
    pub fn without(&self, others: &Self) -> Self {
        Self(self.iter().flat_map(|extent| others.gaps(extent.start, extent.end()).0).collect())
    }

    /// What is in these and in the others.
    #[must_use]
    pub fn shared_with(&self, others: &Self) -> Self {
        let (mut ours, mut theirs) = (self.iter().peekable(), others.iter().peekable());
        let mut shared = Vec::new();
        while let (Some(one), Some(other)) = (ours.peek(), theirs.peek()) {
            let both = Extent::between(one.start.max(other.start), one.end().min(other.end()));
            shared.extend((both.length > 0).then_some(both));
            if one.end() < other.end() {
                ours.next();
            } else {
                theirs.next();
            }
        }
        Self(shared)
    }

    /// The same, `distance` bytes further on.
    #[must_use]
    pub fn shifted(&self, distance: u64) -> Self {
        let shift = |extent: &Extent| {
            Extent::between(extent.start.saturating_add(distance), extent.end().saturating_add(distance))
        };
        Self(self.0.iter().map(shift).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extents(pairs: &[(u64, u64)]) -> Extents {
        Extents::new(pairs.iter().map(|(start, length)| Extent { start: *start, length: *length })).unwrap()
    }

    #[test]
    fn those_that_touch_are_one() {
        assert_eq!(extents(&[(20, 5), (0, 10), (10, 2), (4, 3), (30, 0)]), extents(&[(0, 12), (20, 5)]));
    }

    #[test]
    fn gaps_are_the_rest() {
        assert_eq!(extents(&[(2, 2), (6, 2)]).gaps(0, 10), extents(&[(0, 2), (4, 2), (8, 2)]));
        assert_eq!(extents(&[(0, 20)]).gaps(5, 10), extents(&[]));
    }

    proptest! {
        #[test]
        fn each_byte_is_in_the_extents_or_in_a_gap(
            pairs in proptest::collection::vec((0u64..100, 0u64..20), 0..20), start in 0u64..60, length in 0u64..60,
        ) {
            let (all, end) = (extents(&pairs), start + length);
            let (inside, gaps) = (all.within(start, end), all.gaps(start, end));
            let whole = extents(&[(start, length)]);
            prop_assert_eq!(&whole.without(&all), &gaps);
            prop_assert_eq!(&whole.without(&gaps), &inside);
            prop_assert_eq!(inside.bytes() + gaps.bytes(), length);
            let has = |extents: &Extents, byte| extents.iter().any(|e| e.start <= byte && byte < e.end());
            for byte in start..end {
                let wanted = pairs.iter().any(|(s, l)| *s <= byte && byte < s + l);
                prop_assert_eq!((has(&inside, byte), has(&gaps, byte)), (wanted, !wanted));
            }
        }

        #[test]
        fn what_two_share_is_in_both(
            ours in proptest::collection::vec((0u64..100, 0u64..20), 0..20),
            theirs in proptest::collection::vec((0u64..100, 0u64..20), 0..20),
        ) {
            let shared = extents(&ours).shared_with(&extents(&theirs));
            let has = |pairs: &[(u64, u64)], byte| pairs.iter().any(|(s, l)| *s <= byte && byte < s + l);
            for byte in 0..120 {
                let found = shared.iter().any(|e| e.start <= byte && byte < e.end());
                prop_assert_eq!(found, has(&ours, byte) && has(&theirs, byte));
            }
        }
    }
}
