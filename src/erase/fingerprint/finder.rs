//! Finding windows at any byte of a disk, at the speed of its memory: only the 8 bytes at every 16th place are looked
//! at, and a filter of a few bits for each key says of nearly all of them that no window has them.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};

use zeroize::Zeroize;

use super::{Fingerprints, KEY, STRIDE, WINDOW, Window};

/// How many bytes are filtered at a time.
const BLOCK: usize = 4 * STRIDE;
/// Bits of the filter for each key: fewer let more through, more do not stay in the processor's cache.
const BITS_PER_KEY: usize = 32;

/// Finds windows.
pub struct Finder<'a> {
    /// Each window once, by its place among those that were given.
    windows: HashMap<&'a Window, usize>,
    filter: Filter,
    keys: Keys,
    /// Of whole windows: many keys are found in what lives, and few of their windows.
    whole: Filter,
}

impl<'a> Finder<'a> {
    /// For these fingerprints.
    pub fn new(prints: &'a Fingerprints) -> Self {
        Self::of(prints.expose())
    }

    /// For these windows; the plain ones of them cost time.
    pub(crate) fn of(windows: &'a [Window]) -> Self {
        let mut numbered = HashMap::with_capacity(windows.len());
        for (number, window) in windows.iter().enumerate() {
            numbered.entry(window).or_insert(number);
        }
        let mut keys = Keys::with_room(numbered.len() * STRIDE);
        let mut filter = Filter::with_room(numbered.len() * STRIDE);
        let mut whole = Filter::with_room(numbered.len());
        for window in numbered.keys() {
            whole.add(folded(window));
            for (offset, key) in window.windows(KEY).take(STRIDE).enumerate() {
                let key = word(key);
                filter.add(key);
                keys.add(key, offset);
            }
        }
        Self { windows: numbered, filter, keys, whole }
    }

    /// How many different windows it looks for.
    pub fn windows(&self) -> usize {
        self.windows.len()
    }

    /// Calls `found` for every window that is whole in `bytes`: with its place, counted from `base`, and its number among
    /// those that were given. Each place comes once, in no order.
    pub fn scan(&self, base: u64, bytes: &[u8], found: &mut dyn FnMut(u64, usize)) {
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        for (number, block) in blocks.iter().enumerate() {
            let (keys, _) = block.as_chunks::<STRIDE>();
            // Without a branch for each: that one of four passes is rare.
            let passed =
                keys.iter().fold(false, |passed, key| passed | self.filter.may_have(word(&key[..KEY])));
            if passed {
                for step in 0..BLOCK / STRIDE {
                    self.verify(base, bytes, number * BLOCK + step * STRIDE, found);
                }
            }
        }
        let done = bytes.len() - rest.len();
        (done..bytes.len()).step_by(STRIDE).for_each(|at| self.verify(base, bytes, at, found));
    }

    /// Looks for the windows that have the key at `at`.
    #[inline(never)]
    fn verify(&self, base: u64, bytes: &[u8], at: usize, found: &mut dyn FnMut(u64, usize)) {
        let Some(key) = bytes.get(at..at + KEY).map(word) else { return };
        if !self.filter.may_have(key) {
            return;
        }
        let mut offsets = self.keys.get(key);
        while offsets != 0 {
            let offset = usize::try_from(offsets.trailing_zeros()).unwrap_or(0);
            offsets &= offsets - 1;
            let Some(start) = at.checked_sub(offset) else { continue };
            let Some(window) = bytes.get(start..).and_then(<[u8]>::first_chunk::<WINDOW>) else { continue };
            if self.whole.may_have(folded(window))
                && let Some(number) = self.windows.get(window)
            {
                found(base.saturating_add(start as u64), *number);
            }
        }
    }
}

impl fmt::Debug for Finder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a finder of {} windows", self.windows.len())
    }
}

/// The first eight bytes as a number; fewer are filled up with zeros.
fn word(bytes: &[u8]) -> u64 {
    bytes.first_chunk::<KEY>().map_or(0, |key| u64::from_le_bytes(*key))
}

/// A window as one number. What falls together is told apart by the windows themselves.
fn folded(window: &Window) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let (words, _) = window.as_chunks::<KEY>();
    words.iter().fold(0, |sum: u64, bytes| mixed(sum ^ u64::from_le_bytes(*bytes), ODD))
}

/// A number that a guest cannot foresee, so it cannot choose contents that fall together.
fn seed() -> u64 {
    RandomState::new().hash_one(0) | 1
}

fn mixed(key: u64, seed: u64) -> u64 {
    (key ^ key >> 32).wrapping_mul(seed)
}

/// Says of most keys that it does not have them: a Bloom filter that keeps all bits of a key in one word.
struct Filter {
    seed: u64,
    /// How far a hash is shifted to be an index.
    shift: u32,
    words: Vec<u64>,
}

impl Filter {
    fn with_room(keys: usize) -> Self {
        let words = (keys * BITS_PER_KEY / 64).next_power_of_two().max(1 << 10);
        Self { seed: seed(), shift: 64 - words.ilog2(), words: vec![0; words] }
    }

    #[inline]
    fn place(&self, key: u64) -> (usize, u64) {
        let hash = mixed(key, self.seed);
        let index = usize::try_from(hash >> self.shift).unwrap_or(0);
        (index, 1 << (hash >> 24 & 63) | 1 << (hash >> 30 & 63) | 1 << (hash >> 36 & 63))
    }

    fn add(&mut self, key: u64) {
        let (index, bits) = self.place(key);
        if let Some(word) = self.words.get_mut(index) {
            *word |= bits;
        }
    }

    #[inline]
    fn may_have(&self, key: u64) -> bool {
        let (index, bits) = self.place(key);
        self.words.get(index).is_some_and(|word| word & bits == bits)
    }
}

/// Where in a window a key is found: one bit for each offset. Open addressing; a quarter of the slots are free at least.
struct Keys {
    seed: u64,
    shift: u32,
    slots: Vec<(u64, u32)>,
}

impl Keys {
    fn with_room(keys: usize) -> Self {
        let slots = (keys * 4 / 3 + 1).next_power_of_two().max(2);
        Self { seed: seed(), shift: 64 - slots.ilog2(), slots: vec![(0, 0); slots] }
    }

    /// The slot of the key, or the free one where it belongs.
    fn slot(&self, key: u64) -> usize {
        let mut at = usize::try_from(mixed(key, self.seed) >> self.shift).unwrap_or(0);
        while self.slots.get(at).is_some_and(|(other, offsets)| *offsets != 0 && *other != key) {
            at = (at + 1) % self.slots.len();
        }
        at
    }

    fn add(&mut self, key: u64, offset: usize) {
        let at = self.slot(key);
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = (key, slot.1 | 1 << offset);
        }
    }

    fn get(&self, key: u64) -> u32 {
        self.slots.get(self.slot(key)).map_or(0, |(_, offsets)| *offsets)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // They are pieces of the windows.
        for slot in &mut self.slots {
            slot.0.zeroize();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(windows: &[Window], bytes: &[u8]) -> Vec<(u64, Window)> {
        let mut hits = Vec::new();
        Finder::of(windows).scan(1000, bytes, &mut |place, which| hits.push((place, windows[which])));
        hits.sort_unstable();
        hits
    }

    /// What is to come of it: by looking at every place for every window.
    fn naive(windows: &[Window], bytes: &[u8]) -> Vec<(u64, Window)> {
        let places = bytes.windows(WINDOW).enumerate();
        places
            .filter(|(_, place)| windows.iter().any(|window| window == place))
            .map(|(place, window)| (1000 + place as u64, window.try_into().unwrap()))
            .collect()
    }

    #[test]
    fn a_window_is_found_at_every_place() {
        let window: Window = std::array::from_fn(|byte| u8::try_from(byte * 7).unwrap());
        for length in [32, 33, 63, 64, 65, 95, 96, 200] {
            for place in 0..=length - WINDOW {
                let mut bytes = vec![0; length];
                bytes[place..place + WINDOW].copy_from_slice(&window);
                assert_eq!(all(&[window], &bytes), [(1000 + place as u64, window)], "{place} of {length}");
            }
        }
    }

    #[test]
    fn nothing_is_found_for_nothing() {
        assert_eq!(all(&[], &[7; 1000]), []);
        assert_eq!(all(&[[7; WINDOW]], &[7; 31]), []);
        assert_eq!(Finder::new(&Fingerprints::new()).windows(), 0);
    }

    #[test]
    fn contents_that_are_made_to_be_slow_are_only_found() {
        // All windows have the same keys at most offsets, and the disk is full of them.
        let window = |number: usize| {
            let mut window = *b"0123456789abcdefghijklm_________";
            window[24..].copy_from_slice(&(number as u64).to_be_bytes());
            window
        };
        let windows: Vec<Window> = (0..20_000).map(window).collect();
        let bytes = b"0123456789abcdefghijklm_".repeat(100_000);
        assert_eq!(all(&windows, &bytes), []);
        assert_eq!(all(&windows, windows.as_flattened()).len(), 20_000);
    }

    proptest! {
        #[test]
        fn it_finds_what_a_naive_search_finds(
            // Few values, so that windows begin alike and lie over each other.
            text in proptest::collection::vec(0u8..3, 0..400),
            places in proptest::collection::vec(0usize..400, 0..20),
            odd in proptest::collection::vec(any::<[u8; WINDOW]>(), 0..5),
            cut in 0usize..40,
        ) {
            let known = places.iter().filter_map(|place| text.get(*place..)?.first_chunk::<WINDOW>().copied());
            let windows: Vec<Window> = known.chain(odd).collect();
            let bytes = [&text, windows.as_flattened()].concat();
            let bytes = &bytes[cut.min(bytes.len())..];
            prop_assert_eq!(all(&windows, bytes), naive(&windows, bytes));
        }
    }
}
