//! Where a file has data: its holes are known to read as zero, and need not be read (lseek(2), `SEEK_DATA`).

#![forbid(unsafe_code)]

use std::ops::Range;
use std::os::fd::AsFd;

use nix::errno::Errno;
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
    match seek(&file, start, Whence::SeekHole) {
        Ok(hole) if hole > start => Ok(Some(start..hole.min(end))),
        // It knows of no holes; or it says that data is a hole, or ended meanwhile.
        Ok(_) | Err(Errno::ENXIO | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(Some(start..end)),
        Err(errno) => Err(errno),
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
    fn where_holes_are_not_known_all_is_data() {
        // proc(5) knows of none.
        let file = std::fs::File::open("/proc/self/status").unwrap();
        assert_eq!(next_data(&file, 3, 99), Ok(Some(3..99)));
    }
}
