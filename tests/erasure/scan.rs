//! Counting markers in the bytes of a file, kind by kind. Holes are not read.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

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

/// `count` lines, each a marker of its own, of 64 bytes.
pub(crate) fn lines(kind: &str, count: usize) -> String {
    (0..count).map(|number| format!("{:<63}\n", marker(kind, number))).collect()
}

/// Lines of markers that fill so many bytes.
pub(crate) fn text(kind: &str, bytes: usize) -> String {
    let mut text = lines(kind, bytes / 64 + 1);
    text.truncate(bytes);
    text
}

/// Counts the markers in a file. A short name on vfat has its first byte overwritten when it is deleted, and its long
/// name is in UCS-2, in pieces: both have patterns of their own.
pub(crate) fn count(path: &Path) -> Counts {
    // One search for each: plain words are found fastest.
    let [markers, short, long] =
        ["GSCANARY-", "SCAN[0-9]{3}ESP", r"Q\x00z\x00J\x00x\x00q\x00"].map(|text| Regex::new(text).unwrap());
    let mut counts = Counts::new();
    each_piece(path, |piece, from| {
        for found in markers.find_iter(piece).filter(|found| found.start() < from) {
            if let Some(kind) = kind_at(&piece[found.end()..]) {
                add(&mut counts, kind, 1);
            }
        }
        for (kind, pattern) in [("espname", &short), ("esplongname", &long)] {
            add(&mut counts, kind, pattern.find_iter(piece).filter(|found| found.start() < from).count());
        }
    });
    counts
}

fn add(counts: &mut Counts, kind: &str, number: usize) {
    if let Some(count) = counts.get_mut(kind) {
        *count += number as u64;
    } else if number > 0 {
        counts.insert(kind.to_owned(), number as u64);
    }
}

/// The kind, where these are the bytes behind the first word of a marker; its number has three digits at least.
fn kind_at(rest: &[u8]) -> Option<&str> {
    let end = rest.iter().take(32).position(|byte| !byte.is_ascii_lowercase())?;
    let number = rest.get(end..end + 4)?;
    let whole = end > 0 && number[0] == b'-' && number[1..].iter().all(u8::is_ascii_digit);
    whole.then(|| std::str::from_utf8(&rest[..end]).ok()).flatten()
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
