//! Files and folders of the host.

#![forbid(unsafe_code)]

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::{Gathered, Source};
use crate::action::brought::{Item, ItemKind};
use crate::error::{Context, Error, ErrorKind, Result};

/// One regular file, links followed.
pub(super) fn look_at_file(path: &Path, gathered: &mut Gathered) -> Result<()> {
    let metadata = fs::metadata(path).context_kind(ErrorKind::Usage, || "cannot find it")?;
    if !metadata.is_file() {
        return Err(Error::usage("it is not a regular file"));
    }
    let number = gathered.number(Source::whole(path, &metadata)?)?;
    gathered.add(item(PathBuf::new(), ItemKind::File(number), &metadata))
}

/// A file or folder with all below, under its own name; links stay links.
pub(super) fn look(path: &Path, gathered: &mut Gathered) -> Result<()> {
    let real = path.canonicalize().context_kind(ErrorKind::Usage, || "cannot find it")?;
    let name = path.file_name().or_else(|| real.file_name()).map(PathBuf::from);
    let name = name.ok_or_else(|| Error::usage("it has no name that it could have in the guest"))?;
    for entry in WalkDir::new(path).sort_by_file_name() {
        let entry = entry.context_kind(ErrorKind::Usage, || "cannot read what is in it")?;
        let cannot = || format!("cannot examine {}", entry.path().display());
        let metadata = entry.metadata().context_kind(ErrorKind::Usage, cannot)?;
        let below = entry.path().strip_prefix(path).context(cannot)?;
        let below = if below.as_os_str().is_empty() { name.clone() } else { name.join(below) };
        let kind = if metadata.is_file() {
            ItemKind::File(gathered.number(Source::whole(entry.path(), &metadata)?)?)
        } else if metadata.is_dir() {
            ItemKind::Folder
        } else if metadata.is_symlink() {
            ItemKind::Link(fs::read_link(entry.path()).context_kind(ErrorKind::Usage, cannot)?)
        } else {
            let what = format!("{} is a device, a FIFO or a socket", entry.path().display());
            return Err(Error::usage(what).hint("only files, folders and links can be brought into a guest"));
        };
        gathered.add(item(below, kind, &metadata))?;
    }
    Ok(())
}

fn item(below: PathBuf, kind: ItemKind, metadata: &Metadata) -> Item {
    let (mode, uid, gid) = (metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
    Item { below, kind, mode, uid, gid, modified: Some(metadata.mtime()) }
}
