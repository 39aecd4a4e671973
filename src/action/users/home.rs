//! A new home folder, as the guest's skeleton of one is.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use crate::action::View;
use crate::action::steps::folders;
use crate::error::{Error, Result};
use crate::guest::FileKind;
use crate::guest::change::{Change, Content, NewFile};

/// More files, folders and links than this in a skeleton are none.
const MOST_FILES: u64 = 10_000;
/// More bytes than these are no skeleton either: each file of it is held in memory.
const MOST_BYTES: u64 = 64 << 20;

/// What makes the home, with all above it that is missing; nothing when something is there.
pub(super) fn make(
    home: &Path,
    skel: &Path,
    (uid, gid): (u32, u32),
    mode: u32,
    view: View<'_>,
) -> Result<Vec<Change>> {
    if view.root.resolve(home)?.is_some() {
        return Ok(Vec::new());
    }
    let mut changes = folders(home.parent().unwrap_or(home), view)?;
    changes.push(Change::Folder { path: home.to_path_buf(), new: NewFile { mode, uid, gid } });
    let (files, bytes) = view.root.measure(skel)?;
    if files > MOST_FILES || bytes > MOST_BYTES {
        return Err(Error::unsupported(format!(
            "{} in the guest has {files} files with {bytes} bytes, too many to make a home of",
            skel.display()
        ))
        .hint("empty it in the guest"));
    }
    let mut below: Vec<PathBuf> = Vec::new();
    view.root.walk(skel, |item| {
        below.push(item.below.to_path_buf());
        Ok(())
    })?;
    below.sort_unstable();
    for name in below {
        let (from, path) = (skel.join(&name), home.join(&name));
        let Some(entry) = view.root.lookup(&from)? else { continue };
        let new = NewFile { mode: entry.mode, uid, gid };
        match entry.kind {
            FileKind::Folder => changes.push(Change::Folder { path, new }),
            FileKind::File => {
                let content = Content(view.root.read(&from)?.unwrap_or_default());
                changes.push(Change::Replace { path, content, new });
            }
            FileKind::Link => {
                changes.extend(view.root.read_link(&from)?.map(|target| Change::Link { path, target }));
            }
            FileKind::Special => {}
        }
    }
    Ok(changes)
}
