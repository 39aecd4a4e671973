//! A file that has no name until it is whole: a kill leaves nothing of it beside the image.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirEntryExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, renameat};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{UnlinkatFlags, geteuid, linkat, unlinkat};

use super::lock::{lock_own, share_own};
use crate::error::{Context, Error, Result};
use crate::sys::own;

/// How temporary names begin.
const PREFIX: &str = ".guestseal-";

/// A new file in a folder, without a name (open(2), `O_TMPFILE`).
///
/// Folder and file are opened before the run's mount namespaces are made: linkat(2) gives names within one mount only.
#[derive(Debug)]
pub struct NamelessFile {
    file: File,
    folder: File,
    folder_path: PathBuf,
    /// The name it has on filesystems that know no nameless files.
    temporary: Option<String>,
}

impl NamelessFile {
    /// Makes one with this mode.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn make(folder_path: &Path, mode: u32) -> Result<Self> {
        let failed = || format!("cannot make a file in {}", folder_path.display());
        let folder = File::open(folder_path).context(failed)?;
        let mode = Mode::from_bits_truncate(mode);
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let fd = match nix::fcntl::open(folder_path, flags | OFlag::O_TMPFILE, mode) {
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL) => {
                return Self::make_named(folder_path, folder, flags, mode)
                    .map_err(|error| error.within(failed()));
            }
            result => result.map_err(|errno| cannot_write(errno, failed()))?,
        };
        let made = Self { file: File::from(fd), folder, folder_path: folder_path.into(), temporary: None };
        made.begin(mode).map_err(|error| error.within(failed()))?;
        Ok(made)
    }

    /// Makes one that has a temporary name from the start, for another process that opens it by that; only its owner may.
    ///
    /// # Errors
    /// As [`NamelessFile::make`].
    pub fn make_for_others(folder_path: &Path) -> Result<Self> {
        let failed = || format!("cannot make a file in {}", folder_path.display());
        let folder_path = folder_path.canonicalize().context(failed)?;
        let folder = File::open(&folder_path).context(failed)?;
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
        Self::make_named(&folder_path, folder, flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(|error| error.within(failed()))
    }

    /// Lets this process open it as an image to be read.
    pub fn share(&self) {
        // Where there are no locks nobody is kept out.
        let _ = share_own(&self.file);
    }

    /// The path of its temporary name, where it has one.
    pub fn temporary_path(&self) -> Option<PathBuf> {
        self.temporary.as_ref().map(|name| self.folder_path.join(name))
    }

    /// For filesystems that know no nameless files.
    fn make_named(folder_path: &Path, folder: File, flags: OFlag, mode: Mode) -> Result<Self> {
        let first = format!("{PREFIX}new-{}", random_name()?);
        let new = flags | OFlag::O_CREAT | OFlag::O_EXCL;
        let fd = nix::fcntl::openat(&folder, first.as_str(), new, mode)
            .map_err(|errno| cannot_write(errno, format!("cannot make the file {first}")))?;
        let (file, folder_path) = (File::from(fd), folder_path.to_path_buf());
        let mut made = Self { file, folder, folder_path, temporary: Some(first.clone()) };
        made.begin(mode)?;
        // By this name it is known as a leftover of guestseal.
        let name = temporary_name(&made.file)?;
        renameat(&made.folder, first.as_str(), &made.folder, name.as_str()).context(|| "cannot rename it")?;
        made.temporary = Some(name);
        Ok(made)
    }

    fn begin(&self, mode: Mode) -> Result<()> {
        // By this lock the next run knows that the file is in use. Where there are no locks nothing is cleaned up.
        let _ = lock_own(&self.file);
        // The mode as it was asked for: the umask is for files that people make.
        fchmod(&self.file, mode).context(|| "cannot set its mode")
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Another handle of the open file.
    ///
    /// # Errors
    /// When the process has too many.
    pub fn into_file(self) -> Result<File> {
        self.file.try_clone().context(|| "cannot keep a file open")
    }

    /// The path by which a child of this process opens it.
    pub fn path(&self) -> String {
        own::path_of(&self.file)
    }

    /// Flushes its content, for a name to be given at once later.
    ///
    /// # Errors
    /// When it cannot be flushed.
    pub fn flush(&self) -> Result<()> {
        self.file.sync_all().context(|| format!("cannot flush a file in {}", self.folder_path.display()))
    }

    /// Flushes it and gives it a name that nobody has, permanently.
    ///
    /// # Errors
    /// When the name is taken, or something cannot be flushed.
    pub fn name(&mut self, name: &OsStr) -> Result<()> {
        let failed = || format!("cannot make {}", self.folder_path.join(name).display());
        self.file.sync_all().context(failed)?;
        match &self.temporary {
            None => self.link(name),
            // Not RENAME_NOREPLACE: filesystems without nameless files often lack it as well.
            Some(temporary) => renameat(&self.folder, temporary.as_str(), &self.folder, name),
        }
        .context(failed)?;
        self.temporary = None;
        self.folder.sync_all().context(failed)
    }

    /// The same in place of whatever has the name.
    ///
    /// # Errors
    /// When something cannot be flushed or renamed.
    pub fn name_over(&mut self, name: &OsStr) -> Result<()> {
        let failed = || format!("cannot make {}", self.folder_path.join(name).display());
        if self.temporary.is_none() {
            self.flush()?;
            match self.link(name) {
                Ok(()) => return self.folder.sync_all().context(failed),
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno).context(failed),
            }
            let temporary = temporary_name(&self.file)?;
            self.link(temporary.as_ref()).context(failed)?;
            self.temporary = Some(temporary);
        }
        self.name(name)
    }

    fn link(&self, name: &OsStr) -> nix::Result<()> {
        let this = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        linkat(AT_FDCWD, this.as_str(), &self.folder, name, AtFlags::AT_SYMLINK_FOLLOW)
    }
}

impl Drop for NamelessFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary
            && let Err(errno) = unlinkat(&self.folder, temporary.as_str(), UnlinkatFlags::NoRemoveDir)
        {
            let error =
                Error::failed(format!("cannot remove {}", self.folder_path.join(temporary).display()));
            crate::sys::trouble::note(error.caused_by(errno));
        }
    }
}

fn cannot_write(errno: Errno, what: String) -> Error {
    let error = Error::failed(what).caused_by(errno);
    match errno {
        Errno::EROFS | Errno::EACCES | Errno::EPERM => {
            error.hint("put the result elsewhere with --output NEW")
        }
        _ => error,
    }
}

/// The name by which a file with a name before its time is known: its own inode number is in it, which no other file
/// and no copy of it has.
fn temporary_name(file: &File) -> Result<String> {
    let metadata = file.metadata().context(|| "cannot examine a new file")?;
    Ok(format!("{PREFIX}{:x}", metadata.ino()))
}

/// Removes what runs that were killed left in a folder under temporary names: files that carry their own inode number
/// in the name, are this user's (for root, anybody's: a copy of a running guest belongs to whoever runs that), and that nobody
/// holds locked.
///
/// # Errors
/// When the folder cannot be read, or such a file not be removed.
pub fn sweep(folder: &Path) -> Result<()> {
    let failed = || format!("cannot look for leftovers in {}", folder.display());
    for entry in std::fs::read_dir(folder).context(failed)? {
        let entry = entry.context(failed)?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if number.is_none_or(|number| format!("{:x}", entry.ino()) != number) {
            continue;
        }
        let path = entry.path();
        // Anything that cannot be a leftover stays.
        let Some(file) = open_leftover(&path) else { continue };
        if lock_own(&file).unwrap_or(false) {
            std::fs::remove_file(&path)
                .context(|| format!("cannot remove the leftover {}", path.display()))?;
        }
    }
    Ok(())
}

fn open_leftover(path: &Path) -> Option<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = File::options().read(true).append(true).custom_flags(flags.bits()).open(path).ok()?;
    let metadata = file.metadata().ok()?;
    let user = geteuid();
    let ours = user.is_root() || metadata.uid() == user.as_raw();
    (metadata.is_file() && ours && metadata.nlink() == 1).then_some(file)
}

/// The folder that a file is or will be in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

/// 64 bits of the system's entropy in hexadecimal.
pub(super) fn random_name() -> Result<String> {
    let bits = getrandom::u64()
        .map_err(|error| Error::failed("the system gives no entropy").caused_by(error.to_string()))?;
    Ok(format!("{bits:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn names(folder: &Path) -> Vec<String> {
        let names = std::fs::read_dir(folder).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn nothing_is_seen_before_it_has_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = NamelessFile::make(folder.path(), 0o600).unwrap();
        file.file().write_all(b"new").unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), b"new");
        assert!(names(folder.path()).is_empty());
        drop(file);
        assert!(names(folder.path()).is_empty());
        file = NamelessFile::make(folder.path(), 0o600).unwrap();
        file.name("a".as_ref()).unwrap();
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn a_name_that_is_taken_is_refused_or_replaced_as_asked() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), b"old").unwrap();
        let mut file = NamelessFile::make(folder.path(), 0o600).unwrap();
        file.file().write_all(b"new").unwrap();
        assert!(file.name("a".as_ref()).is_err());
        file.name_over("a".as_ref()).unwrap();
        drop(file);
        assert_eq!(std::fs::read(folder.path().join("a")).unwrap(), b"new");
        assert_eq!(names(folder.path()), ["a"]);
    }

    /// As on NFS, where nothing is nameless.
    #[test]
    fn without_nameless_files_a_temporary_name_tells_whose_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let make = || {
            let open = File::open(folder.path()).unwrap();
            let mode = Mode::S_IRUSR | Mode::S_IWUSR;
            NamelessFile::make_named(folder.path(), open, OFlag::O_RDWR | OFlag::O_CLOEXEC, mode).unwrap()
        };
        let mut file = make();
        assert_eq!(names(folder.path()), [temporary_name(&file.file).unwrap()]);
        sweep(folder.path()).unwrap();
        file.name("a".as_ref()).unwrap();
        assert_eq!(names(folder.path()), ["a"]);
        drop(make());
        assert_eq!(names(folder.path()), ["a"]);
        let mut dead = make();
        dead.temporary = None;
        drop(dead);
        assert_eq!(names(folder.path()).len(), 2);
        sweep(folder.path()).unwrap();
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn only_what_dead_runs_left_is_swept_away() {
        let folder = tempfile::tempdir().unwrap();
        let live = NamelessFile::make(folder.path(), 0o600).unwrap();
        let dead = NamelessFile::make(folder.path(), 0o600).unwrap();
        for file in [&live, &dead] {
            file.link(temporary_name(&file.file).unwrap().as_ref()).unwrap();
        }
        let kept = temporary_name(&live.file).unwrap();
        let gone = temporary_name(&dead.file).unwrap();
        drop(dead);
        std::fs::write(folder.path().join(".guestseal-12345"), b"somebody else's").unwrap();
        std::fs::hard_link(folder.path().join(&kept), folder.path().join("other name")).unwrap();
        sweep(folder.path()).unwrap();
        assert!(!folder.path().join(gone).exists());
        let mut left = names(folder.path());
        left.sort();
        assert_eq!(left, [".guestseal-12345", kept.as_str(), "other name"]);
        drop(live);
        std::fs::remove_file(folder.path().join("other name")).unwrap();
        sweep(folder.path()).unwrap();
        assert_eq!(names(folder.path()), [".guestseal-12345"]);
    }
}
