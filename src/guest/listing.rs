//! Everything in the guest in one fixed order, whatever order the filesystem has.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sys::stat::{FileStat, fstat};
use rustix::fs::{getxattr, listxattr};
use rustix::io::Errno;

use super::walk::{DEEPEST, too_deep};
use super::{Entry, FileKind, GuestRoot};
use crate::error::{Context, Error, Result};

/// The most that Linux gives, of the names together and of one value (linux/limits.h).
const ATTRIBUTE_MAX: usize = 64 << 10;

/// An extended attribute: name and value.
pub(crate) type Attribute = (Vec<u8>, Vec<u8>);

/// One file in the order of [`GuestRoot::list`].
#[derive(Debug)]
pub(crate) struct Listed<'a> {
    /// Its absolute path in the guest.
    pub(crate) path: &'a Path,
    /// What stat(2) says of it.
    pub(crate) stat: FileStat,
    /// Opened by O_PATH only.
    file: OwnedFd,
}

impl Listed<'_> {
    /// Its extended attributes, by name.
    ///
    /// # Errors
    /// When they cannot be read.
    pub(crate) fn attributes(&self) -> Result<Vec<Attribute>> {
        let failed = || format!("cannot read the attributes of {} in the guest", self.path.display());
        // The file itself, a link too: there is no other way to those of a file that is open by O_PATH.
        let door = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let mut names = vec![0; ATTRIBUTE_MAX];
        let length = match listxattr(&door, &mut names) {
            Ok(length) => length,
            Err(Errno::OPNOTSUPP) => 0,
            Err(errno) => return Err(errno).context(failed),
        };
        let mut names: Vec<&[u8]> =
            names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        let read = |name: &[u8]| {
            let mut value = vec![0; ATTRIBUTE_MAX];
            let length = getxattr(&door, name, &mut value).context(failed)?;
            value.truncate(length);
            Ok((name.to_vec(), value))
        };
        names.into_iter().map(read).collect()
    }
}

impl GuestRoot {
    /// Calls `see` for the root folder and all below: a folder before what is in it, the names of a folder in the order
    /// of their bytes. Links are not followed.
    ///
    /// # Errors
    /// When something cannot be read or goes away meanwhile, or folders nest beyond all sense.
    pub(crate) fn list(&self, mut see: impl FnMut(&Listed<'_>) -> Result<()>) -> Result<()> {
        let mut folder = PathBuf::from("/");
        let mut levels = vec![self.listed(&folder, &mut see)?];
        while let Some(names) = levels.last_mut() {
            let Some(name) = names.pop() else {
                levels.pop();
                folder.pop();
                continue;
            };
            folder.push(name);
            if folder.as_os_str().len() > DEEPEST {
                return Err(too_deep(Path::new("/")));
            }
            levels.push(self.listed(&folder, &mut see)?);
        }
        Ok(())
    }

    /// Shows one file, and returns the names in it, the last one first; none when it is no folder.
    fn listed(&self, path: &Path, see: &mut impl FnMut(&Listed<'_>) -> Result<()>) -> Result<Vec<OsString>> {
        let file = self.open_existing(path, OFlag::O_PATH | OFlag::O_NOFOLLOW)?.ok_or_else(|| {
            Error::failed(format!("{} went from the guest while it was read", path.display()))
        })?;
        let stat = fstat(&file).context(|| format!("cannot examine {} in the guest", path.display()))?;
        let is_folder = Entry::new(PathBuf::new(), &stat).kind == FileKind::Folder;
        see(&Listed { path, stat, file })?;
        let mut names = if is_folder { self.names(path)? } else { Vec::new() };
        names.reverse();
        Ok(names)
    }
}
