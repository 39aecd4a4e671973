//! Who else uses an image. qemu marks its use by OFD locks on single bytes of the file (block/file-posix.c): byte 100
//! plus a permission for what it does, byte 200 plus a permission for what it does not let others do. guestseal looks
//! at them, takes its own, and one byte further off against other runs of itself.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::error::{Context, Error, ErrorKind, Result};

const QEMU_WRITES: i64 = 101;
const QEMU_RESIZES: i64 = 103;
const QEMU_FORBIDS_WRITES: i64 = 201;
const QEMU_FORBIDS_RESIZES: i64 = 203;
/// Out of the range of qemu's bytes; held exclusively by one guestseal.
const GUESTSEAL: i64 = 0x6773;

/// What the run is going to do with the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Read it only.
    Read,
    /// Write it at the end, through qemu.
    Commit,
    /// Write it all the time, without qemu.
    Write,
}

/// The image, locked for a run.
#[derive(Debug)]
pub struct LockedImage {
    file: File,
}

impl LockedImage {
    /// Opens the image for its use and locks it.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] when a guest runs on it, another guestseal works on it, or it backs a running guest;
    /// failed when it cannot be opened for this use.
    pub fn open(path: &Path, usage: Use) -> Result<Self> {
        // Before it is opened: that would wait for a writer of a FIFO, and rewind a tape.
        let kind = path.metadata().context(|| format!("cannot examine {}", path.display()))?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            let what = if kind.is_dir() { "a folder" } else { "no regular file" };
            return Err(Error::usage(format!("{} is {what}, not an image", path.display())));
        }
        let file = File::options()
            .read(true)
            .write(usage != Use::Read)
            .open(path)
            .map_err(|error| cannot_open(path, usage, error))?;
        let busy = |who: &str| {
            Error::new(ErrorKind::Busy, format!("{} is in use: {who}", path.display()))
                .hint("shut the guest down, or try again later")
        };
        if holder(&file, QEMU_WRITES)? {
            return Err(busy("a running guest or another program writes to it"));
        }
        let image = Self { file };
        if usage == Use::Read {
            // Keeps guests from starting on it meanwhile; who else only reads may go on.
            image.forbid_writing()?;
            return Ok(image);
        }
        if !image.take(GUESTSEAL, libc::F_WRLCK)? {
            return Err(busy("another guestseal works on it"));
        }
        if holder(&image.file, QEMU_FORBIDS_WRITES)? {
            return Err(busy(
                "a running guest reads it and lets nobody write (is it the template of a running clone?)",
            ));
        }
        let writes = if usage == Use::Write { &[QEMU_WRITES, QEMU_RESIZES][..] } else { &[] };
        let mut ours = image.forbid_writing()?;
        for byte in writes {
            ours &= image.take(*byte, libc::F_RDLCK)?;
        }
        if !ours {
            return Err(busy("another program took it just now"));
        }
        if holder(&image.file, QEMU_WRITES)? {
            return Err(busy("another program took it just now"));
        }
        Ok(image)
    }

    /// The open image.
    pub fn file(&self) -> &File {
        &self.file
    }

    fn forbid_writing(&self) -> Result<bool> {
        Ok(self.take(QEMU_FORBIDS_WRITES, libc::F_RDLCK)?
            && self.take(QEMU_FORBIDS_RESIZES, libc::F_RDLCK)?)
    }

    /// Keeps readers out as well, for the time of a commit. Writers are kept out from the start.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] when another program reads the image and lets nobody write.
    pub fn keep_readers_out(&self) -> Result<()> {
        let ours = self.take(QEMU_WRITES, libc::F_RDLCK)? && self.take(QEMU_RESIZES, libc::F_RDLCK)?;
        if ours && !holder(&self.file, QEMU_FORBIDS_WRITES)? {
            return Ok(());
        }
        for byte in [QEMU_WRITES, QEMU_RESIZES] {
            self.take(byte, libc::F_UNLCK)?;
        }
        Err(Error::new(ErrorKind::Busy, "another program reads the image and lets nobody write to it")
            .hint("try again when it is done; nothing was written"))
    }

    fn take(&self, byte: i64, kind: i32) -> Result<bool> {
        take(&self.file, byte, kind).context(|| "cannot lock the image")
    }
}

fn cannot_open(path: &Path, usage: Use, error: io::Error) -> Error {
    use io::ErrorKind::{IsADirectory, PermissionDenied, ReadOnlyFilesystem};
    let kind = error.kind();
    if kind == IsADirectory {
        return Error::usage(format!("{} is a folder, not an image", path.display()));
    }
    let failed = Error::failed(format!("cannot open {}", path.display())).caused_by(error);
    if usage != Use::Read && matches!(kind, PermissionDenied | ReadOnlyFilesystem) {
        return failed.hint("put the result elsewhere with --output NEW, which only reads the image");
    }
    failed
}

/// Locks a file of guestseal's own for as long as it is open: by that a file of a dead run is told from one in use.
/// False when a run holds it.
///
/// # Errors
/// When the filesystem has no locks.
pub(super) fn lock_own(file: &File) -> Result<bool> {
    take(file, GUESTSEAL, libc::F_WRLCK)
}

fn take(file: &File, byte: i64, kind: i32) -> Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&range(byte, kind)?)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno).context(|| "cannot lock a file"),
    }
}

/// Whether somebody else holds this byte.
fn holder(file: &File, byte: i64) -> Result<bool> {
    let mut lock = range(byte, libc::F_WRLCK)?;
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)).context(|| "cannot ask for the image's locks")?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

fn range(byte: i64, kind: i32) -> Result<libc::flock> {
    let narrow = |number: i32| i16::try_from(number).context(|| "lock types fit in 16 bits");
    Ok(libc::flock {
        l_type: narrow(kind)?,
        l_whence: narrow(libc::SEEK_SET)?,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    })
}
