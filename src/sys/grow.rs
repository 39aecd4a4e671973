//! Having the kernel take more room: a mounted filesystem that of the device it is on.
#![expect(unsafe_code, reason = "ioctl(2) has no safe form for these requests")]

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// `struct xfs_growfs_data` of xfs_fs.h.
#[repr(C)]
struct XfsGrow {
    blocks: u64,
    inode_percent: u32,
}

/// `struct xfs_fsop_geom_v1` of xfs_fs.h.
#[repr(C)]
#[derive(Default)]
struct XfsGeometry {
    /// Block, realtime extent, group, number of groups, log, sector, inode, and the most that inodes may take in percent.
    sizes: [u32; 8],
    /// Data blocks, realtime blocks and extents, start of the log.
    lengths: [u64; 4],
    uuid: [u8; 16],
    others: [u32; 7],
}

/// `struct btrfs_ioctl_vol_args` of linux/btrfs.h.
#[repr(C)]
struct BtrfsVolume {
    fd: i64,
    name: [u8; 4088],
}

mod raw {
    nix::ioctl_write_ptr!(ext4_resize, b'f', 16, u64);
    nix::ioctl_read!(xfs_geometry, b'X', 100, super::XfsGeometry);
    nix::ioctl_write_ptr!(xfs_grow, b'X', 110, super::XfsGrow);
    nix::ioctl_write_ptr!(btrfs_resize, 0x94, 3, super::BtrfsVolume);
}

/// Grows the ext2, ext3 or ext4 that `mounted` is in to so many of its blocks (`EXT4_IOC_RESIZE_FS` of linux/ext4.h).
///
/// # Errors
/// Those of ext4: EPERM when it has errors, EINVAL, EOPNOTSUPP and ENOSPC when its features do not allow it.
pub fn ext(mounted: impl AsFd, blocks: u64) -> nix::Result<()> {
    // SAFETY: the kernel reads one u64.
    unsafe { raw::ext4_resize(mounted.as_fd().as_raw_fd(), &raw const blocks) }.map(drop)
}

/// Grows the xfs that `mounted` is in to so many bytes, as far as they are whole blocks (`XFS_IOC_FSGROWFSDATA`). What
/// it has already is left to it.
///
/// # Errors
/// Those of xfs.
pub fn xfs(mounted: impl AsFd, bytes: u64) -> nix::Result<()> {
    let fd = mounted.as_fd().as_raw_fd();
    let mut geometry = XfsGeometry::default();
    // SAFETY: the kernel writes one struct xfs_fsop_geom_v1, which this is laid out as.
    unsafe { raw::xfs_geometry(fd, &raw mut geometry) }?;
    let [block, .., inode_percent] = geometry.sizes;
    let blocks = bytes.checked_div(block.into()).ok_or(Errno::EINVAL)?;
    if blocks <= geometry.lengths[0] {
        return Ok(());
    }
    let wanted = XfsGrow { blocks, inode_percent };
    // SAFETY: the kernel reads one struct xfs_growfs_data, which this is laid out as.
    unsafe { raw::xfs_grow(fd, &raw const wanted) }.map(drop)
}

/// Has the btrfs that `mounted` is in take all of one of its devices (`BTRFS_IOC_RESIZE`).
///
/// # Errors
/// Those of btrfs.
pub fn btrfs(mounted: impl AsFd, device: u64) -> nix::Result<()> {
    let mut volume = BtrfsVolume { fd: 0, name: [0; 4088] };
    for (to, from) in volume.name.iter_mut().zip(format!("{device}:max").bytes()) {
        *to = from;
    }
    // SAFETY: the kernel reads one struct btrfs_ioctl_vol_args, whose name ends in a zero.
    unsafe { raw::btrfs_resize(mounted.as_fd().as_raw_fd(), &raw const volume) }.map(drop)
}

const _: () = assert!(size_of::<XfsGrow>() == 16, "struct xfs_growfs_data of xfs_fs.h");
const _: () = assert!(size_of::<XfsGeometry>() == 112, "struct xfs_fsop_geom_v1 of xfs_fs.h");
const _: () = assert!(size_of::<BtrfsVolume>() == 4096, "struct btrfs_ioctl_vol_args of linux/btrfs.h");
