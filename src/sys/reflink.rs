//! What a filesystem can do for files as a whole: share their blocks with another (ioctl_ficlone(2)), and keep them from
//! being changed by anybody (ioctl_iflags(2)).
#![expect(unsafe_code, reason = "ioctl(2) has no safe form for these requests")]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// `FS_IMMUTABLE_FL` of linux/fs.h: not even root writes, renames or removes it.
const IMMUTABLE: i32 = 0x10;

mod raw {
    nix::ioctl_write_int_bad!(ficlone, nix::request_code_write!(0x94, 9, size_of::<i32>()));
    // The kernel reads and writes an int, whatever the request's number says of its length.
    nix::ioctl_read_bad!(getflags, nix::request_code_read!(b'f', 1, size_of::<usize>()), i32);
    nix::ioctl_write_ptr_bad!(setflags, nix::request_code_write!(b'f', 2, size_of::<usize>()), i32);
}

/// Gives an empty file the content of another, whose blocks both then share. False when they cannot: on filesystems that
/// share no blocks, and on different ones.
///
/// # Errors
/// Other failures of the filesystem.
pub fn reflink(from: &File, to: &File) -> nix::Result<bool> {
    // SAFETY: the request takes a descriptor, and both are open.
    match unsafe { raw::ficlone(to.as_raw_fd(), from.as_raw_fd()) } {
        Ok(_) => Ok(true),
        Err(Errno::EOPNOTSUPP | Errno::EXDEV | Errno::EINVAL | Errno::ENOTTY | Errno::ENOSYS) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Makes a file immutable, or not any more. False when it cannot be: the filesystem knows no such thing, or this user may
/// not.
///
/// # Errors
/// Other failures of the filesystem.
pub fn set_immutable(file: impl AsFd, immutable: bool) -> nix::Result<bool> {
    let cannot = |errno| match errno {
        Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::EPERM | Errno::EACCES | Errno::ENOSYS => Ok(false),
        errno => Err(errno),
    };
    let (file, mut flags) = (file.as_fd().as_raw_fd(), 0);
    // SAFETY: the kernel writes one int, which `flags` is.
    if let Err(errno) = unsafe { raw::getflags(file, &raw mut flags) } {
        return cannot(errno);
    }
    let wanted = if immutable { flags | IMMUTABLE } else { flags & !IMMUTABLE };
    if wanted == flags {
        return Ok(true);
    }
    // SAFETY: the kernel reads one int, which `wanted` is.
    unsafe { raw::setflags(file, &raw const wanted) }.map_or_else(cannot, |_| Ok(true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_shares_blocks_has_the_same_content() {
        let (mut from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.write_all(&[7; 8192]).unwrap();
        let shared = reflink(&from, &to).unwrap();
        assert_eq!(to.metadata().unwrap().len(), if shared { 8192 } else { 0 });
    }

    #[test]
    fn what_is_immutable_is_not_written_until_it_is_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        if !set_immutable(file.as_file(), true).unwrap() {
            eprintln!("SKIPPED: immutable files need root, and a filesystem that has them");
            return;
        }
        let opened = File::options().write(true).open(file.path());
        assert!(set_immutable(file.as_file(), false).unwrap());
        assert!(opened.is_err());
        assert!(File::options().write(true).open(file.path()).is_ok());
    }
}
