//! Tar files of the host. Only their headers are read here; the files in them are parts of the tar file.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{Read as _, Seek as _};
use std::path::{Component, Path, PathBuf};

use tar::{Archive, Entry, EntryType};

use super::{Gathered, Source};
use crate::action::brought::{Item, ItemKind};
use crate::error::{Context, Error, ErrorKind, Result};

/// First bytes of compressed files, and how each is unpacked.
const PACKED: [(&[u8], &str); 4] =
    [(b"\x1f\x8b", "gunzip"), (b"BZh", "bunzip2"), (b"\xfd7zXZ", "unxz"), (b"\x28\xb5\x2f\xfd", "unzstd")];

pub(super) fn look(path: &Path, gathered: &mut Gathered) -> Result<()> {
    let mut file = File::open(path).context_kind(ErrorKind::Usage, || "cannot read it")?;
    let metadata = file.metadata().context_kind(ErrorKind::Usage, || "cannot examine it")?;
    if !metadata.is_file() {
        return Err(Error::usage("it is not a regular file"));
    }
    let mut head = Vec::new();
    let read = (&mut file).take(8).read_to_end(&mut head).and_then(|_| file.rewind());
    read.context_kind(ErrorKind::Usage, || "cannot read it")?;
    if let Some((_, tool)) = PACKED.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Err(
            Error::usage("it is compressed, and a plain tar file is wanted").hint(format!("{tool} it first"))
        );
    }
    let mut archive = Archive::new(file);
    let broken = || "it is no whole tar file";
    // Where each file's content is, for hard links to it.
    let mut known = BTreeMap::new();
    for entry in archive.entries_with_seek().context_kind(ErrorKind::Usage, broken)? {
        let entry = entry.context_kind(ErrorKind::Usage, broken)?;
        let name = entry.path().context_kind(ErrorKind::Usage, broken)?.into_owned();
        if let Some(item) = item(&entry, &name, (path, &metadata), (&mut known, gathered))
            .map_err(|error| error.within(format!("its entry {}", name.display())))?
        {
            gathered.add(item)?;
        }
    }
    Ok(())
}

fn item(
    entry: &Entry<'_, File>,
    name: &Path,
    (path, metadata): (&Path, &Metadata),
    (known, gathered): (&mut BTreeMap<PathBuf, u32>, &mut Gathered),
) -> Result<Option<Item>> {
    let broken = || "its header is damaged";
    let below = inside(name)?;
    let kind = match entry.header().entry_type() {
        EntryType::Regular | EntryType::Continuous => {
            let part = (entry.raw_file_position(), entry.size());
            let number = gathered.number(Source::part(path, metadata, part)?)?;
            known.insert(below.clone(), number);
            ItemKind::File(number)
        }
        EntryType::Directory => ItemKind::Folder,
        EntryType::Symlink => ItemKind::Link(target(entry)?),
        // The guest gets a file of its own.
        EntryType::Link => match known.get(&inside(&target(entry)?)?) {
            Some(number) => ItemKind::File(*number),
            None => return Err(Error::usage("it is a hard link to something that does not come before it")),
        },
        EntryType::XGlobalHeader | EntryType::XHeader => return Ok(None),
        kind => {
            return Err(Error::usage(format!("it is of a kind ({kind:?}) that cannot be brought"))
                .hint("only files, folders and links can be brought into a guest"));
        }
    };
    let header = entry.header();
    let number = |read: std::io::Result<u64>| -> Result<u32> {
        let number = read.context_kind(ErrorKind::Usage, broken)?;
        u32::try_from(number).context_kind(ErrorKind::Usage, broken)
    };
    let time = header.mtime().context_kind(ErrorKind::Usage, broken)?;
    Ok(Some(Item {
        below,
        kind,
        mode: header.mode().context_kind(ErrorKind::Usage, broken)? & 0o7777,
        uid: number(header.uid())?,
        gid: number(header.gid())?,
        modified: i64::try_from(time).ok(),
    }))
}

fn target(entry: &Entry<'_, File>) -> Result<PathBuf> {
    let name = entry.link_name().context_kind(ErrorKind::Usage, || "its link is damaged")?;
    name.map(|name| name.into_owned()).ok_or_else(|| Error::usage("it is a link that leads nowhere"))
}

/// The name below the place where all goes: what tar files begin with, `/` and `./`, means nothing there.
fn inside(name: &Path) -> Result<PathBuf> {
    if name.components().any(|part| part == Component::ParentDir) {
        return Err(Error::usage("its name has `..`, so it could go elsewhere"));
    }
    Ok(name.components().filter(|part| matches!(part, Component::Normal(_))).collect())
}
