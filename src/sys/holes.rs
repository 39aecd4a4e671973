//! Where a file has data: its holes are known to read as zero, and need not be read (lseek(2), `SEEK_DATA`). And making
//! holes (fallocate(2), `FALLOC_FL_PUNCH_HOLE`).

#![forbid(unsafe_code)]

use std::ops::Range;
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek};

/// The next bytes at or after `from` and before `end` that may be other than zero; None when there are none. Where holes
/// cannot be told from data, as on block devices and some filesystems, all is data. It moves the file's own position.
///
/// # Errors
/// When the filesystem fails.
pub fn next_data(file: impl AsFd, from: u64, end: u64) -> nix::Result<Option<Range<u64>>> {
    if from >= end {
        return Ok(None);
    }
    let Some(start) = first_data(&file, from)?.filter(|start| *start < end) else { return Ok(None) };
    Ok(Some(start..data_end(file, start, end)?))
}

/// Where the data that is at `start` ends: at a hole, or at `end`. It moves the file's own position.
///
/// # Errors
/// When the filesystem fails.
pub fn data_end(file: impl AsFd, start: u64, end: u64) -> nix::Result<u64> {
    match seek(file, start, Whence::SeekHole) {
        Ok(hole) if hole > start => Ok(hole.min(end)),
        // It knows of no holes; or it says that data is a hole, or ended meanwhile.
        Ok(_) | Err(Errno::ENXIO | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(end),
        Err(errno) => Err(errno),
    }
}

/// Makes a hole of these bytes, which then read as zero; the file keeps its length. False when this file takes no
/// holes.
///
/// # Errors
/// When the filesystem fails.
pub fn punch(file: impl AsFd, bytes: Range<u64>) -> nix::Result<bool> {
    let number = |bytes| i64::try_from(bytes).map_err(|_| Errno::EFBIG);
    let (start, length) = (number(bytes.start)?, number(bytes.end.saturating_sub(bytes.start))?);
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    loop {
        match fallocate(&file, flags, start, length) {
            Ok(()) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::ENODEV) => return Ok(false),
            Err(errno) => return Err(errno),
        }
    }
}

/// Where the first data at or after `from` is; None when there is only a hole.
///
/// # Errors
/// When the filesystem fails.
pub fn first_data(file: impl AsFd, from: u64) -> nix::Result<Option<u64>> {
    match seek(file, from, Whence::SeekData) {
        // A server of files that goes backwards would be asked for ever.
        Ok(start) => Ok(Some(start.max(from))),
        Err(Errno::ENXIO) => Ok(None),
        Err(Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(Some(from)),
        Err(errno) => Err(errno),
    }
}

fn seek(file: impl AsFd, at: u64, whence: Whence) -> nix::Result<u64> {
    let at = i64::try_from(at).map_err(|_| Errno::EOVERFLOW)?;
    u64::try_from(lseek(file, at, whence)?).map_err(|_| Errno::EOVERFLOW)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn holes_are_passed_over_and_the_range_is_kept() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 40).unwrap();
        file.write_all_at(&[1; 8192], 1 << 30).unwrap();
        let data = (1 << 30)..(1 << 30) + 8192;
        assert_eq!(next_data(&file, 0, 1 << 40), Ok(Some(data.clone())));
        assert_eq!(
            next_data(&file, data.start + 1, data.start + 5),
            Ok(Some(data.start + 1..data.start + 5))
        );
        assert_eq!(next_data(&file, data.end, 1 << 40), Ok(None));
        assert_eq!(next_data(&file, 0, 4096), Ok(None));
        assert_eq!(next_data(&file, 5, 5), Ok(None));
        assert_eq!(next_data(&file, u64::MAX - 1, u64::MAX), Err(Errno::EOVERFLOW));
    }

    #[test]
    fn a_hole_is_punched_where_the_file_takes_one() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 12288], 0).unwrap();
        assert_eq!(punch(&file, 4096..8192), Ok(true));
        assert_eq!((next_data(&file, 1, 12288), file.metadata().unwrap().len()), (Ok(Some(1..4096)), 12288));
        assert_eq!(next_data(&file, 4096, 12288), Ok(Some(8192..12288)));
        let (_read, write) = std::io::pipe().unwrap();
        assert_eq!(punch(&write, 0..4096), Err(Errno::ESPIPE));
        assert_eq!(punch(&file, 0..u64::MAX), Err(Errno::EFBIG));
    }

    #[test]
    fn where_holes_are_not_known_all_is_data() {
        // proc(5) knows of none.
        let file = std::fs::File::open("/proc/self/status").unwrap();
        assert_eq!(next_data(&file, 3, 99), Ok(Some(3..99)));
    }
}
