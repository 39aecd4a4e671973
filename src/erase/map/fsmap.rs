//! The free extents of a mounted ext2, ext3, ext4 or xfs, asked of the kernel with `FS_IOC_GETFSMAP`
//! (ioctl_getfsmap(2)).

#![forbid(unsafe_code)]

use std::os::fd::AsFd;

use nix::errno::Errno;

use crate::erase::extent::{Extent, Extents};
use crate::error::{Context, Error, Result};
use crate::sys::ioctl::{SpaceMap, SpaceRecord};

/// `FMR_OF_SPECIAL_OWNER` and `FMR_OWN_FREE` of linux/fsmap.h: a record of space that nothing owns.
const SPECIAL_OWNER: u32 = 0x10;
const OWN_FREE: u64 = 1;

/// The most records that are read of one filesystem: an xfs with reverse mappings gives one an extent of every file.
const MOST_RECORDS: u64 = 64 << 20;

/// The free extents of the filesystem that `mounted` is a directory or file of, in bytes from the start of its volume.
///
/// What the allocator of a filesystem that is mounted for writing holds back for open files counts as used, and what
/// was freed since its last commit as well: ask a fresh mount, read-only does.
///
/// # Errors
/// When this kernel or filesystem gives no map, the map is in too many pieces, or the filesystem has a second device.
pub fn free_extents(mounted: impl AsFd) -> Result<Extents> {
    let device = nix::sys::stat::fstat(&mounted).context(|| "cannot look at the mounted filesystem")?.st_dev;
    let mut records = Records::new(mounted, device);
    let mut failure = None;
    let free = std::iter::from_fn(|| {
        records.next().unwrap_or_else(|error| {
            failure = Some(error);
            None
        })
    })
    .filter(|record| record.flags & SPECIAL_OWNER != 0 && record.owner == OWN_FREE)
    .map(|record| Extent { start: record.physical, length: record.length });
    let free = Extents::new(free)?;
    failure.map_or(Ok(free), Err)
}

/// The records of a map, read page by page.
struct Records<F> {
    mounted: F,
    device: u64,
    map: SpaceMap,
    /// The next record of the page.
    next: usize,
    /// How many records were given.
    given: u64,
    over: bool,
}

impl<F: AsFd> Records<F> {
    fn new(mounted: F, device: u64) -> Self {
        Self { mounted, device, map: SpaceMap::default(), next: 0, given: 0, over: false }
    }

    /// The next record; none behind the last one.
    fn next(&mut self) -> Result<Option<SpaceRecord>> {
        if self.next >= self.map.records().len() && !self.over {
            self.turn()?;
        }
        let Some(record) = self.map.records().get(self.next).copied() else { return Ok(None) };
        self.next += 1;
        self.given += 1;
        if self.given > MOST_RECORDS {
            return Err(Error::unsupported(format!("its space is in more than {MOST_RECORDS} pieces")));
        }
        if u64::from(record.device) != self.device {
            return Err(Error::unsupported("the filesystem is on more than one device"));
        }
        Ok(Some(record))
    }

    /// Reads the page behind the one that is there.
    fn turn(&mut self) -> Result<()> {
        let before = self.map.records().last().copied();
        self.map.read_next(&self.mounted).map_err(refused)?;
        if !self.map.names_devices() {
            return Err(Error::unsupported("this host's kernel does not say which device its map is of"));
        }
        let last = self.map.records().last().copied();
        if last.is_some_and(|last| before.is_some_and(|before| stands(&before, &last))) {
            return Err(Error::failed("this host's kernel gives a map of the free space that does not end"));
        }
        self.next = 0;
        self.over = last.is_none_or(SpaceRecord::is_last);
        Ok(())
    }
}

/// Whether a page ends no further than the one before it. Shared space has several records with one start.
fn stands(before: &SpaceRecord, last: &SpaceRecord) -> bool {
    let place = |record: &SpaceRecord| (record.device, record.physical, record.owner, record.offset);
    last.physical < before.physical || place(last) == place(before)
}

fn refused(errno: Errno) -> Error {
    match errno {
        Errno::ENOTTY | Errno::EOPNOTSUPP | Errno::ENOSYS => {
            Error::unsupported("this host's kernel gives no map of its free space").caused_by(errno)
        }
        _ => Error::failed("cannot read the map of the free space").caused_by(errno),
    }
}
