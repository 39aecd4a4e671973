//! The guest's files. [`GuestRoot`] is the only door to them: every path is resolved by the kernel inside the guest's
//! root, so no link, `..`, device node or odd name in a guest can reach a file of the host. Looking is here and in
//! [`glob`]; changing is in [`change`].

#![forbid(unsafe_code)]

pub mod accounts;
pub mod change;
mod flags;
pub mod glob;
pub mod labels;
pub(crate) mod listing;
pub mod names;
pub mod password;
pub mod path_serde;
mod place;
pub mod secret;
mod tree;
mod walk;
mod write;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use serde::Serialize;

use labels::{Labels, LinkLabel};

use crate::error::{Context, Error, ErrorKind, Result};

/// The most that is read of any one guest file: a guest's passwd or os-release may be made of 2 GB of junk.
pub const READ_LIMIT: u64 = 16 << 20;

/// The bytes of a path that the kernel takes, the ending NUL included: linux/limits.h.
const PATH_MAX: usize = 4096;

/// The root folder of a mounted guest.
///
/// Paths are absolute paths of the guest. They are resolved by openat2(2) with `RESOLVE_IN_ROOT` and
/// `RESOLVE_NO_MAGICLINKS`: an absolute link means the guest's file.
#[derive(Debug)]
pub struct GuestRoot {
    dir: OwnedFd,
    /// Where other filesystems are mounted: folders that can be emptied and not removed.
    mount_points: Vec<PathBuf>,
    /// What the guest's SELinux policy says of labels, read when it is first needed.
    labels: OnceLock<Option<Labels>>,
    /// Links that were made, and that somebody else must label.
    links: Mutex<Vec<LinkLabel>>,
}

/// What a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A FIFO, socket or device node.
    Special,
}

/// One file of the guest, seen without following a link at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its absolute path in the guest.
    pub path: PathBuf,
    /// What it is.
    pub kind: FileKind,
    /// Its length in bytes; 0 for folders and specials.
    pub bytes: u64,
    /// How many names it has.
    pub names: u64,
    /// Its owner's number.
    pub uid: u32,
    /// Its group's number.
    pub gid: u32,
    /// Its permission bits.
    pub mode: u32,
}

impl Entry {
    fn new(path: PathBuf, stat: &FileStat) -> Self {
        let kind = match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFREG => FileKind::File,
            SFlag::S_IFDIR => FileKind::Folder,
            SFlag::S_IFLNK => FileKind::Link,
            _ => FileKind::Special,
        };
        let bytes = if kind == FileKind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 };
        let mode = stat.st_mode & 0o7777;
        Self { path, kind, bytes, names: stat.st_nlink, uid: stat.st_uid, gid: stat.st_gid, mode }
    }
}

impl GuestRoot {
    /// Opens the folder of the host at which the guest is mounted.
    ///
    /// # Errors
    /// When it cannot be opened, or the kernel lacks openat2(2) (older than 5.6).
    pub fn open(folder: &Path) -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let dir = nix::fcntl::open(folder, flags, Mode::empty())
            .context(|| format!("cannot open the guest's root at {}", folder.display()))?;
        let root = Self { dir, mount_points: Vec::new(), labels: OnceLock::new(), links: Mutex::default() };
        match root.open_at(Path::new("/"), OFlag::O_PATH, Mode::empty(), ResolveFlag::empty()) {
            Ok(_) => Ok(root),
            Err(Errno::ENOSYS) => Err(Error::host_lacks(
                "this kernel has no openat2(2), which keeps guest paths inside the guest",
            )
            .hint("use Linux 5.6 or newer")),
            Err(errno) => Err(Error::failed("cannot resolve paths in the guest's root").caused_by(errno)),
        }
    }

    /// Says that another filesystem is mounted at this real path.
    pub fn add_mount_point(&mut self, path: PathBuf) {
        self.mount_points.push(path);
    }

    /// The mount points at this real path and below it.
    pub fn mount_points_at(&self, folder: &Path) -> impl Iterator<Item = &Path> {
        self.mount_points.iter().map(PathBuf::as_path).filter(move |point| point.starts_with(folder))
    }

    /// The root folder itself, to mount below it.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// A path longer than the kernel takes is opened in pieces, of which only the first may lead through links.
    fn open_at(&self, path: &Path, flags: OFlag, mode: Mode, resolve: ResolveFlag) -> nix::Result<OwnedFd> {
        let resolve = resolve | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        let in_root = resolve | ResolveFlag::RESOLVE_IN_ROOT;
        if path.as_os_str().len() < PATH_MAX {
            return open_once(&self.dir, path, flags, mode, in_root);
        }
        let mut pieces = pieces(path).into_iter();
        let last = pieces.next_back().unwrap_or_default();
        let (mut dir, mut how) = (None, in_root);
        for piece in pieces {
            let folder = OFlag::O_PATH | OFlag::O_DIRECTORY;
            dir = Some(open_once(dir.as_ref().unwrap_or(&self.dir), &piece, folder, Mode::empty(), how)?);
            how = resolve | ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS;
        }
        open_once(dir.as_ref().unwrap_or(&self.dir), &last, flags, mode, how)
    }

    fn open_existing(&self, path: &Path, flags: OFlag) -> Result<Option<OwnedFd>> {
        match self.open_at(path, flags, Mode::empty(), ResolveFlag::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENAMETOOLONG) => Ok(None),
            Err(errno) => Err(errno).context(|| format!("cannot open {} in the guest", path.display())),
        }
    }

    fn entry_of(path: &Path, fd: &OwnedFd) -> Result<Entry> {
        let stat = fstat(fd).context(|| format!("cannot examine {} in the guest", path.display()))?;
        Ok(Entry::new(path.to_path_buf(), &stat))
    }

    /// The file at this path; a link at its end is not followed. None when there is none.
    ///
    /// # Errors
    /// When the filesystem cannot answer.
    pub fn lookup(&self, path: &Path) -> Result<Option<Entry>> {
        let fd = self.open_existing(path, OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
        fd.map(|fd| Self::entry_of(path, &fd)).transpose()
    }

    /// The file that this path leads to, every link followed inside the guest; its `path` is where it really is.
    ///
    /// # Errors
    /// When the filesystem cannot answer.
    pub fn resolve(&self, path: &Path) -> Result<Option<Entry>> {
        let Some(fd) = self.open_existing(path, OFlag::O_PATH)? else { return Ok(None) };
        self.path_of(&fd)?.map(|real| Self::entry_of(&real, &fd)).transpose()
    }

    /// The kernel's own word on where an open file of the guest is; None where that is longer than it can say.
    fn path_of(&self, fd: &OwnedFd) -> Result<Option<PathBuf>> {
        let host = |fd: BorrowedFd<'_>| match nix::fcntl::readlink(
            format!("/proc/self/fd/{}", fd.as_raw_fd()).as_str(),
        ) {
            Ok(path) => Ok(Some(PathBuf::from(path))),
            Err(Errno::ENAMETOOLONG) => Ok(None),
            Err(errno) => Err(errno).context(|| "cannot read /proc/self/fd"),
        };
        let (Some(root), Some(file)) = (host(self.dir.as_fd())?, host(fd.as_fd())?) else { return Ok(None) };
        let below = file.strip_prefix(&root).context(|| "a guest path left the guest's root")?;
        Ok(Some(Path::new("/").join(below)))
    }

    /// Whether the path leads to a regular file.
    ///
    /// # Errors
    /// When the filesystem cannot answer.
    pub fn is_file(&self, path: &str) -> Result<bool> {
        Ok(self.resolve(Path::new(path))?.is_some_and(|entry| entry.kind == FileKind::File))
    }

    /// Whether the path leads to a folder.
    ///
    /// # Errors
    /// When the filesystem cannot answer.
    pub fn is_folder(&self, path: &str) -> Result<bool> {
        Ok(self.resolve(Path::new(path))?.is_some_and(|entry| entry.kind == FileKind::Folder))
    }

    /// Where a symbolic link points to; None when the path is none.
    ///
    /// # Errors
    /// When the filesystem cannot answer.
    pub fn read_link(&self, path: &Path) -> Result<Option<PathBuf>> {
        let Some(fd) = self.open_existing(path, OFlag::O_PATH | OFlag::O_NOFOLLOW)? else { return Ok(None) };
        match nix::fcntl::readlinkat(&fd, "") {
            Ok(target) => Ok(Some(PathBuf::from(target))),
            Err(Errno::ENOENT | Errno::EINVAL) => Ok(None),
            Err(errno) => {
                Err(errno).context(|| format!("cannot read the link {} in the guest", path.display()))
            }
        }
    }

    /// The content of a regular file, links followed. None when it is missing or not a regular file.
    ///
    /// # Errors
    /// When it cannot be read, or is longer than [`READ_LIMIT`].
    pub fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        let Some(entry) = self.resolve(path)? else { return Ok(None) };
        if entry.kind != FileKind::File {
            return Ok(None);
        }
        if entry.bytes > READ_LIMIT {
            return Err(Error::unsupported(format!(
                "{} in the guest has {} bytes; no sane one has more than {READ_LIMIT}",
                path.display(),
                entry.bytes
            ))
            .hint("look at the file in the guest: shorten it or take it away"));
        }
        let Some(fd) = self.open_existing(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)?
        else {
            return Ok(None);
        };
        let mut content = Vec::with_capacity(usize::try_from(entry.bytes).unwrap_or(0));
        File::from(fd)
            .take(READ_LIMIT)
            .read_to_end(&mut content)
            .context(|| format!("cannot read {} in the guest", path.display()))?;
        Ok(Some(content))
    }

    /// The first bytes of a regular file that is no link; fewer when it is shorter.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_head(&self, path: &Path, length: u64) -> Result<Vec<u8>> {
        let mut head = Vec::new();
        if let Some(fd) = self.open_file(path)? {
            let read = File::from(fd).take(length).read_to_end(&mut head);
            read.context(|| format!("cannot read {} in the guest", path.display()))?;
        }
        Ok(head)
    }

    /// The same as text; bytes that are no UTF-8 become replacement characters. Empty when there is no file.
    ///
    /// # Errors
    /// As [`GuestRoot::read`].
    pub fn read_text(&self, path: &str) -> Result<String> {
        let content = self.read(Path::new(path))?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&content).into_owned())
    }

    /// The names in a folder, sorted; links on the way are followed. Empty when there is no such folder.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn names(&self, folder: &Path) -> Result<Vec<OsString>> {
        let Some(fd) = self.open_existing(folder, OFlag::O_RDONLY | OFlag::O_DIRECTORY)? else {
            return Ok(Vec::new());
        };
        names_in(fd).context(|| format!("cannot list {} in the guest", folder.display()))
    }

    /// How many files and folders are below a folder, and the lengths of its files together.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn measure(&self, folder: &Path) -> Result<(u64, u64)> {
        let (mut entries, mut bytes) = (0, 0);
        self.walk(folder, |item| {
            entries += 1;
            bytes = item.bytes()?.saturating_add(bytes);
            Ok(())
        })?;
        Ok((entries, bytes))
    }

    /// Opens a regular file that is no link. Nothing else is even opened: a FIFO would wait, a device might act.
    pub(crate) fn open_file(&self, path: &Path) -> Result<Option<OwnedFd>> {
        if self.lookup(path)?.is_none_or(|entry| entry.kind != FileKind::File) {
            return Ok(None);
        }
        self.open_existing(path, OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY)
    }

    /// Opens a folder, to mount on it.
    ///
    /// # Errors
    /// When there is none.
    pub fn open_folder(&self, path: &Path) -> Result<OwnedFd> {
        let fd = self.open_existing(path, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        fd.ok_or_else(|| Error::failed(format!("the guest has no folder {}", path.display())))
    }

    /// The folder that holds `path`, opened, and the last name of `path`. None when there is no such folder.
    fn parent(&self, path: &Path) -> Result<Option<(OwnedFd, OsString)>> {
        let Some(Component::Normal(name)) = path.components().next_back() else {
            return Err(Error::new(
                ErrorKind::Failed,
                format!("{} names no file in a folder", path.display()),
            ));
        };
        let folder = path.parent().unwrap_or_else(|| Path::new("/"));
        let fd = self.open_existing(folder, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        Ok(fd.map(|fd| (fd, name.to_os_string())))
    }
}

fn open_once(
    dir: &OwnedFd,
    path: &Path,
    flags: OFlag,
    mode: Mode,
    resolve: ResolveFlag,
) -> nix::Result<OwnedFd> {
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(mode).resolve(resolve);
    loop {
        match openat2(dir, path, how) {
            // The kernel gives up on `..` when something is renamed at the same time.
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// A path in parts that the kernel takes, the first one absolute.
fn pieces(path: &Path) -> Vec<PathBuf> {
    let mut pieces = vec![PathBuf::new()];
    for part in path.components() {
        let full = pieces
            .last()
            .is_some_and(|piece| piece.as_os_str().len() + part.as_os_str().len() + 2 > PATH_MAX);
        if full {
            pieces.push(PathBuf::new());
        }
        if let Some(piece) = pieces.last_mut() {
            piece.push(part);
        }
    }
    pieces
}

/// The names in an open folder, sorted so that two runs see the same order.
fn names_in(fd: OwnedFd) -> nix::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in nix::dir::Dir::from_fd(fd)? {
        let name = OsString::from_vec(entry?.file_name().to_bytes().to_vec());
        if name != OsStr::new(".") && name != OsStr::new("..") {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}
