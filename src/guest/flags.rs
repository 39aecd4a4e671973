//! The attributes immutable and append-only (chattr(1)), which refuse changes even to root.

#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};

const LOCKING: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);

/// Runs `change`; when the kernel answers EPERM, takes immutable and append-only off these files, runs it once more
/// and puts the attributes back where the file still has a name or is a folder.
///
/// # Errors
/// The error of `change`, or of putting the attributes back.
pub(super) fn with_attributes_lifted<T>(
    files: &[&OwnedFd],
    mut change: impl FnMut() -> nix::Result<T>,
) -> nix::Result<T> {
    match change() {
        Err(Errno::EPERM) => {}
        result => return result,
    }
    let mut lifted = Vec::new();
    for file in files {
        // A filesystem without attributes has none to lift: then EPERM stands.
        let Ok(flags) = ioctl_getflags(file) else { continue };
        if flags.intersects(LOCKING) {
            ioctl_setflags(file, flags.difference(LOCKING)).map_err(errno)?;
            lifted.push((file, flags));
        }
    }
    if lifted.is_empty() {
        return Err(Errno::EPERM);
    }
    let result = change();
    for (file, flags) in lifted {
        ioctl_setflags(file, flags).map_err(errno)?;
    }
    result
}

/// Gives a file that took another's place its immutable and append-only attributes.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn keep_attributes(old: Option<&OwnedFd>, new: Option<&OwnedFd>) -> nix::Result<()> {
    let (Some(old), Some(new)) = (old, new) else { return Ok(()) };
    // A filesystem without attributes has none to keep.
    let (Ok(old), Ok(flags)) = (ioctl_getflags(old), ioctl_getflags(new)) else { return Ok(()) };
    let locking = old & LOCKING;
    if locking.is_empty() { Ok(()) } else { ioctl_setflags(new, flags | locking).map_err(errno) }
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_raw(error.raw_os_error())
}
