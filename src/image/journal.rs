//! The journal of a commit, `.NAME.guestseal-journal` beside the image's seat ([`super::place`]): while it stands, the image
//! may be half written, and the journal has all that is needed to finish.
//!
//! Its text: a first line `guestseal-journal 1 SHA256 BYTES`, then so many bytes of JSON with that digest. When the
//! image is whole, the line `written SECONDS NANOSECONDS BYTES` (its stamp) is appended; a torn one counts as none.
//!
//! Of a guest with several disks each has one. That of the first decides: it is written last and removed first, and the
//! others count only while it stands.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::format::Format;
use super::identity::{Identity, ImageIdentity, Stamp, hexadecimal};
use super::past::Past;
use crate::error::{Context, Error, Result};

/// The most that is read of a journal; it holds the record.
const LIMIT: u64 = 64 << 20;
const MAGIC: &str = "guestseal-journal 1 ";
const WRITTEN: &str = "written ";

/// What a journal says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Entry {
    /// That of a guest's first disk, or its only one.
    First(FirstEntry),
    /// That of another disk.
    Other(OtherEntry),
}

/// What is needed to finish a commit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct FirstEntry {
    /// The image.
    pub image: ImageIdentity,
    /// Its format.
    pub format: Format,
    /// The overlay that is written into it.
    pub overlay: Identity,
    /// Whether the record gets a digest of the image.
    pub digest: bool,
    /// The record of the sealing, but for that digest.
    pub record: Value,
    /// What becomes of the image's past.
    #[serde(default, skip_serializing_if = "Past::is_refused")]
    pub past: Past,
    /// The guest's other disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Group>,
}

/// The disks that are committed together with a first one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Group {
    /// What no other commit is called.
    pub id: String,
    /// Their images: names where they are in the folder of the first, absolute paths otherwise.
    pub others: Vec<PathBuf>,
}

/// What is needed of a disk that is not the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct OtherEntry {
    /// The image.
    pub image: ImageIdentity,
    /// Its format.
    pub format: Format,
    /// The overlay that is written into it.
    pub overlay: Identity,
    /// What becomes of the image's past.
    #[serde(default, skip_serializing_if = "Past::is_refused")]
    pub past: Past,
    /// Whose journal decides.
    pub first: First,
}

/// The first disk, as the journals of the others know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct First {
    /// Its image: a name where it is in the same folder, an absolute path otherwise.
    pub path: PathBuf,
    /// The file.
    pub file: Identity,
    /// What their commit is called.
    pub group: String,
}

/// A journal that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Journal {
    /// What it is about.
    pub entry: Entry,
    /// The image's stamp when it was whole; None while it may be half written.
    pub written: Option<Stamp>,
    /// Its length in bytes, without a torn last line.
    pub bytes: u64,
}

/// The name of an image's journal.
pub fn path_of(image: &Path) -> PathBuf {
    beside(image, "journal")
}

/// The name of a file that guestseal keeps beside an image.
pub(super) fn beside(image: &Path, what: &str) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(image.file_name().unwrap_or_default());
    name.push(format!(".guestseal-{what}"));
    image.with_file_name(name)
}

impl Entry {
    /// The image that it is about, its format, its overlay, and what becomes of its past.
    pub fn disk(&self) -> (&ImageIdentity, Format, &Identity, Past) {
        match self {
            Self::First(FirstEntry { image, format, overlay, past, .. })
            | Self::Other(OtherEntry { image, format, overlay, past, .. }) => {
                (image, *format, overlay, *past)
            }
        }
    }

    /// The text of a journal that begins.
    ///
    /// # Errors
    /// When it is too large.
    pub fn print(&self) -> Result<Vec<u8>> {
        let body = serde_json::to_vec(self).context(|| "cannot write the journal as JSON")?;
        if body.len() as u64 + 256 > LIMIT {
            return Err(Error::unsupported(format!("the record of this sealing has {} bytes", body.len())));
        }
        let mut text = format!("{MAGIC}{} {}\n", digest(&body), body.len()).into_bytes();
        text.extend(body);
        Ok(text)
    }
}

/// The line that says that the image is whole.
pub fn written_line(stamp: Stamp) -> String {
    let Stamp { seconds, nanoseconds, bytes } = stamp;
    format!("{WRITTEN}{seconds} {nanoseconds} {bytes}\n")
}

impl Journal {
    /// Reads the text of a journal.
    ///
    /// # Errors
    /// When it is not exactly one.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let damaged = |what: &str| Error::failed(format!("it is damaged: {what}"));
        let end = text.iter().take(256).position(|byte| *byte == b'\n');
        let (head, rest) = text.split_at(end.ok_or_else(|| damaged("it has no first line"))?);
        let head = std::str::from_utf8(head).ok().and_then(|head| head.strip_prefix(MAGIC));
        let head = head.ok_or_else(|| damaged("it does not begin like one"))?;
        let (wanted, length) = head.split_once(' ').ok_or_else(|| damaged("its first line is cut off"))?;
        let length: usize = length.parse().map_err(|_| damaged("its length is no number"))?;
        let (body, tail) = rest[1..].split_at_checked(length).ok_or_else(|| damaged("it is cut off"))?;
        if digest(body) != wanted {
            return Err(damaged("its digest differs"));
        }
        let entry = serde_json::from_slice(body).context(|| "it is of another version of guestseal")?;
        let written = parse_written(tail).ok_or_else(|| damaged("it ends in something else"))?;
        let torn = if written.is_some() { 0 } else { tail.len() };
        Ok(Self { entry, written, bytes: (text.len() - torn) as u64 })
    }
}

/// The outer None: neither the line nor the beginning of one.
fn parse_written(tail: &[u8]) -> Option<Option<Stamp>> {
    let text = std::str::from_utf8(tail).ok()?;
    let Some(line) = text.strip_suffix('\n') else {
        let torn = WRITTEN.starts_with(text)
            || text.strip_prefix(WRITTEN).is_some_and(|rest| {
                rest.len() < 64 && rest.chars().all(|c| matches!(c, ' ' | '-' | '0'..='9'))
            });
        return torn.then_some(None);
    };
    let mut numbers = line.strip_prefix(WRITTEN)?.split(' ');
    let seconds = numbers.next()?.parse().ok()?;
    let nanoseconds = numbers.next()?.parse().ok()?;
    let bytes = numbers.next()?.parse().ok()?;
    let stamp = Stamp { seconds, nanoseconds, bytes };
    (numbers.next().is_none() && written_line(stamp).as_bytes() == tail).then_some(Some(stamp))
}

fn digest(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// Opens the journal of an image; None when it has none.
///
/// # Errors
/// When it cannot be opened or read, is damaged, or is not of this user's making.
pub fn load(image: &Path) -> Result<Option<(File, Journal)>> {
    let path = path_of(image);
    let about = |error| refused(image, error);
    let Some(file) = open_own(&path).map_err(about)? else { return Ok(None) };
    let journal = read(&file).map_err(about)?;
    // A torn line may not stand before the whole one.
    file.set_len(journal.bytes).context(|| "its end cannot be cut off").map_err(about)?;
    Ok(Some((file, journal)))
}

/// What the journal of an image says, which is only looked at; None when it has none.
///
/// # Errors
/// As [`load`].
pub fn peek(image: &Path) -> Result<Option<Entry>> {
    let about = |error| refused(image, error);
    let Some(file) = open_own(&path_of(image)).map_err(about)? else { return Ok(None) };
    read(&file).map(|journal| Some(journal.entry)).map_err(about)
}

fn read(file: &File) -> Result<Journal> {
    let mut text = Vec::new();
    file.take(LIMIT).read_to_end(&mut text).context(|| "it cannot be read")?;
    Journal::parse(&text)
}

/// What to say of a journal that cannot be used.
pub fn refused(image: &Path, error: Error) -> Error {
    let path = path_of(image);
    let hint = format!(
        "the image may be half written: bring back what belongs to the journal, or put back a copy of the image and \
        remove {}",
        path.display()
    );
    error.within(format!("cannot use the journal {}", path.display())).hint(hint)
}

/// Opens a regular file that only this user can have written; None when there is none.
///
/// # Errors
/// When it is anything else: in a folder that others write to, they may have put it there.
pub(super) fn open_own(path: &Path) -> Result<Option<File>> {
    let opened = File::options().read(true).append(true).custom_flags(O_NOFOLLOW | O_NONBLOCK).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::failed(format!("cannot open {}", path.display())).caused_by(error)),
    };
    let metadata = file.metadata().context(|| format!("cannot examine {}", path.display()))?;
    let own = metadata.uid() == nix::unistd::geteuid().as_raw() && metadata.mode() & 0o022 == 0;
    if !metadata.is_file() || !own || metadata.nlink() > 1 {
        return Err(Error::failed(format!("{} is not of guestseal's making", path.display())));
    }
    Ok(Some(file))
}

/// Says in the journal that the image is whole, permanently.
///
/// # Errors
/// When that cannot be written.
pub fn mark_written(journal: &mut File, stamp: Stamp) -> Result<()> {
    journal
        .write_all(written_line(stamp).as_bytes())
        .and_then(|()| journal.sync_data())
        .context(|| "cannot write to the journal")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const STAMP: Stamp = Stamp { seconds: 1_790_000_000, nanoseconds: 5, bytes: 4096 };

    fn entry() -> Entry {
        let file = Identity { device: 1, inode: 2, boot: "b".into(), unit: None };
        let image = ImageIdentity { file: file.clone(), bytes: 4096, header: "00".into(), grows: None };
        Entry::First(first(image, file))
    }

    fn first(image: ImageIdentity, overlay: Identity) -> FirstEntry {
        FirstEntry {
            image,
            format: Format::Raw,
            overlay,
            digest: true,
            record: json!({"a": [1]}),
            past: Past::default(),
            group: None,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut text = entry().print().unwrap();
        let journal = Journal::parse(&text).unwrap();
        assert_eq!(journal, Journal { entry: entry(), written: None, bytes: text.len() as u64 });
        text.extend(written_line(STAMP).bytes());
        assert_eq!(Journal::parse(&text).unwrap().written, Some(STAMP));
    }

    #[test]
    fn what_becomes_of_the_past_is_read_where_it_is_said() {
        let past = Past { drop_snapshots: true, ..Past::default() };
        let file = Identity { device: 1, inode: 2, boot: "b".into(), unit: None };
        let (image, overlay) =
            (ImageIdentity { file: file.clone(), bytes: 1, header: "0".into(), grows: None }, file);
        let said = Entry::First(FirstEntry { past, ..first(image, overlay) }).print().unwrap();
        assert_eq!(Journal::parse(&said).unwrap().entry.disk().3, past);
        // As a guestseal that knew nothing of it, and nothing of several disks, wrote it.
        let text = String::from_utf8(entry().print().unwrap()).unwrap();
        assert!(!text.contains("past") && !text.contains("group"), "{text}");
    }

    #[test]
    fn the_disks_of_one_guest_name_each_other() {
        let file = Identity { device: 1, inode: 2, boot: "b".into(), unit: None };
        let image = ImageIdentity { file: file.clone(), bytes: 4096, header: "00".into(), grows: None };
        let group = Group { id: "1f".into(), others: vec!["b.img".into(), "/c/d.qcow2".into()] };
        let one = Entry::First(FirstEntry { group: Some(group), ..first(image.clone(), file.clone()) });
        let first = First { path: "a.img".into(), file: file.clone(), group: "1f".into() };
        let past = Past::default();
        let other = Entry::Other(OtherEntry { image, format: Format::Qcow2, overlay: file, past, first });
        for entry in [one, other] {
            assert_eq!(Journal::parse(&entry.print().unwrap()).unwrap().entry, entry);
        }
    }

    #[test]
    fn a_torn_last_line_is_none() {
        let body = entry().print().unwrap();
        let line = written_line(STAMP);
        for end in 0..line.len() {
            let journal = Journal::parse(&[&body, &line.as_bytes()[..end]].concat()).unwrap();
            assert_eq!((journal.written, journal.bytes), (None, body.len() as u64), "{end}");
        }
    }

    #[test]
    fn damage_is_refused() {
        let body = entry().print().unwrap();
        for end in 0..body.len() {
            assert!(Journal::parse(&body[..end]).is_err(), "cut off after {end} bytes");
        }
        for tail in [
            "x",
            "written",
            "written 1 2\n",
            "written 1 2 3 4\n",
            "written 01 2 3\n",
            "\n",
            "written 1 2 3\nx",
        ] {
            let parsed = Journal::parse(&[&body, tail.as_bytes()].concat());
            assert!(parsed.is_err() || tail == "written", "{tail:?}");
        }
        let other = String::from_utf8(body).unwrap().replace("journal 1", "journal 2");
        assert!(Journal::parse(other.as_bytes()).unwrap_err().chain().contains("does not begin like one"));
    }

    proptest! {
        #[test]
        fn any_changed_byte_of_it_is_seen(at in any::<prop::sample::Index>(), value in any::<u8>()) {
            let mut text = entry().print().unwrap();
            let at = at.index(text.len());
            prop_assume!(text[at] != value);
            text[at] = value;
            prop_assert!(Journal::parse(&text).is_err());
        }

        #[test]
        fn any_text_ends_in_an_answer(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Journal::parse(&tail);
            let _ = Journal::parse(&[MAGIC.as_bytes(), &tail].concat());
        }
    }
}
