//! Fingerprints of what was deleted: short windows of each file's content, taken just before it goes and searched for
//! afterwards. They are secrets like the files they come from: kept in memory only, wiped, and never shown.

#![forbid(unsafe_code)]

pub mod finder;
pub mod sample;
pub mod search;

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// The length of a window in bytes.
pub const WINDOW: usize = 32;
/// The most windows of one run; they take 2 MiB.
pub const LIMIT: usize = 1 << 16;
/// At every this many bytes one key is looked at, so a window has as many keys as there are bytes from one to the next.
const STRIDE: usize = 16;
/// The length of a key in bytes.
const KEY: usize = 8;
/// How many different bytes a window has at least, and each of its keys. What has fewer is found everywhere.
const DISTINCT: u32 = 8;
const DISTINCT_IN_KEY: u32 = 3;

// Wherever a window lies, one of the keys that are looked at is whole inside it.
const _: () = assert!(STRIDE - 1 + KEY <= WINDOW);

/// A piece of a file's content.
pub type Window = [u8; WINDOW];

/// What of a run's deletions the windows stand for. All but the last are files that had content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Coverage {
    /// Files of which there is at least one window.
    pub sampled: u64,
    /// Files that are too short, or too plain, to be told from others.
    pub plain: u64,
    /// Names that went while the file lives on under another one: nothing was deleted.
    pub linked: u64,
    /// Files that were too many to look at.
    pub skipped: u64,
    /// Files that could not be read.
    pub unread: u64,
}

impl Coverage {
    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &Self) {
        let Self { sampled, plain, linked, skipped, unread } = other;
        for (count, more) in [
            (&mut self.sampled, sampled),
            (&mut self.plain, plain),
            (&mut self.linked, linked),
            (&mut self.skipped, skipped),
            (&mut self.unread, unread),
        ] {
            *count = count.saturating_add(*more);
        }
    }
}

/// The windows of a run. Their memory is wiped when they are dropped, and nothing shows them.
#[derive(Default)]
pub struct Fingerprints {
    windows: Vec<Window>,
    coverage: Coverage,
}

impl Fingerprints {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a window; false when it is too plain to be told from others, or there are [`LIMIT`] already.
    pub fn add(&mut self, window: &Window) -> bool {
        if self.windows.len() >= LIMIT || !is_distinctive(window) {
            return false;
        }
        if self.windows.capacity() == 0 {
            // All at once: a vector that grows leaves copies behind. The kernel gives the memory when it is used.
            self.windows.reserve_exact(LIMIT);
        }
        self.windows.push(*window);
        true
    }

    /// Adds to what they stand for.
    pub fn cover(&mut self, more: &Coverage) {
        self.coverage.add(more);
    }

    /// What they stand for.
    pub fn coverage(&self) -> Coverage {
        self.coverage
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.windows.len()
    }

    /// The windows themselves: for searching only.
    pub(crate) fn expose(&self) -> &[Window] {
        &self.windows
    }
}

impl Drop for Fingerprints {
    fn drop(&mut self) {
        self.windows.zeroize();
    }
}

impl fmt::Debug for Fingerprints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} fingerprints of {:?}", self.windows.len(), self.coverage)
    }
}

/// Whether this window, and each key of it, has enough different bytes.
pub fn is_distinctive(window: &Window) -> bool {
    let mut keys = window.windows(KEY).take(STRIDE);
    distinct(window) >= DISTINCT && keys.all(|key| distinct(key) >= DISTINCT_IN_KEY)
}

/// How many different bytes there are.
fn distinct(bytes: &[u8]) -> u32 {
    let mut seen = [0u64; 4];
    for byte in bytes {
        seen[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }
    seen.iter().map(|quarter| quarter.count_ones()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_windows_are_not_taken() {
        let text = *b"root:$y$j9T$abcdefghij:19700:0:9";
        let mut zeros_inside = text;
        zeros_inside[4..14].fill(0);
        let mut zeros_behind = text;
        zeros_behind[28..].fill(0);
        assert!(is_distinctive(&text) && is_distinctive(&zeros_behind));
        assert!(!is_distinctive(&zeros_inside));
        assert!(!is_distinctive(&[0; WINDOW]) && !is_distinctive(b"abababababababababababababababab"));
        let mut prints = Fingerprints::new();
        assert!(prints.add(&text) && !prints.add(&[b'x'; WINDOW]));
        assert_eq!(prints.count(), 1);
    }

    #[test]
    fn they_are_bounded_and_do_not_show_themselves() {
        let mut prints = Fingerprints::new();
        let text = b"a secret that nobody may see 0123";
        let window: Window = text[..WINDOW].try_into().unwrap();
        let taken = (0..LIMIT + 10).filter(|_| prints.add(&window)).count();
        assert_eq!((taken, prints.count()), (LIMIT, LIMIT));
        prints.cover(&Coverage { sampled: u64::MAX, ..Coverage::default() });
        prints.cover(&Coverage { sampled: 7, skipped: 1, ..Coverage::default() });
        assert_eq!((prints.coverage().sampled, prints.coverage().skipped), (u64::MAX, 1));
        let shown = format!("{prints:?} {prints:#?}");
        assert!(shown.contains("65536 fingerprints") && !shown.contains("secret"), "{shown}");
        // As numbers either.
        assert!(!shown.contains("115, 101"), "{shown}");
    }
}
