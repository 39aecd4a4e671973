//! Who else uses an image. qemu marks its use by OFD locks on single bytes of the file (block/file-posix.c): byte 100
//! plus a permission for what it does, byte 200 plus a permission for what it does not let others do. guestseal looks
//! at them, takes its own, and one byte further off against other runs of itself.

use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::sys::device;
use crate::sys::uevent::Uevents;
use crate::sys::users::{LoopUser, locker, loops_over};

/// What qemu does: permissions 0 (read) to 3 (resize), with room for those to come.
const QEMU_USES: RangeInclusive<i64> = 100..=107;
const QEMU_WRITES: i64 = 101;
const QEMU_RESIZES: i64 = 103;
/// What qemu does not let others do.
const QEMU_FORBIDS: RangeInclusive<i64> = 200..=207;
const QEMU_FORBIDS_WRITES: i64 = 201;
const QEMU_FORBIDS_RESIZES: i64 = 203;
/// Out of the range of qemu's bytes; held exclusively by a guestseal that writes, shared by those that read.
const GUESTSEAL: i64 = 0x6773;

/// How long a loop device that was let go may be held open by those who only look at it.
const GOING: Duration = Duration::from_secs(2);

/// What the run is going to do with the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Only look at it, even while somebody else writes to it.
    Look,
    /// Read it only, and rely on what was read.
    Read,
    /// Write it at the end, through qemu.
    Commit,
    /// Write it all the time, without qemu.
    Write,
}

impl Use {
    /// Whether nobody else may have anything to do with the image.
    fn is_alone(self) -> bool {
        matches!(self, Self::Commit | Self::Write)
    }
}

/// Somebody else's use of the image that does not go with ours.
#[derive(Debug)]
struct Conflict {
    who: String,
    hint: String,
}

impl Conflict {
    fn new(who: impl Into<String>) -> Self {
        Self { who: who.into(), hint: "shut the guest down, or try again later".into() }
    }
}

/// The image, locked for a run.
#[derive(Debug)]
pub struct LockedImage {
    file: File,
    moving: Option<String>,
    writes: bool,
}

impl LockedImage {
    /// Opens the image for its use and locks it. One that is only looked at is left unlocked while others write to it.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] when a guest runs on it, another guestseal works on it, it backs a running guest, or this
    /// host itself uses it; failed when it cannot be opened for this use.
    pub fn open(path: &Path, usage: Use) -> Result<Self> {
        // Before it is opened: that would wait for a writer of a FIFO, and rewind a tape.
        let kind = path.metadata().context(|| format!("cannot examine {}", path.display()))?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            let what = if kind.is_dir() { "a folder" } else { "no regular file" };
            return Err(Error::usage(format!("{} is {what}, not an image", path.display())));
        }
        let (file, claimed) = open(path, usage, kind.is_block_device())?;
        let image = Self { file, moving: None, writes: usage == Use::Write };
        let conflict = match claimed {
            None => image.lock(path, usage)?,
            conflict => conflict,
        };
        match conflict {
            None => Ok(image),
            Some(conflict) if usage == Use::Look => Ok(Self { moving: Some(conflict.who), ..image }),
            Some(Conflict { who, hint }) => {
                let what = format!("{} is in use: {who}", path.display());
                Err(Error::new(ErrorKind::Busy, what).hint(hint))
            }
        }
    }

    /// Who uses an image that this process does not have open, reading or writing.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn user_of(path: &Path) -> Result<Option<String>> {
        let file = File::open(path).context(|| format!("cannot open {}", path.display()))?;
        let image = Self { file, moving: None, writes: false };
        Ok(image.conflict(path, Use::Commit)?.map(|conflict| conflict.who))
    }

    /// Who changes the image while it is looked at.
    pub fn moving(&self) -> Option<&str> {
        self.moving.as_deref()
    }

    /// Whether qemu could take its own lock to read the image: nobody writes to it, and this process itself does not hold
    /// it for writing from start to end.
    pub(super) fn lets_qemu_lock(&self) -> bool {
        self.moving.is_none() && !self.writes
    }

    /// The same failure, which may be due to somebody who changes the image meanwhile.
    #[must_use]
    pub fn blame(&self, error: Error) -> Error {
        let Some(who) = self.moving() else { return error };
        let mut hint = format!("the image is in use ({who}): try again when it is not");
        if let Some(other) = error.what_to_do() {
            hint = format!("{hint}; otherwise {other}");
        }
        error.hint(hint)
    }

    /// Looks for others, takes our locks, and looks once more: of two that start at once, one sees the other.
    fn lock(&self, path: &Path, usage: Use) -> Result<Option<Conflict>> {
        if let Some(conflict) = self.conflict(path, usage)? {
            return Ok(Some(conflict));
        }
        let ours = if usage.is_alone() { libc::F_WRLCK } else { libc::F_RDLCK };
        let mut whole = self.take(GUESTSEAL, ours)? && self.forbid_writing()?;
        if usage == Use::Write {
            whole =
                whole && self.take(QEMU_WRITES, libc::F_RDLCK)? && self.take(QEMU_RESIZES, libc::F_RDLCK)?;
        }
        let mut conflict = self.conflict(path, usage)?;
        if !whole && conflict.is_none() {
            conflict = Some(Conflict::new("another program took it just now"));
        }
        if conflict.is_some() {
            self.unlock()?;
            self.take(GUESTSEAL, libc::F_UNLCK)?;
        }
        Ok(conflict)
    }

    fn conflict(&self, path: &Path, usage: Use) -> Result<Option<Conflict>> {
        let alone = usage.is_alone();
        let ours = if alone { libc::F_WRLCK } else { libc::F_RDLCK };
        if self.is_refused(&(GUESTSEAL..=GUESTSEAL), ours)? {
            let who = self.name(&(GUESTSEAL..=GUESTSEAL));
            return Ok(Some(Conflict::new(format!("another guestseal{who} works on it"))));
        }
        for byte in [QEMU_WRITES, QEMU_RESIZES] {
            if self.is_refused(&(byte..=byte), libc::F_WRLCK)? {
                let who = self.name(&(byte..=byte));
                return Ok(Some(Conflict::new(format!(
                    "a running guest or another program{who} writes to it"
                ))));
            }
        }
        for bytes in [QEMU_USES, QEMU_FORBIDS] {
            if alone && self.is_refused(&bytes, libc::F_WRLCK)? {
                let who = self.name(&bytes);
                return Ok(Some(Conflict::new(format!(
                    "a running guest or another program{who} reads it (is it the template of a running clone?)"
                ))));
            }
        }
        Ok(self.attached(path, alone)?.map(|user| {
            let device = user.device.display();
            Conflict {
                who: format!("this host has it attached to {device}"),
                hint: format!("unmount what is on it, then: losetup -d {device}"),
            }
        }))
    }

    /// The loop device over the image. One that was let go is waited for: it goes with its last opener, and udev opens each
    /// that changes.
    fn attached(&self, path: &Path, alone: bool) -> Result<Option<LoopUser>> {
        let look = || {
            let mut users = loops_over(&self.file, path)?.into_iter();
            Ok(users.find(|user| alone || !user.read_only))
        };
        let found = look()?;
        if !found.as_ref().is_some_and(|user| user.is_going) {
            return Ok(found);
        }
        let settled = Uevents::listen()?.until(GOING, || {
            Ok(Some(look()?).filter(|found| !found.as_ref().is_some_and(|user| user.is_going)))
        })?;
        settled.map_or_else(look, Ok)
    }

    fn name(&self, bytes: &RangeInclusive<i64>) -> String {
        locker(&self.file, bytes).map_or_else(String::new, |name| format!(", {name},"))
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
        if ours && !self.is_refused(&QEMU_FORBIDS, libc::F_WRLCK)? {
            return Ok(());
        }
        for byte in [QEMU_WRITES, QEMU_RESIZES] {
            self.take(byte, libc::F_UNLCK)?;
        }
        Err(Error::new(ErrorKind::Busy, "another program reads the image and lets nobody write to it")
            .hint("try again when it is done; nothing was written"))
    }

    /// Gives the bytes of qemu's protocol back.
    fn unlock(&self) -> Result<()> {
        for byte in [QEMU_FORBIDS_WRITES, QEMU_FORBIDS_RESIZES, QEMU_WRITES, QEMU_RESIZES] {
            self.take(byte, libc::F_UNLCK)?;
        }
        Ok(())
    }

    fn take(&self, byte: i64, kind: i32) -> Result<bool> {
        take(&self.file, byte, kind).context(|| "cannot lock the image")
    }

    /// Whether a lock of somebody else keeps us from this one.
    fn is_refused(&self, bytes: &RangeInclusive<i64>, kind: i32) -> Result<bool> {
        let mut lock = range(bytes, kind)?;
        fcntl(&self.file, FcntlArg::F_OFD_GETLK(&mut lock)).context(|| "cannot ask for the image's locks")?;
        Ok(i32::from(lock.l_type) != libc::F_UNLCK)
    }
}

/// Locks a file of guestseal's own for as long as it is open: by that a file of a dead run is told from one in use.
/// False when a run holds it.
///
/// # Errors
/// When the filesystem has no locks.
pub(super) fn lock_own(file: &File) -> Result<bool> {
    take(file, GUESTSEAL, libc::F_WRLCK)
}

/// Lets runs that read the file share such a lock; it is still known as one in use.
///
/// # Errors
/// When the filesystem has no locks.
pub(super) fn share_own(file: &File) -> Result<bool> {
    take(file, GUESTSEAL, libc::F_RDLCK)
}

fn take(file: &File, byte: i64, kind: i32) -> Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&range(&(byte..=byte), kind)?)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno).context(|| "cannot lock a file"),
    }
}

/// Opens the file; a block device exclusively, which the kernel refuses while the host has it mounted, as swap, or as a
/// part of something else (open(2), `O_EXCL`).
fn open(path: &Path, usage: Use, is_device: bool) -> Result<(File, Option<Conflict>)> {
    let open = |flags| File::options().read(true).write(usage.is_alone()).custom_flags(flags).open(path);
    let opened = match open(if is_device { libc::O_EXCL } else { 0 }) {
        Err(error) if is_device && error.raw_os_error() == Some(libc::EBUSY) => {
            let hint = "unmount it, or take it out of what it is a part of: see lsblk";
            let holder = path.metadata().ok().and_then(|device| device::holder(device.rdev()));
            let holder = holder.map(|holder| format!(" ({holder})")).unwrap_or_default();
            let who = format!("this host has it mounted, as swap, or as a part of something else{holder}");
            let conflict = Conflict { who, hint: hint.into() };
            // Writing to it is never tried.
            File::open(path).map(|file| (file, Some(conflict)))
        }
        opened => opened.map(|file| (file, None)),
    };
    opened.map_err(|error| cannot_open(path, usage, error))
}

fn cannot_open(path: &Path, usage: Use, error: io::Error) -> Error {
    use io::ErrorKind::{IsADirectory, PermissionDenied, ReadOnlyFilesystem};
    let kind = error.kind();
    if kind == IsADirectory {
        return Error::usage(format!("{} is a folder, not an image", path.display()));
    }
    let failed = Error::failed(format!("cannot open {}", path.display())).caused_by(error);
    if usage.is_alone() && matches!(kind, PermissionDenied | ReadOnlyFilesystem) {
        return failed.hint("put the result elsewhere with --output NEW, which only reads the image");
    }
    failed
}

fn range(bytes: &RangeInclusive<i64>, kind: i32) -> Result<libc::flock> {
    let narrow = |number: i32| i16::try_from(number).context(|| "lock types fit in 16 bits");
    Ok(libc::flock {
        l_type: narrow(kind)?,
        l_whence: narrow(libc::SEEK_SET)?,
        l_start: *bytes.start(),
        l_len: bytes.end() - bytes.start() + 1,
        l_pid: 0,
    })
}
