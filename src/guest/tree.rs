//! Removing: one name, or a folder with all below it. One folder is open at a time and there is no recursion: a guest
//! may nest more deeply than a process may have open files.

#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::libc::{dev_t, ino_t};
use nix::sys::stat::{Mode, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::flags::with_attributes_lifted;
use super::{Entry, FileKind, names_in};

/// A folder that is being emptied.
struct Level {
    name: OsString,
    left: Vec<OsString>,
    id: (dev_t, ino_t),
}

impl Level {
    fn read(dir: &OwnedFd, name: OsString) -> nix::Result<Self> {
        Ok(Self { name, left: names_in(open_folder(dir, OsStr::new("."))?)?, id: identity(dir)? })
    }
}

fn open_folder(at: &OwnedFd, name: &OsStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

fn identity(dir: &OwnedFd) -> nix::Result<(dev_t, ino_t)> {
    fstat(dir).map(|stat| (stat.st_dev, stat.st_ino))
}

/// Back to the folder above, which must be the one we came from: a folder that was moved away meanwhile has another.
fn climb(dir: &OwnedFd, id: (dev_t, ino_t)) -> nix::Result<OwnedFd> {
    let above = open_folder(dir, OsStr::new(".."))?;
    if identity(&above)? == id { Ok(above) } else { Err(Errno::ESTALE) }
}

/// Removes `name` in `folder` with all below; links are removed, not followed.
pub(super) fn remove_below(folder: &OwnedFd, name: OsString) -> nix::Result<()> {
    if !is_folder(folder, &name)? {
        return unlink_lifting(folder, &name, UnlinkatFlags::NoRemoveDir);
    }
    let mut here = open_folder(folder, &name)?;
    let mut levels = vec![Level::read(&here, name)?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.left.pop() {
            if is_folder(&here, &name)? {
                here = open_folder(&here, &name)?;
                levels.push(Level::read(&here, name)?);
            } else {
                unlink_lifting(&here, &name, UnlinkatFlags::NoRemoveDir)?;
            }
        } else if let Some(empty) = levels.pop() {
            let Some(level) = levels.last() else {
                return unlink_lifting(folder, &empty.name, UnlinkatFlags::RemoveDir);
            };
            here = climb(&here, level.id)?;
            unlink_lifting(&here, &empty.name, UnlinkatFlags::RemoveDir)?;
        }
    }
    Ok(())
}

fn is_folder(folder: &OwnedFd, name: &OsStr) -> nix::Result<bool> {
    match fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT | Errno::ENAMETOOLONG) => Ok(false),
        stat => Ok(Entry::new(PathBuf::new(), &stat?).kind == FileKind::Folder),
    }
}

/// Unlinks; what is already gone is no error. Attributes are lifted off the file (not a special) and its folder.
pub(super) fn unlink_lifting(folder: &OwnedFd, name: &OsStr, flag: UnlinkatFlags) -> nix::Result<()> {
    let unlink = || unlinkat(folder, name, flag);
    let result = match unlink() {
        Err(Errno::EPERM) => {
            let stat = fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            let kind = Entry::new(PathBuf::new(), &stat).kind;
            let file = if matches!(kind, FileKind::File | FileKind::Folder) {
                let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
                Some(openat(folder, name, flags, Mode::empty())?)
            } else {
                None
            };
            let files: Vec<&OwnedFd> = file.iter().chain([folder]).collect();
            with_attributes_lifted(&files, unlink)
        }
        result => result,
    };
    if matches!(result, Err(Errno::ENOENT | Errno::ENAMETOOLONG)) { Ok(()) } else { result }
}
