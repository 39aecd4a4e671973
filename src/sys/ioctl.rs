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
const BTRFS_IOC_TREE_SEARCH_V2: u64 = 0xC070_9411;
const FS_IOC_FIEMAP: u64 = 0xC020_660B;
/// Length of `struct btrfs_ioctl_search_key`; the length of the buffer stands behind it.
const BTRFS_KEY: usize = 104;
/// Length of `struct btrfs_ioctl_search_args_v2` before its items.
pub const BTRFS_SEARCH_HEAD: usize = BTRFS_KEY + 8;
const FIEMAP_FLAG_SYNC: u32 = 1;
/// Extents that one call of [`fiemap`] gives at most.
pub const FIEMAP_PAGE: usize = 512;

mod raw {
    nix::ioctl_write_ptr_bad!(loop_configure, super::LOOP_CONFIGURE, super::LoopConfig);
    nix::ioctl_none!(rndreseedcrng, b'R', 7);
    nix::ioctl_none_bad!(loop_clr_fd, super::LOOP_CLR_FD);
    nix::ioctl_read_bad!(loop_get_status64, super::LOOP_GET_STATUS64, super::LoopInfo64);
    nix::ioctl_read!(blkgetsize64, 0x12, 114, usize);
    nix::ioctl_write_ptr_bad!(blkdiscard, nix::request_code_none!(0x12, 119), [u64; 2]);
    nix::ioctl_none_bad!(blkflsbuf, nix::request_code_none!(0x12, 97));
    nix::ioctl_readwrite!(getfsmap, b'X', 59, super::FsmapHead);
    nix::ioctl_readwrite_bad!(btrfs_tree_search_v2, super::BTRFS_IOC_TREE_SEARCH_V2, u8);
    nix::ioctl_read!(btrfs_fs_info, 0x94, 31, [u8; 1024]);
    nix::ioctl_read!(btrfs_features, 0x94, 57, [u64; 3]);
    nix::ioctl_readwrite!(btrfs_ino_lookup, 0x94, 18, [u8; 4096]);
    nix::ioctl_readwrite_bad!(fiemap, super::FS_IOC_FIEMAP, super::FiemapPage);
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

/// What `BTRFS_IOC_TREE_SEARCH_V2` shall find: every item of a tree whose key is not before `from` and not behind `to`.
/// A key is object id, type and offset, compared in this order.
#[derive(Debug, Clone, Copy)]
pub struct BtrfsSearch {
    /// The id of the tree.
    pub tree: u64,
    /// The first key.
    pub from: (u64, u8, u64),
    /// The last key.
    pub to: (u64, u8, u64),
}

/// Reads items of a tree of a mounted btrfs into `buffer`, behind [`BTRFS_SEARCH_HEAD`] bytes of its own, and returns
/// how many (linux/btrfs.h). Each is a `struct btrfs_ioctl_search_header` of 32 bytes and the item's bytes.
///
/// # Errors
/// ENOENT when there is no such tree, EOVERFLOW when the first item is longer than the buffer, EPERM without
/// `CAP_SYS_ADMIN`.
pub fn btrfs_tree_search(mounted: impl AsFd, search: &BtrfsSearch, buffer: &mut [u8]) -> nix::Result<u32> {
    let items = buffer.len().checked_sub(BTRFS_SEARCH_HEAD).ok_or(nix::errno::Errno::EINVAL)? as u64;
    let (from, to) = (search.from, search.to);
    let words = [search.tree, from.0, to.0, from.2, to.2, 0, u64::MAX].map(u64::to_ne_bytes);
    let halves = [from.1.into(), to.1.into(), u32::MAX, 0].map(u32::to_ne_bytes);
    let key = words.as_flattened().iter().chain(halves.as_flattened()).chain(&[0; 32]);
    for (to, from) in buffer.iter_mut().zip(key.chain(&items.to_ne_bytes())) {
        *to = *from;
    }
    // SAFETY: `buffer` begins with a whole struct btrfs_ioctl_search_args_v2, whose buf_size is what lies behind it.
    unsafe { raw::btrfs_tree_search_v2(mounted.as_fd().as_raw_fd(), buffer.as_mut_ptr()) }?;
    let found = buffer.get(64..68).and_then(|bytes| bytes.try_into().ok());
    Ok(found.map_or(0, u32::from_ne_bytes))
}

/// `struct btrfs_ioctl_fs_info_args` of the btrfs that `mounted` is in, with its checksums and its metadata UUID.
///
/// # Errors
/// ENOTTY when it is no btrfs.
pub fn btrfs_fs_info(mounted: impl AsFd) -> nix::Result<[u8; 1024]> {
    const CSUM_INFO: u64 = 1;
    const METADATA_UUID: u64 = 4;
    let mut info = [0; 1024];
    info[48..56].copy_from_slice(&(CSUM_INFO | METADATA_UUID).to_ne_bytes());
    // SAFETY: the kernel reads and writes one struct btrfs_ioctl_fs_info_args, which has 1024 bytes.
    unsafe { raw::btrfs_fs_info(mounted.as_fd().as_raw_fd(), &raw mut info) }?;
    Ok(info)
}

/// The features of a mounted btrfs: compatible, compatible when read, incompatible.
///
/// # Errors
/// ENOTTY when it is no btrfs.
pub fn btrfs_features(mounted: impl AsFd) -> nix::Result<[u64; 3]> {
    let mut features = [0; 3];
    // SAFETY: the kernel writes one struct btrfs_ioctl_feature_flags, three u64.
    unsafe { raw::btrfs_features(mounted.as_fd().as_raw_fd(), &raw mut features) }?;
    Ok(features)
}

/// The path of a folder in its subvolume, with a slash at its end; empty for the subvolume's own folder.
///
/// # Errors
/// ENOENT when there is none, ENAMETOOLONG for paths of 4 KiB.
pub fn btrfs_folder_path(mounted: impl AsFd, subvolume: u64, folder: u64) -> nix::Result<Vec<u8>> {
    let mut lookup = [0; 4096];
    lookup[..8].copy_from_slice(&subvolume.to_ne_bytes());
    lookup[8..16].copy_from_slice(&folder.to_ne_bytes());
    // SAFETY: the kernel reads and writes one struct btrfs_ioctl_ino_lookup_args, which has 4096 bytes.
    unsafe { raw::btrfs_ino_lookup(mounted.as_fd().as_raw_fd(), &raw mut lookup) }?;
    Ok(lookup[16..].iter().copied().take_while(|byte| *byte != 0).collect())
}

/// `struct fiemap_extent` of linux/fiemap.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct FiemapExtent {
    /// Its first byte in the file.
    pub logical: u64,
    /// Its first byte on the volume.
    pub physical: u64,
    /// Its length in bytes.
    pub length: u64,
    reserved64: [u64; 2],
    /// `FIEMAP_EXTENT_…`
    pub flags: u32,
    reserved: [u32; 3],
}

/// `struct fiemap` of linux/fiemap.h with room for extents.
#[repr(C)]
struct FiemapPage {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
    extents: [FiemapExtent; FIEMAP_PAGE],
}

/// Where a file's bytes from `start` on lie, after what is still to be written of it was: at most [`FIEMAP_PAGE`]
/// extents in the order of the file, the first of which may begin before `start`.
///
/// # Errors
/// EOPNOTSUPP when the filesystem cannot tell.
pub fn fiemap(file: impl AsFd, start: u64) -> nix::Result<Vec<FiemapExtent>> {
    let room = u32::try_from(FIEMAP_PAGE).map_err(|_| nix::errno::Errno::EINVAL)?;
    let mut page = Box::new(FiemapPage {
        start,
        length: u64::MAX - start,
        flags: FIEMAP_FLAG_SYNC,
        mapped: 0,
        count: room,
        reserved: 0,
        extents: [FiemapExtent::default(); FIEMAP_PAGE],
    });
    // SAFETY: the kernel writes at most `count` extents, and the page has room for that many.
    unsafe { raw::fiemap(file.as_fd().as_raw_fd(), &raw mut *page) }?;
    let mapped = usize::try_from(page.mapped).map_err(|_| nix::errno::Errno::EOVERFLOW)?;
    Ok(page.extents.iter().copied().take(mapped).collect())
}

const _: () = assert!(size_of::<FiemapExtent>() == 56, "struct fiemap_extent of linux/fiemap.h");

/// Has the kernel make its random numbers from all that was mixed in so far, on a descriptor of /dev/urandom (ioctl
/// `RNDRESEEDCRNG`).
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN.
pub fn renew_random_numbers(random: impl AsFd) -> nix::Result<()> {
    // SAFETY: the request has no argument.
    unsafe { raw::rndreseedcrng(random.as_fd().as_raw_fd()) }.map(drop)
}

/// Discards a range of a block device (ioctl `BLKDISCARD`): a request, which the device may pass over.
///
/// # Errors
/// EOPNOTSUPP when the device takes no such request, EINVAL when the range is not of whole sectors.
pub fn block_device_discard(device: impl AsFd, start: u64, length: u64) -> nix::Result<()> {
    let range = [start, length];
    // SAFETY: the kernel reads two u64, which `range` is.
    unsafe { raw::blkdiscard(device.as_fd().as_raw_fd(), &raw const range) }.map(drop)
}

/// Writes out and forgets what the kernel keeps in memory of a block device (BLKFLSBUF).
pub fn forget_pages(device: impl AsFd) -> nix::Result<()> {
    // SAFETY: the request takes no argument.
    unsafe { raw::blkflsbuf(device.as_fd().as_raw_fd()) }.map(drop)
}

const _: () = assert!(size_of::<usize>() == size_of::<u64>(), "guestseal needs a 64-bit target");
const _: () = assert!(size_of::<LoopInfo64>() == 232, "struct loop_info64 of linux/loop.h");
const _: () = assert!(size_of::<LoopConfig>() == 304, "struct loop_config of linux/loop.h");
const _: () = assert!(size_of::<SpaceRecord>() == 64, "struct fsmap of linux/fsmap.h");
const _: () = assert!(size_of::<FsmapHead>() == 192, "struct fsmap_head of linux/fsmap.h");
const _: () = assert!(size_of::<FsmapPage>() == 192 + 64 * PAGE, "records lie behind the head");
const _: () = assert!(PAGE_COUNT as usize == PAGE, "the kernel is told of all records and no more");
