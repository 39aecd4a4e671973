//! Reading one archive, as the kernel does (init/initramfs.c): in one pass, from a source that may be hostile.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::{END, FILE};

/// Of the fields of a header, all of eight hexadecimal digits behind the magic word.
const FIELDS: usize = 13;
const HEADER: usize = 6 + FIELDS * 8;
/// The longest name that the kernel takes (`PATH_MAX`).
const LONGEST_NAME: u32 = 4096;
const KIND: u32 = 0o170_000;

/// Something in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path, as it stands there.
    pub path: PathBuf,
    /// Kind and permission bits, as in stat(2).
    pub mode: u32,
    /// Owner's number.
    pub uid: u32,
    /// Group's number.
    pub gid: u32,
    /// Length of its content in bytes.
    pub bytes: u32,
}

impl Entry {
    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.mode & KIND == FILE
    }
}

/// Goes through one archive to its end. `see` gets each entry and its content; of a file that is longer than `limit` it
/// gets none.
///
/// # Errors
/// When the source cannot be read, ends too early, or is no such archive.
pub fn walk(from: &mut dyn Read, limit: u32, mut see: impl FnMut(Entry, Option<&[u8]>)) -> io::Result<()> {
    loop {
        let mut header = [0; HEADER];
        from.read_exact(&mut header)?;
        let number = |field: usize| number(&header[6 + field * 8..14 + field * 8]);
        // With or without checksums, which nobody holds anything against.
        if !matches!(&header[..6], b"070701" | b"070702") {
            return Err(wrong("no header where one should be"));
        }
        let (bytes, name_length) = (number(6)?, number(11)?);
        if !(1..=LONGEST_NAME).contains(&name_length) {
            return Err(wrong("a name without end"));
        }
        let mut name = vec![0; as_size(name_length)];
        from.read_exact(&mut name)?;
        skip(from, padding(HEADER + name.len()))?;
        if name.pop() != Some(0) {
            return Err(wrong("a name without end"));
        }
        if name == END.as_bytes() {
            return Ok(());
        }
        let path = PathBuf::from(OsString::from_vec(name));
        let entry = Entry { path, mode: number(1)?, uid: number(2)?, gid: number(3)?, bytes };
        if bytes > limit {
            skip(from, bytes.into())?;
            see(entry, None);
        } else {
            let mut content = vec![0; as_size(bytes)];
            from.read_exact(&mut content)?;
            see(entry, Some(&content));
        }
        skip(from, padding(as_size(bytes)))?;
    }
}

fn as_size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn number(digits: &[u8]) -> io::Result<u32> {
    let text = std::str::from_utf8(digits).ok();
    text.and_then(|text| u32::from_str_radix(text, 16).ok())
        .ok_or_else(|| wrong("no number where one should be"))
}

fn padding(length: usize) -> u64 {
    (length.next_multiple_of(4) - length) as u64
}

fn skip(from: &mut dyn Read, bytes: u64) -> io::Result<()> {
    let skipped = io::copy(&mut from.take(bytes), &mut io::sink())?;
    if skipped == bytes { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::super::Archive;
    use super::*;

    proptest! {
        #[test]
        fn what_was_packed_is_read(files in prop::collection::btree_map("[a-z]{1,9}", prop::collection::vec(any::<u8>(), 0..99), 0..9), limit in 0..120_u32) {
            let mut archive = Archive::default();
            for (name, content) in &files {
                archive.file(Path::new(name), false, content).unwrap();
            }
            let (bytes, mut found) = (archive.finish().unwrap(), Vec::new());
            let mut rest = bytes.as_slice();
            walk(&mut rest, limit, |entry, content| found.push((entry, content.map(<[u8]>::to_vec)))).unwrap();
            prop_assert!(rest.is_empty());
            for ((entry, seen), (name, content)) in found.iter().zip(&files) {
                prop_assert_eq!((entry.path.to_str(), entry.bytes as usize), (Some(name.as_str()), content.len()));
                prop_assert_eq!(seen.as_ref(), (entry.bytes <= limit).then_some(content));
                prop_assert!(entry.is_file());
            }
            prop_assert_eq!(found.len(), files.len());
        }

        #[test]
        fn anything_ends(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in any::<prop::sample::Index>()) {
            let _ = walk(&mut bytes.as_slice(), 100, |_, _| {});
            let mut archive = Archive::default();
            archive.file(Path::new("a/b"), false, &bytes).unwrap();
            let whole = archive.finish().unwrap();
            let cut = cut.index(whole.len());
            let ended = walk(&mut &whole[..cut], 100, |_, _| {});
            prop_assert!(ended.is_err());
        }
    }
}
