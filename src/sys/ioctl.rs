//! The ioctls that no crate offers, fenced here with their `unsafe`: one safe function each.
#![expect(unsafe_code, reason = "ioctl(2) has no safe form for these requests")]

use std::os::fd::{AsFd, AsRawFd, RawFd};

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

const NO_INFO: LoopInfo64 = LoopInfo64 {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

const LOOP_CONFIGURE: u64 = 0x4C0A;
const LOOP_CLR_FD: u64 = 0x4C01;
const LOOP_GET_STATUS64: u64 = 0x4C05;
const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

mod raw {
    nix::ioctl_write_ptr_bad!(loop_configure, super::LOOP_CONFIGURE, super::LoopConfig);
    nix::ioctl_none_bad!(loop_clr_fd, super::LOOP_CLR_FD);
    nix::ioctl_read_bad!(loop_get_status64, super::LOOP_GET_STATUS64, super::LoopInfo64);
    nix::ioctl_read!(blkgetsize64, 0x12, 114, usize);
    nix::ioctl_readwrite!(getfsmap, b'X', 59, super::FsmapHead);
}

/// `struct fsmap` of linux/fsmap.h: what owns a stretch of a filesystem's device.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceRecord {
    /// The device as stat(2) numbers it, where the map names devices.
    pub device: u32,
    /// `FMR_OF_*`.
    pub flags: u32,
    /// First byte on the device.
    pub physical: u64,
    /// An inode number, or one of `FMR_OWN_*` when the flags say that the owner is special.
    pub owner: u64,
    /// First byte in the owner.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    reserved: [u64; 3],
}

const FMR_OF_LAST: u32 = 0x8000_0000;
const FMH_OF_DEV_T: u32 = 1;

impl SpaceRecord {
    const LOWEST: Self =
        Self { device: 0, flags: 0, physical: 0, owner: 0, offset: 0, length: 0, reserved: [0; 3] };
    const HIGHEST: Self = Self {
        device: u32::MAX,
        flags: u32::MAX,
        physical: u64::MAX,
        owner: u64::MAX,
        offset: u64::MAX,
        ..Self::LOWEST
    };

    /// Whether it is the last one of the filesystem.
    #[must_use]
    pub fn is_last(self) -> bool {
        self.flags & FMR_OF_LAST != 0
    }
}

/// `struct fsmap_head` of linux/fsmap.h.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct FsmapHead {
    in_flags: u32,
    out_flags: u32,
    count: u32,
    entries: u32,
    reserved: [u64; 6],
    keys: [SpaceRecord; 2],
}

/// Records of a page, and what the kernel is told of it: the same number.
const PAGE: usize = 1024;
const PAGE_COUNT: u32 = 1024;

/// A page of the map of a filesystem's space (linux/fsmap.h `FS_IOC_GETFSMAP`).
#[derive(Debug)]
pub struct SpaceMap(Box<FsmapPage>);

#[repr(C)]
#[derive(Debug)]
struct FsmapPage {
    head: FsmapHead,
    records: [SpaceRecord; PAGE],
}

impl Default for SpaceMap {
    /// The page before the first one: it has no records.
    fn default() -> Self {
        let keys = [SpaceRecord::LOWEST, SpaceRecord::HIGHEST];
        let head =
            FsmapHead { in_flags: 0, out_flags: 0, count: PAGE_COUNT, entries: 0, reserved: [0; 6], keys };
        Self(Box::new(FsmapPage { head, records: [SpaceRecord::LOWEST; PAGE] }))
    }
}

impl SpaceMap {
    /// The records of this page, in order; none of what the kernel says is checked.
    pub fn records(&self) -> &[SpaceRecord] {
        let entries = usize::try_from(self.0.head.entries).unwrap_or(PAGE);
        &self.0.records[..entries.min(PAGE)]
    }

    /// Whether the records name their devices by numbers of stat(2).
    pub fn names_devices(&self) -> bool {
        self.0.head.out_flags & FMH_OF_DEV_T != 0
    }

    /// Reads the page behind this one of the filesystem that `mounted` belongs to.
    ///
    /// # Errors
    /// ENOTTY or EOPNOTSUPP when the kernel has no map of such a filesystem.
    pub fn read_next(&mut self, mounted: impl AsFd) -> nix::Result<()> {
        if let Some(last) = self.records().last().copied() {
            self.0.head.keys[0] = last;
        }
        self.0.head.entries = 0;
        let fd = mounted.as_fd().as_raw_fd();
        // SAFETY: the kernel reads one struct fsmap_head and writes it and at most `count` records behind it, all of
        // which are in the page that the pointer is made from.
        unsafe { raw::getfsmap(fd, (&raw mut *self.0).cast()) }.map(drop)
    }
}

/// What a loop device shows of its backing file.
#[derive(Debug, Clone, Copy)]
pub struct LoopWindow {
    /// First byte of the backing file.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// Logical block size in bytes.
    pub block_size: u32,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// Sets up a free loop device in one step, with autoclear: it goes with its last user (linux/loop.h `LOOP_CONFIGURE`).
///
/// # Errors
/// EBUSY when somebody else took the device in between.
pub fn loop_configure(device: RawFd, backing: impl AsFd, window: LoopWindow) -> nix::Result<()> {
    let flags = LO_FLAGS_AUTOCLEAR | if window.read_only { LO_FLAGS_READ_ONLY } else { 0 };
    let info = LoopInfo64 { offset: window.offset, size_limit: window.length, flags, ..NO_INFO };
    let fd = u32::try_from(backing.as_fd().as_raw_fd()).map_err(|_| nix::errno::Errno::EBADF)?;
    let config = LoopConfig { fd, block_size: window.block_size, info, reserved: [0; 8] };
    // SAFETY: `config` is laid out as the kernel's struct loop_config and lives through the call.
    unsafe { raw::loop_configure(device, &raw const config) }.map(drop)
}

/// Detaches a loop device from its file, now or when its last user closes it.
///
/// # Errors
/// ENXIO when it is not attached.
pub fn loop_clear(device: RawFd) -> nix::Result<()> {
    // SAFETY: the request takes no argument.
    unsafe { raw::loop_clr_fd(device) }.map(drop)
}

/// The file behind a loop device: the device and inode that stat(2) gives for it.
///
/// # Errors
/// ENXIO when it is not attached.
pub fn loop_backing(device: impl AsFd) -> nix::Result<(u64, u64)> {
    let mut info = NO_INFO;
    // SAFETY: the kernel writes one struct loop_info64, which `info` is laid out as.
    unsafe { raw::loop_get_status64(device.as_fd().as_raw_fd(), &raw mut info) }?;
    Ok((info.device, info.inode))
}

/// The length of a block device in bytes (ioctl `BLKGETSIZE64`).
///
/// # Errors
/// ENOTTY when it is no block device.
pub fn block_device_bytes(device: impl AsFd) -> nix::Result<u64> {
    let mut bytes = 0usize;
    // SAFETY: the kernel writes one u64 and usize has 64 bits on every target this builds for (checked below).
    unsafe { raw::blkgetsize64(device.as_fd().as_raw_fd(), &raw mut bytes) }?;
    u64::try_from(bytes).map_err(|_| nix::errno::Errno::EOVERFLOW)
}

const _: () = assert!(size_of::<usize>() == size_of::<u64>(), "guestseal needs a 64-bit target");
const _: () = assert!(size_of::<LoopInfo64>() == 232, "struct loop_info64 of linux/loop.h");
const _: () = assert!(size_of::<LoopConfig>() == 304, "struct loop_config of linux/loop.h");
const _: () = assert!(size_of::<SpaceRecord>() == 64, "struct fsmap of linux/fsmap.h");
const _: () = assert!(size_of::<FsmapHead>() == 192, "struct fsmap_head of linux/fsmap.h");
const _: () = assert!(size_of::<FsmapPage>() == 192 + 64 * PAGE, "records lie behind the head");
const _: () = assert!(PAGE_COUNT as usize == PAGE, "the kernel is told of all records and no more");
