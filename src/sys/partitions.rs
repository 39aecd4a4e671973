//! The partitions that the kernel finds by itself when a disk is opened. On a host they go: udev would offer them to
//! everything that takes disks (volume groups, arrays), and volumes are cut out elsewhere. In a machine of our own they
//! are what is mounted.
#![expect(unsafe_code, reason = "the ioctl takes a structure that points to another one")]

use std::ffi::c_void;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::ptr;

use nix::errno::Errno;
use nix::libc::{c_char, c_int};

/// `struct blkpg_partition` of linux/blkpg.h.
#[repr(C)]
struct Partition {
    start: i64,
    length: i64,
    number: c_int,
    names: [c_char; 128],
}

/// `struct blkpg_ioctl_arg` of linux/blkpg.h.
#[repr(C)]
struct Request {
    operation: c_int,
    flags: c_int,
    length: c_int,
    data: *mut c_void,
}

/// `BLKPG_DEL_PARTITION`.
const DELETE: c_int = 2;
/// `BLKPG_RESIZE_PARTITION`.
const RESIZE: c_int = 3;

mod ioctl {
    nix::ioctl_write_ptr_bad!(blkpg, nix::request_code_none!(0x12, 105), super::Request);
}

/// Takes the partitions of a disk out of the kernel's sight; what is on the disk is not touched. `name` is the
/// disk's in /sys/block. One that somebody has open stays.
pub(super) fn forget_partitions(disk: &File, name: &str) {
    let entries = fs::read_dir(format!("/sys/block/{name}")).into_iter().flatten().flatten();
    for entry in entries {
        let number = fs::read_to_string(entry.path().join("partition")).ok();
        if let Some(number) = number.and_then(|number| number.trim().parse().ok()) {
            // Best effort: what cannot go now goes when the device does, or with the next look at the disk.
            let _ = delete(disk, number);
        }
    }
}

/// The kernel's own device of the partition of a disk that has these bytes; none when it has no such one.
pub fn find_partition(disk: &Path, start: u64, length: u64) -> Option<PathBuf> {
    let folder = Path::new("/sys/class/block").join(disk.file_name()?);
    fs::read_dir(folder).ok()?.flatten().find_map(|entry| {
        let sectors =
            |name: &str| fs::read_to_string(entry.path().join(name)).ok()?.trim().parse::<u64>().ok();
        sectors("partition")?;
        // Whatever the disk's sectors are, sysfs counts in 512 bytes.
        let is_it = sectors("start")? == start / 512 && sectors("size")? == length / 512;
        is_it.then(|| Path::new("/dev").join(entry.file_name())).filter(|path| path.exists())
    })
}

/// Tells the kernel that a partition of a disk has another length, in bytes; nothing where it knows of no such partition.
///
/// # Errors
/// EBUSY when it would reach into another one.
pub fn resize_partition(disk: impl AsFd, number: u32, start: u64, length: u64) -> nix::Result<()> {
    let wide = |bytes| i64::try_from(bytes).map_err(|_| Errno::EOVERFLOW);
    let number = c_int::try_from(number).map_err(|_| Errno::EOVERFLOW)?;
    match ask(disk, RESIZE, Partition { start: wide(start)?, length: wide(length)?, number, names: [0; 128] })
    {
        Err(Errno::ENXIO) => Ok(()),
        result => result,
    }
}

fn delete(disk: impl AsFd, number: c_int) -> nix::Result<()> {
    ask(disk, DELETE, Partition { start: 0, length: 0, number, names: [0; 128] })
}

fn ask(disk: impl AsFd, operation: c_int, mut partition: Partition) -> nix::Result<()> {
    let request = Request {
        operation,
        flags: 0,
        length: c_int::try_from(size_of::<Partition>()).unwrap_or(c_int::MAX),
        data: ptr::from_mut(&mut partition).cast(),
    };
    // SAFETY: both structures have the kernel's layout and live until the call returns; it only reads them.
    unsafe { ioctl::blkpg(disk.as_fd().as_raw_fd(), &raw const request) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_kernels_size() {
        assert_eq!(size_of::<Partition>(), 152);
        assert_eq!(size_of::<Request>(), 12 + 4 + size_of::<usize>());
        assert_eq!(nix::request_code_none!(0x12, 105), 0x1269);
    }
}
