//! The one thing all account files have in common: lines whose bytes are kept.

use std::fmt;

use zeroize::Zeroizing;

/// The content of an account file. Its memory is overwritten when it is dropped, for it may hold password hashes.
#[derive(Clone)]
pub(super) struct Text(Zeroizing<Vec<u8>>);

/// What becomes of a line.
pub(super) enum Edit {
    Keep,
    Remove,
    Replace(Zeroizing<Vec<u8>>),
}

impl Text {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Every line without its line end, with its number from 1.
    pub(super) fn lines(&self) -> impl Iterator<Item = (usize, &[u8])> {
        self.0
            .split_inclusive(|&byte| byte == b'\n')
            .map(without_end)
            .enumerate()
            .map(|(index, line)| (index + 1, line))
    }

    /// The lines that say something: neither blank, comment nor NIS line; blanks at their start are cut, as glibc does.
    pub(super) fn entries(&self) -> impl Iterator<Item = (usize, &[u8])> {
        self.lines().filter_map(|(number, line)| entry(line).map(|entry| (number, entry)))
    }

    /// Adds a line without its end behind all others, but before NIS lines, as useradd(8) does: what stands behind those
    /// may not be seen.
    pub(super) fn add(&mut self, line: &[u8]) {
        let nis = |line: &[u8]| matches!(trim_start(line).first(), Some(b'+' | b'-'));
        let lines = self.0.split_inclusive(|&byte| byte == b'\n');
        let place: usize = lines.take_while(|line| !nis(line)).map(<[u8]>::len).sum();
        let (before, behind) = self.0.split_at(place);
        let gap: &[u8] = if before.is_empty() || before.ends_with(b"\n") { b"" } else { b"\n" };
        self.0 = Zeroizing::new([before, gap, line, b"\n", behind].concat());
    }

    /// Gives every entry to `decide`, without blanks at its start and without its line end; a replaced one keeps
    /// both. Returns whether anything changed.
    pub(super) fn edit(&mut self, mut decide: impl FnMut(&[u8]) -> Edit) -> bool {
        // Room for one more field of a hash's length, so that the buffer does not move and leave a copy behind.
        let mut edited = Zeroizing::new(Vec::with_capacity(self.0.len() + 1024));
        for whole in self.0.split_inclusive(|&byte| byte == b'\n') {
            let line = without_end(whole);
            let old = entry(line).unwrap_or_default();
            match if old.is_empty() { Edit::Keep } else { decide(old) } {
                Edit::Keep => edited.extend_from_slice(whole),
                Edit::Remove => {}
                Edit::Replace(new) => {
                    edited.extend_from_slice(&whole[..line.len() - old.len()]);
                    edited.extend_from_slice(&new);
                    edited.extend_from_slice(&whole[line.len()..]);
                }
            }
        }
        let changed = *edited != *self.0;
        if changed {
            self.0 = edited;
        }
        changed
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

/// C's isspace(), which unlike Rust's counts the vertical tab.
pub(super) fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

pub(super) fn trim_start(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|&byte| !is_space(byte)).unwrap_or(bytes.len());
    &bytes[start..]
}

pub(super) fn trim(bytes: &[u8]) -> &[u8] {
    let bytes = trim_start(bytes);
    let end = bytes.iter().rposition(|&byte| !is_space(byte)).map_or(0, |last| last + 1);
    &bytes[..end]
}

fn entry(line: &[u8]) -> Option<&[u8]> {
    let entry = trim_start(line);
    match entry.first() {
        None | Some(b'#' | b'+' | b'-') => None,
        Some(_) => Some(entry),
    }
}

/// The name that an entry begins with; None when nothing follows it.
pub(super) fn name_of(entry: &[u8]) -> Option<&[u8]> {
    let end = entry.iter().position(|&byte| byte == b':')?;
    (end > 0).then(|| &entry[..end])
}

/// A number as glibc's `INT_FIELD` takes it: decimal, blanks and a plus sign before it are allowed.
pub(super) fn number(field: &[u8]) -> Option<u32> {
    let field = trim_start(field);
    let digits = field.strip_prefix(b"+").unwrap_or(field);
    let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    all_digits.then(|| std::str::from_utf8(digits).ok()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_read_as_glibc_reads_them() {
        assert_eq!(number(b"1000"), Some(1000));
        assert_eq!(number(b" +01000"), Some(1000));
        assert_eq!(number(b"4294967295"), Some(u32::MAX));
        for wrong in [&b""[..], b"-1", b"1000x", b"4294967296", b"0x10", b"+", b"++1"] {
            assert_eq!(number(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn debug_shows_no_content() {
        assert_eq!(format!("{:?}", Text::new(b"root:secret")), "11 bytes");
    }

    #[test]
    fn lines_are_added_before_nis_lines() {
        for (old, new) in [("", "x\n"), ("a", "a\nx\n"), ("a\n", "a\nx\n"), ("a\n+::\nb\n", "a\nx\n+::\nb\n")]
        {
            let mut text = Text::new(old.as_bytes());
            text.add(b"x");
            assert_eq!(text.as_bytes(), new.as_bytes(), "{old:?}");
        }
    }

    proptest! {
        #[test]
        fn bytes_survive(bytes: Vec<u8>) {
            let mut text = Text::new(&bytes);
            prop_assert!(!text.edit(|_| Edit::Keep));
            prop_assert_eq!(text.as_bytes(), &bytes[..]);
        }

        #[test]
        fn replacing_by_itself_changes_nothing(bytes in "[ab:#+ \\r\\n]{0,60}") {
            let mut text = Text::new(bytes.as_bytes());
            prop_assert!(!text.edit(|line| Edit::Replace(Zeroizing::new(line.to_vec()))));
            prop_assert_eq!(text.as_bytes(), bytes.as_bytes());
        }
    }
}
