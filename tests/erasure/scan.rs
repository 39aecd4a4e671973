//! Counting markers in the bytes of a file, kind by kind. Holes are not read.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::OnceLock;

use nix::unistd::Whence;
use regex::bytes::Regex;

/// How many markers of each kind were found.
pub(crate) type Counts = BTreeMap<String, u64>;

/// How much is searched at once, and how long a marker can be.
const PIECE: u64 = 8 << 20;
const LONGEST: u64 = 128;

/// The marker number `number` of a kind, which is of lower-case letters only.
pub(crate) fn marker(kind: &str, number: usize) -> String {
    format!("GSCANARY-{kind}-{number:03}")
}

/// `count` lines, each a marker of its own.
pub(crate) fn lines(kind: &str, count: usize) -> String {
    (0..count).map(|number| marker(kind, number) + "\n").collect()
}

/// Lines of markers that fill so many bytes.
pub(crate) fn text(kind: &str, bytes: usize) -> String {
    let mut text = lines(kind, bytes / (marker(kind, 0).len() + 1) + 1);
    text.truncate(bytes);
    text
}

/// Counts the markers in a file. A short name on vfat has its first byte overwritten when it is deleted, and its long
/// name is in UCS-2, in pieces: both have patterns of their own.
pub(crate) fn count(path: &Path) -> Counts {
    static MARKERS: OnceLock<Regex> = OnceLock::new();
    let markers = MARKERS.get_or_init(|| {
        Regex::new(r"(?-u)GSCANARY-([a-z]+)-[0-9]{3}|(SCAN[0-9]{3}ESP)|(Q\x00z\x00J\x00x\x00q\x00)").unwrap()
    });
    let mut counts = Counts::new();
    each_piece(path, |piece, from| {
        for found in markers.captures_iter(piece).filter(|found| found.get(0).unwrap().start() < from) {
            let kind = if found.get(2).is_some() {
                "espname"
            } else {
                found.get(1).map_or("esplongname", |kind| std::str::from_utf8(kind.as_bytes()).unwrap())
            };
            *counts.entry(kind.to_owned()).or_default() += 1;
        }
    });
    counts
}

/// How often these bytes are in a file.
pub(crate) fn count_bytes(path: &Path, needle: &[u8]) -> u64 {
    let hex: String = needle.iter().map(|byte| format!(r"\x{byte:02x}")).collect();
    let pattern = Regex::new(&format!("(?s-u){hex}")).unwrap();
    let mut count = 0;
    each_piece(path, |piece, from| {
        count += pattern.find_iter(piece).filter(|found| found.start() < from).count() as u64;
    });
    count
}

/// Calls with each piece of the data and where in it the next one begins; they overlap by the longest marker.
fn each_piece(path: &Path, mut look: impl FnMut(&[u8], usize)) {
    let file = File::open(path).unwrap();
    let end = i64::try_from(file.metadata().unwrap().len()).unwrap();
    let mut bytes = vec![0; usize::try_from(PIECE + LONGEST).unwrap()];
    let mut at = 0;
    while let Ok(start) = nix::unistd::lseek(&file, at, Whence::SeekData) {
        at = nix::unistd::lseek(&file, start, Whence::SeekHole).unwrap().min(end);
        let (mut here, behind) = (u64::try_from(start).unwrap(), u64::try_from(at).unwrap());
        while here < behind {
            let length = usize::try_from((behind - here).min(PIECE + LONGEST)).unwrap();
            file.read_exact_at(&mut bytes[..length], here).unwrap();
            look(&bytes[..length], usize::try_from(PIECE).unwrap());
            here += PIECE;
        }
    }
}
