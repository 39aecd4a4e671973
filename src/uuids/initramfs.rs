//! New UUIDs in an initramfs: what names old ones there is put behind it once more, mended, in an archive of its own. The
//! kernel unpacks one archive after the other, and the later file wins
//! (Documentation/driver-api/early-userspace/buffer-format.rst). Nothing that is there is touched. Pure.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};
use std::path::PathBuf;

use flate2::bufread::GzDecoder;
use ruzstd::decoding::StreamingDecoder;

use super::mend::Mender;
use crate::cpio::Archive;
use crate::cpio::read::{Entry, walk};
use crate::error::Result;

/// The longest file that is looked into: configuration is short.
const TEXT_LIMIT: u32 = 1 << 20;
/// How much an initramfs may be when it is unpacked: Documentation/filesystems/ramfs-rootfs-initramfs.rst puts it into memory.
const LIMIT: u64 = 4 << 30;

/// What is to become of an initramfs.
#[derive(Debug, PartialEq, Eq)]
pub enum Mended {
    /// It names no old UUID.
    Nothing,
    /// This comes behind it, at the next multiple of four bytes.
    Segment(Vec<u8>),
    /// It is packed in a way that is not known here, or is damaged.
    Unread(String),
}

/// Looks for old UUIDs in the files of an initramfs.
///
/// # Errors
/// When what is to be put behind it is too long.
pub fn mended(mut file: impl BufRead, mender: &Mender) -> Result<Mended> {
    let mut found = Found { mender, files: BTreeMap::new() };
    if let Err(error) = found.segments(&mut file) {
        return Ok(Mended::Unread(error.to_string()));
    }
    let mut archive = Archive::default();
    let mut mended = found.files.into_values().flatten().peekable();
    if mended.peek().is_none() {
        return Ok(Mended::Nothing);
    }
    mended.try_for_each(|(entry, content)| archive.over(&entry, &content))?;
    archive.finish().map(Mended::Segment)
}

struct Found<'a> {
    mender: &'a Mender,
    /// By path, as each is in the end: with its mended content when it names an old UUID.
    files: BTreeMap<PathBuf, Option<(Entry, Vec<u8>)>>,
}

impl Found<'_> {
    /// One archive after the other, each packed by itself, with zeros between them.
    fn segments(&mut self, file: &mut impl BufRead) -> io::Result<()> {
        while let Some(magic) = next(file)? {
            match magic {
                [b'0', b'7', ..] => self.archive(file)?,
                [0x1f, 0x8b, ..] => self.unpacked(GzDecoder::new(&mut *file))?,
                [0x28, 0xb5, 0x2f, 0xfd] => {
                    let decoder = StreamingDecoder::new(&mut *file).map_err(io::Error::other)?;
                    self.unpacked(decoder)?;
                }
                _ => return Err(io::Error::other("it is packed by something else than gzip or zstd")),
            }
        }
        Ok(())
    }

    fn unpacked(&mut self, from: impl Read) -> io::Result<()> {
        let mut from = io::BufReader::new(from.take(LIMIT));
        while next(&mut from)?.is_some() {
            self.archive(&mut from)?;
        }
        Ok(())
    }

    fn archive(&mut self, from: &mut dyn Read) -> io::Result<()> {
        walk(from, TEXT_LIMIT, |entry, content| {
            let content = content.filter(|content| entry.is_file() && !content.contains(&0));
            let mended = content.and_then(|content| self.mender.mend(content));
            let path = entry.path.clone();
            self.files.insert(path, mended.map(|content| (entry, content)));
        })
    }
}

/// Passes zeros over; the four bytes behind them, which stay there, or none at the end.
fn next(from: &mut impl BufRead) -> io::Result<Option<[u8; 4]>> {
    loop {
        let buffer = from.fill_buf()?;
        let zeros = buffer.iter().take_while(|byte| **byte == 0).count();
        match buffer.get(zeros..) {
            None | Some([]) if buffer.is_empty() => return Ok(None),
            None | Some([]) => from.consume(zeros),
            Some(rest) => {
                let mut magic = [0; 4];
                magic.iter_mut().zip(rest).for_each(|(to, byte)| *to = *byte);
                from.consume(zeros);
                return Ok(Some(magic));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};

    use super::super::{Form, NewUuid};
    use super::*;

    const OLD: &str = "0b8ef3a5-3b6f-4f3f-9d2f-5b3f1f1d9b10";
    const NEW: &str = "11111111-2222-4333-8444-555555555555";

    fn mender() -> Mender {
        let uuid = NewUuid { what: "it".into(), form: Form::Plain, old: OLD.into(), new: NEW.into() };
        Mender::new(&[uuid]).unwrap()
    }

    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let mut archive = Archive::default();
        for (path, content) in files {
            archive.file(Path::new(path), false, content.as_bytes()).unwrap();
        }
        archive.finish().unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn zstd(bytes: &[u8]) -> Vec<u8> {
        compress_to_vec(bytes, CompressionLevel::Fastest)
    }

    /// What a kernel finds in the end.
    fn unpacked(segment: &[u8]) -> Vec<(PathBuf, u32, String)> {
        let (mut rest, mut found) = (segment, Vec::new());
        walk(&mut rest, 4096, |entry, content| {
            found.push((entry.path, entry.mode, String::from_utf8(content.unwrap().to_vec()).unwrap()));
        })
        .unwrap();
        found
    }

    #[test]
    fn what_names_the_old_one_comes_once_more_behind_it() {
        let early = archive(&[("kernel/x86/microcode/GenuineIntel.bin", OLD)]);
        let crypttab = format!("root UUID={OLD} none luks\n");
        let main = archive(&[
            ("cryptroot/crypttab", &crypttab),
            ("init", "#!/bin/sh\n"),
            ("conf/conf.d/resume", &format!("RESUME=UUID={OLD}\n")),
            ("bin/program", &format!("\0{OLD}\0")),
        ]);
        let late = archive(&[("conf/conf.d/resume", "RESUME=none\n")]);
        for pack in [<[u8]>::to_vec as fn(&[u8]) -> Vec<u8>, gzip, zstd] {
            // As Debian and Fedora have it: microcode by itself, then all else, packed.
            let mut whole = [early.as_slice(), &[0; 100], &pack(&main), &[0; 3], &pack(&late)].concat();
            let Mended::Segment(segment) = mended(whole.as_slice(), &mender()).unwrap() else { panic!() };
            let new = |text: &str| text.replace(OLD, NEW);
            let expected = [
                (PathBuf::from("cryptroot/crypttab"), 0o100_644, new(&crypttab)),
                (PathBuf::from("kernel/x86/microcode/GenuineIntel.bin"), 0o100_644, NEW.to_owned()),
            ];
            assert_eq!(unpacked(&segment), expected, "neither a program nor what a later file replaces");
            whole.resize(whole.len().next_multiple_of(4), 0);
            whole.extend(segment);
            assert_eq!(mended(whole.as_slice(), &mender()).unwrap(), Mended::Nothing, "a second time");
        }
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let unread = |bytes: &[u8]| matches!(mended(bytes, &mender()).unwrap(), Mended::Unread(_));
        let good = archive(&[("a", OLD)]);
        for pack in [gzip, zstd] {
            let packed = pack(&good);
            assert!(unread(&packed[..packed.len() / 2]));
        }
        assert!(unread(b"\xfd7zXZ\0 and so on") && unread(&good[..good.len() - 9]) && unread(b"x"));
        assert_eq!(mended(&[][..], &mender()).unwrap(), Mended::Nothing);
        assert_eq!(mended(&[0; 9000][..], &mender()).unwrap(), Mended::Nothing);
    }
}
