//! Going through all that is below a folder, however deep it nests: no path that the kernel is given is longer than
//! it takes, and no more than a few folders are open at a time.

#![forbid(unsafe_code)]

use std::fs::FileType;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::libc;
use walkdir::{DirEntry, WalkDir};

use super::GuestRoot;
use crate::error::{Context, Error, Result};

/// One file below a folder.
#[derive(Debug)]
pub(crate) struct Item<'a> {
    /// Its path from the folder.
    pub(crate) below: &'a Path,
    /// What it is.
    pub(crate) kind: FileType,
    entry: &'a DirEntry,
    folder: &'a Path,
    root: &'a GuestRoot,
}

impl Item<'_> {
    /// Its length in bytes; 0 for all but regular files.
    pub(crate) fn bytes(&self) -> Result<u64> {
        if !self.kind.is_file() {
            return Ok(0);
        }
        match self.entry.metadata() {
            Ok(metadata) => Ok(metadata.len()),
            // Too long a path, or gone.
            Err(_) => Ok(self.root.lookup(&self.folder.join(self.below))?.map_or(0, |entry| entry.bytes)),
        }
    }
}

/// Paths that are longer stand for nothing but malice: programs of the guest itself cannot reach them by name.
pub(super) const DEEPEST: usize = 128 << 10;

pub(super) fn too_deep(folder: &Path) -> Error {
    Error::unsupported(format!("folders below {} in the guest nest too deeply", folder.display()))
        .hint("look into the folder in the guest, and take it away there")
}

impl GuestRoot {
    /// Calls `see` for all below `folder`; links are not followed. Nothing when there is no such folder.
    ///
    /// # Errors
    /// When a folder cannot be read, or folders nest beyond all sense.
    pub(crate) fn walk(&self, folder: &Path, mut see: impl FnMut(&Item<'_>) -> Result<()>) -> Result<()> {
        let cannot = || format!("cannot list what is below {} in the guest", folder.display());
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        let mut starts = vec![PathBuf::new()];
        while let Some(start) = starts.pop() {
            let Some(fd) = self.open_existing(&folder.join(&start), flags)? else { continue };
            let door = PathBuf::from(format!("/proc/self/fd/{}/.", fd.as_raw_fd()));
            for item in WalkDir::new(&door).min_depth(1) {
                match item {
                    Ok(entry) => {
                        let below = start.join(entry.path().strip_prefix(&door).context(cannot)?);
                        let kind = entry.file_type();
                        see(&Item { below: &below, kind, entry: &entry, folder, root: self })?;
                    }
                    Err(error) if is_too_long(&error) => {
                        // Its entry was seen; what is below it begins again at a door of its own.
                        let Some(deep) = error.path() else { return Err(error).context(cannot) };
                        let deep = start.join(deep.strip_prefix(&door).context(cannot)?);
                        if deep.as_os_str().len() > DEEPEST {
                            return Err(too_deep(folder));
                        }
                        starts.push(deep);
                    }
                    Err(error) => return Err(error).context(cannot),
                }
            }
        }
        Ok(())
    }
}

fn is_too_long(error: &walkdir::Error) -> bool {
    error.io_error().and_then(std::io::Error::raw_os_error) == Some(libc::ENAMETOOLONG)
}
