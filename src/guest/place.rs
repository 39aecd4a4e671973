//! Places and marks of files that are there: mode, owner, times, moving and copying.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fchmod, fstat, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown};

use super::change::NewFile;
use super::flags::with_attributes_lifted;
use super::labels;
use super::write::{Marks, copy_attributes};
use super::{FileKind, GuestRoot};
use crate::error::{Context, Error, Result};

/// What is copied at once, in bytes. As many zeros in a row become a hole.
const BLOCK: usize = 64 << 10;

impl GuestRoot {
    /// Opens a file or folder that is no link, to set what stands in its inode.
    fn open_to_mark(&self, path: &Path) -> Result<OwnedFd> {
        let entry = self.lookup(path)?;
        let kind = entry.ok_or_else(|| gone(path))?.kind;
        if !matches!(kind, FileKind::File | FileKind::Folder) {
            return Err(Error::unsupported(format!(
                "{} in the guest is neither a file nor a folder",
                path.display()
            ))
            .hint("only files and folders can be given another mode, owner or time"));
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        self.open_existing(path, flags)?.ok_or_else(|| gone(path))
    }

    pub(super) fn set_mode(&self, path: &Path, mode: u32) -> Result<()> {
        let file = self.open_to_mark(path)?;
        with_attributes_lifted(&[&file], || fchmod(&file, Mode::from_bits_truncate(mode)))
            .context(|| format!("cannot set the mode of {} in the guest", path.display()))
    }

    pub(super) fn set_owner(&self, path: &Path, uid: u32, gid: u32) -> Result<()> {
        let file = self.open_to_mark(path)?;
        with_attributes_lifted(&[&file], || fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))))
            .context(|| format!("cannot set the owner of {} in the guest", path.display()))
    }

    pub(super) fn touch(&self, path: &Path) -> Result<()> {
        self.set_times(path, TimeSpec::UTIME_NOW, TimeSpec::UTIME_NOW)
    }

    pub(super) fn set_modified(&self, path: &Path, seconds: i64) -> Result<()> {
        self.set_times(path, TimeSpec::UTIME_OMIT, TimeSpec::new(seconds, 0))
    }

    fn set_times(&self, path: &Path, access: TimeSpec, modified: TimeSpec) -> Result<()> {
        let file = self.open_to_mark(path)?;
        with_attributes_lifted(&[&file], || futimens(&file, &access, &modified))
            .context(|| format!("cannot set the times of {} in the guest", path.display()))
    }

    /// Renames; where that goes to another filesystem, or the kernel's Landlock knows no move between folders, the
    /// file is copied and then removed.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let failed = || format!("cannot move {} to {} in the guest", from.display(), to.display());
        let (old, old_name) = self.parent(from)?.ok_or_else(|| Error::failed(failed()))?;
        let (new, new_name) =
            self.parent(to)?.ok_or_else(|| Error::failed(failed()).hint("its new folder is missing"))?;
        let file = self.open_to_mark(from).ok();
        let files: Vec<&OwnedFd> = file.iter().chain([&old, &new]).collect();
        let renamed = with_attributes_lifted(&files, || {
            nix::fcntl::renameat(&old, old_name.as_os_str(), &new, new_name.as_os_str())
        });
        match renamed {
            Err(Errno::EXDEV) => {
                self.copy(from, to)?;
                self.remove_tree(from)
            }
            renamed => renamed.context(failed),
        }?;
        self.relabel_moved(from, to)
    }

    pub(super) fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        self.copy_one(from, to)?;
        if self.lookup(from)?.is_none_or(|entry| entry.kind != FileKind::Folder) {
            return Ok(());
        }
        // Times of a folder change with what is put into it, so they come last.
        let mut folders = vec![(from.to_path_buf(), to.to_path_buf())];
        self.walk(from, |item| {
            let (one, other) = (from.join(item.below), to.join(item.below));
            self.copy_one(&one, &other)?;
            if item.kind.is_dir() {
                folders.push((one, other));
            }
            Ok(())
        })?;
        folders.iter().rev().try_for_each(|(one, other)| self.keep_times(one, other))
    }

    fn copy_one(&self, from: &Path, to: &Path) -> Result<()> {
        let failed = || format!("cannot copy {} to {} in the guest", from.display(), to.display());
        let entry = self.lookup(from)?.ok_or_else(|| gone(from))?;
        let new = NewFile::like(&entry);
        match entry.kind {
            FileKind::Folder => {
                self.make_folder(to, new)?;
                let (one, other) = (self.open_to_mark(from)?, self.open_to_mark(to)?);
                copy_attributes(&one, &other, but_the_label).context(failed)
            }
            FileKind::File => {
                let file = self.open_file(from)?.ok_or_else(|| gone(from))?;
                let body = &mut |copy: &mut File| copy_content(&file, copy).context(failed);
                self.write_over(to, body, new, Marks::New)?;
                copy_attributes(&file, &self.open_to_mark(to)?, but_the_label).context(failed)?;
                self.keep_times(from, to)
            }
            FileKind::Link => {
                let target = self.read_link(from)?.ok_or_else(|| gone(from))?;
                self.link(to, &target)
            }
            FileKind::Special => Err(Error::unsupported(failed())
                .hint("it is a device, a FIFO or a socket, which the confined worker may not make")),
        }
    }

    fn keep_times(&self, from: &Path, to: &Path) -> Result<()> {
        let stat = fstat(self.open_to_mark(from)?)
            .context(|| format!("cannot examine {} in the guest", from.display()))?;
        let access = TimeSpec::new(stat.st_atime, stat.st_atime_nsec);
        self.set_times(to, access, TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec))
    }
}

/// A copy is a new file: its label is that of its place.
fn but_the_label(attribute: &[u8]) -> bool {
    attribute != labels::ATTRIBUTE.as_bytes()
}

/// Copies a file's bytes; blocks of zeros become holes.
fn copy_content(from: &OwnedFd, to: &mut File) -> std::io::Result<()> {
    let mut from = File::from(from.as_fd().try_clone_to_owned()?);
    let (mut block, mut length) = (vec![0; BLOCK], 0);
    loop {
        let read = from.read(&mut block)?;
        if read == 0 {
            return to.set_len(length);
        }
        length += read as u64;
        if block[..read].iter().all(|byte| *byte == 0) {
            to.seek(SeekFrom::Start(length))?;
        } else {
            to.write_all(&block[..read])?;
        }
    }
}

fn gone(path: &Path) -> Error {
    Error::failed(format!("{} is not in the guest", path.display()))
}
