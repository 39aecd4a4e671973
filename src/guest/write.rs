//! Writing: each change of [`super::change`] that makes or replaces a file, whole or not at all.

#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, ResolveFlag};
use nix::sys::stat::{Mode, fchmod, fstat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, ftruncate, symlinkat, unlinkat};
use rustix::fs::XattrFlags;

use super::change::{NewFile, Supply};
use super::flags::{keep_attributes, with_attributes_lifted};
use super::labels;
use super::tree::{remove_below, unlink_lifting};
use super::{FileKind, GuestRoot};
use crate::error::{Context, Error, Result};

/// Writes the content of a new file.
pub(super) type Body<'a> = &'a mut dyn FnMut(&mut File) -> Result<()>;

/// Whose owner, mode and attributes a file gets that takes another's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marks {
    /// Those of the file that was there.
    Old,
    /// The new ones; only the label is that of the old file.
    New,
}

impl GuestRoot {
    pub(super) fn remove(&self, path: &Path) -> Result<()> {
        let Some((folder, name)) = self.parent(path)? else { return Ok(()) };
        unlink_lifting(&folder, &name, UnlinkatFlags::NoRemoveDir)
            .context(|| format!("cannot remove {} in the guest", path.display()))
    }

    pub(super) fn remove_tree(&self, path: &Path) -> Result<()> {
        let Some((folder, name)) = self.parent(path)? else { return Ok(()) };
        remove_below(&folder, name).context(|| format!("cannot remove {} in the guest", path.display()))
    }

    pub(super) fn truncate(&self, path: &Path) -> Result<()> {
        let failed = || format!("cannot truncate {} in the guest", path.display());
        let Some(read) = self.open_file(path)? else { return Ok(()) };
        with_attributes_lifted(&[&read], || {
            let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
            ftruncate(self.open_at(path, flags, Mode::empty(), ResolveFlag::empty())?, 0)
        })
        .context(failed)
    }

    pub(super) fn replace(&self, path: &Path, content: &[u8], new: NewFile) -> Result<()> {
        let body = &mut |file: &mut File| file.write_all(content).context(|| "cannot write the new file");
        self.write_over(path, body, new, Marks::Old)
    }

    pub(super) fn append(&self, path: &Path, content: &[u8]) -> Result<()> {
        let failed = || format!("cannot read {} in the guest", path.display());
        let gone = || Error::failed(failed());
        let mut old = File::from(self.open_file(path)?.ok_or_else(gone)?);
        let body = &mut |file: &mut File| {
            let length = std::io::copy(&mut old, file).context(failed)?;
            let padding = length.next_multiple_of(4) - length;
            let zeros = std::io::repeat(0).take(padding);
            std::io::copy(&mut zeros.chain(content), file).context(|| "cannot write the new file")?;
            Ok(())
        };
        self.write_over(path, body, NewFile::root(0o600), Marks::Old)
    }

    pub(super) fn bring(
        &self,
        path: &Path,
        (source, supply): (u32, &mut dyn Supply),
        new: NewFile,
        modified: Option<i64>,
    ) -> Result<()> {
        let body = &mut |file: &mut File| {
            let mut offset = 0;
            loop {
                let piece = supply.piece(source, offset)?;
                if piece.is_empty() {
                    return Ok(());
                }
                file.write_all(&piece).context(|| "cannot write the new file")?;
                offset += piece.len() as u64;
            }
        };
        self.write_over(path, body, new, Marks::New)?;
        modified.map_or(Ok(()), |seconds| self.set_modified(path, seconds))
    }

    /// Writes a new file beside the old one and renames it over: a reader sees the old or the new content, never half.
    pub(super) fn write_over(&self, path: &Path, body: Body<'_>, new: NewFile, marks: Marks) -> Result<()> {
        let failed = || format!("cannot write {} in the guest", path.display());
        let (folder, name) =
            self.parent(path)?.ok_or_else(|| Error::failed(failed()).hint("its folder is missing"))?;
        if self.lookup(path)?.is_some_and(|entry| entry.kind == FileKind::Folder) {
            return Err(is_folder(path));
        }
        let old = self.open_file(path)?;
        let temporary = free_name(&folder).context(failed)?;
        let policy = if old.is_some() { None } else { self.label_of(path, FileKind::File)? };
        let label = labels::of_new(old.as_ref().unwrap_or(&folder), policy).context(failed)?;
        let marks = (old.as_ref(), new, marks, label.as_deref());
        let written = write_beside(&folder, &temporary, body, marks).and_then(|()| {
            let files: Vec<&OwnedFd> = old.iter().chain([&folder]).collect();
            with_attributes_lifted(&files, || {
                nix::fcntl::renameat(&folder, temporary.as_os_str(), &folder, name.as_os_str())
            })
            .context(|| "cannot rename the new file over the old one")?;
            let new = self.open_file(path)?;
            keep_attributes(old.as_ref(), new.as_ref()).context(|| "cannot keep its attributes")
        });
        written.map_err(|error| {
            let left = unlinkat(&folder, temporary.as_os_str(), UnlinkatFlags::NoRemoveDir);
            let error = Error::failed(failed()).caused_by(error);
            match left {
                Ok(()) | Err(Errno::ENOENT) => error,
                Err(errno) => {
                    error.and_also(Error::failed("cannot remove the half-written file").caused_by(errno))
                }
            }
        })
    }

    pub(super) fn link(&self, path: &Path, target: &Path) -> Result<()> {
        let failed = || format!("cannot make the link {} in the guest", path.display());
        let (folder, name) =
            self.parent(path)?.ok_or_else(|| Error::failed(failed()).hint("its folder is missing"))?;
        if self.lookup(path)?.is_some_and(|entry| entry.kind == FileKind::Folder) {
            return Err(is_folder(path));
        }
        unlink_lifting(&folder, &name, UnlinkatFlags::NoRemoveDir).context(failed)?;
        with_attributes_lifted(&[&folder], || symlinkat(target, &folder, name.as_os_str()))
            .context(failed)?;
        if let Some(label) = labels::of_new(&folder, self.label_of(path, FileKind::Link)?).context(failed)? {
            self.keep_link_to_label(path, label);
        }
        Ok(())
    }

    pub(super) fn make_folder(&self, path: &Path, new: NewFile) -> Result<()> {
        let failed = || format!("cannot make the folder {} in the guest", path.display());
        let (folder, name) =
            self.parent(path)?.ok_or_else(|| Error::failed(failed()).hint("its folder is missing"))?;
        match with_attributes_lifted(&[&folder], || {
            mkdirat(&folder, name.as_os_str(), Mode::from_bits_truncate(new.mode))
        }) {
            Ok(()) => {}
            Err(Errno::EEXIST) => return Ok(()),
            Err(errno) => return Err(errno).context(failed),
        }
        // By descriptors only: the calls that take a path are shut to the confined worker.
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let made = nix::fcntl::openat(&folder, name.as_os_str(), flags, Mode::empty()).context(failed)?;
        fchown(&made, Some(Uid::from_raw(new.uid)), Some(Gid::from_raw(new.gid))).context(failed)?;
        let label = labels::of_new(&folder, self.label_of(path, FileKind::Folder)?).context(failed)?;
        labels::put(&made, label.as_deref()).context(failed)?;
        fchmod(&made, Mode::from_bits_truncate(new.mode)).context(failed)
    }
}

fn is_folder(path: &Path) -> Error {
    Error::unsupported(format!("{} is a folder in the guest, where a file belongs", path.display()))
        .hint("look at it in the guest: take the folder away, or leave the operation out")
}

/// A short name that nothing in the folder has: the guest's own name may be as long as names get. What an interrupted
/// run left under it goes; a folder, which only somebody else can have made, does not. So nobody can take them all.
fn free_name(folder: &OwnedFd) -> nix::Result<OsString> {
    let fixed = 0..10u64;
    let any = std::iter::repeat_with(|| RandomState::new().hash_one(0)).take(10);
    let names = fixed.chain(any).map(|number| OsString::from(format!(".guestseal.{number}.new")));
    let mut free = names.filter(|name| unlink_lifting(folder, name, UnlinkatFlags::NoRemoveDir).is_ok());
    free.next().ok_or(Errno::EEXIST)
}

/// Writes the file `name` of `folder`, with the owner, mode and extended attributes (labels, ACLs) of the old one where
/// they are to stay.
fn write_beside(
    folder: &OwnedFd,
    name: &OsStr,
    body: Body<'_>,
    (old, new, marks, label): (Option<&OwnedFd>, NewFile, Marks, Option<&[u8]>),
) -> Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let fresh = with_attributes_lifted(&[folder], || {
        nix::fcntl::openat(folder, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
    })
    .context(|| "cannot make a new file beside it")?;
    let mut file = File::from(fresh);
    body(&mut file)?;
    let (uid, gid, mode) = match old.filter(|_| marks == Marks::Old) {
        Some(old) => {
            let stat = fstat(old).context(|| "cannot examine the old file")?;
            (stat.st_uid, stat.st_gid, stat.st_mode & 0o7777)
        }
        None => (new.uid, new.gid, new.mode),
    };
    // Owner first: chown takes set-id bits off.
    fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).context(|| "cannot set the owner")?;
    match (old, marks) {
        (Some(old), Marks::Old) => {
            copy_attributes(old, &file, |_| true).context(|| "cannot keep the extended attributes")?;
        }
        _ => labels::put(&file, label).context(|| "cannot label the new file")?,
    }
    fchmod(file.as_fd(), Mode::from_bits_truncate(mode)).context(|| "cannot set the mode")
}

/// Copies those extended attributes that are wanted: SELinux label, ACL, capabilities, user attributes.
pub(super) fn copy_attributes(
    from: &OwnedFd,
    to: impl AsFd,
    wanted: impl Fn(&[u8]) -> bool,
) -> rustix::io::Result<()> {
    // 64 KiB is XATTR_LIST_MAX and XATTR_SIZE_MAX of linux/limits.h.
    let mut names = vec![0u8; 65536];
    let length = match rustix::fs::flistxattr(from, &mut names) {
        Err(rustix::io::Errno::OPNOTSUPP) => return Ok(()),
        length => length?,
    };
    let mut value = vec![0u8; 65536];
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty() && wanted(name)) {
        let length = rustix::fs::fgetxattr(from, name, &mut value)?;
        rustix::fs::fsetxattr(&to, name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}
