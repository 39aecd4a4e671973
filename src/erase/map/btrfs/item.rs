//! The items of btrfs trees that matter for what is used, as pure parsers of their bytes: the structs of the kernel's
//! include/uapi/linux/btrfs_tree.h, little-endian.

#![forbid(unsafe_code)]

use crate::error::{Error, Result};

/// Types of keys (`BTRFS_…_KEY`).
pub(super) mod kind {
    pub(in super::super) const ORPHAN: u8 = 48;
    pub(in super::super) const FILE_EXTENT: u8 = 108;
    pub(in super::super) const CHECKSUMS: u8 = 128;
    pub(in super::super) const ROOT: u8 = 132;
    pub(in super::super) const ROOT_BACKREF: u8 = 144;
    pub(in super::super) const EXTENT: u8 = 168;
    pub(in super::super) const METADATA: u8 = 169;
    pub(in super::super) const DEVICE_EXTENT: u8 = 204;
    pub(in super::super) const DEVICE: u8 = 216;
    pub(in super::super) const CHUNK: u8 = 228;
}

/// Where the file data of a tree's item lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileExtent {
    /// In the item.
    Inline,
    /// Nowhere: a hole.
    Hole,
    /// On the disk.
    Stored(Stored),
}

/// `struct btrfs_file_extent_item` of data on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stored {
    /// Logical address of the whole extent.
    pub(super) start: u64,
    /// Length of the whole extent on the disk.
    pub(super) length: u64,
    /// Where in the extent's plain bytes this file's part begins.
    pub(super) offset: u64,
    /// How many plain bytes this file has of it.
    pub(super) part: u64,
    /// Length of the extent's plain bytes.
    pub(super) plain: u64,
    /// Whether it is compressed or encoded in another way.
    pub(super) encoded: bool,
    /// Whether it is room that was set aside and is not written: it reads as zeros.
    pub(super) preallocated: bool,
}

/// `struct btrfs_dev_item`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) id: u64,
    pub(super) bytes: u64,
    pub(super) filesystem: [u8; 16],
}

/// `struct btrfs_chunk` with its stripes: device and byte of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ChunkItem {
    pub(super) length: u64,
    pub(super) stripe_length: u64,
    pub(super) profile: u64,
    pub(super) sub_stripes: u16,
    pub(super) stripes: Vec<(u64, u64)>,
}

/// `struct btrfs_root_item`, as far as it tells of subvolumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Root {
    /// 0 when it is deleted and its content still being removed.
    pub(super) references: u32,
    /// Whether it was made as a snapshot of another one.
    pub(super) snapshot: bool,
}

pub(super) fn file_extent(item: &[u8]) -> Result<FileExtent> {
    const WHAT: &str = "file extent";
    match byte(item, 20, WHAT)? {
        0 => Ok(FileExtent::Inline),
        kind @ (1 | 2) => {
            let start = le64(item, 21, WHAT)?;
            if start == 0 {
                return Ok(FileExtent::Hole);
            }
            Ok(FileExtent::Stored(Stored {
                start,
                length: le64(item, 29, WHAT)?,
                offset: le64(item, 37, WHAT)?,
                part: le64(item, 45, WHAT)?,
                plain: le64(item, 8, WHAT)?,
                encoded: take::<4>(item, 16, WHAT)? != [0; 4],
                preallocated: kind == 2,
            }))
        }
        _ => Err(damaged(WHAT)),
    }
}

pub(super) fn device(item: &[u8]) -> Result<Device> {
    const WHAT: &str = "device";
    Ok(Device { id: le64(item, 0, WHAT)?, bytes: le64(item, 8, WHAT)?, filesystem: take(item, 82, WHAT)? })
}

/// Length of a `struct btrfs_dev_extent`.
pub(super) fn device_extent(item: &[u8]) -> Result<u64> {
    le64(item, 24, "device extent")
}

pub(super) fn chunk(item: &[u8]) -> Result<ChunkItem> {
    const WHAT: &str = "chunk";
    let stripes = u16::from_le_bytes(take(item, 44, WHAT)?);
    let stripe = |index: u16| {
        let stripe = take::<32>(item, 48 + 32 * usize::from(index), WHAT)?;
        Ok((le64(&stripe, 0, WHAT)?, le64(&stripe, 8, WHAT)?))
    };
    Ok(ChunkItem {
        length: le64(item, 0, WHAT)?,
        stripe_length: le64(item, 16, WHAT)?,
        profile: le64(item, 24, WHAT)?,
        sub_stripes: u16::from_le_bytes(take(item, 46, WHAT)?),
        stripes: (0..stripes).map(stripe).collect::<Result<_>>()?,
    })
}

/// Whether a `struct btrfs_extent_item` is of file data, not of a tree's block.
pub(super) fn is_data(item: &[u8]) -> Result<bool> {
    Ok(le64(item, 16, "extent")? & 1 != 0)
}

pub(super) fn root(item: &[u8]) -> Result<Root> {
    const WHAT: &str = "root";
    /// Where the fields end that a kernel before 3.6 wrote.
    const OLD: usize = 239;
    let references = u32::from_le_bytes(take(item, 216, WHAT)?);
    // An old kernel that wrote the item again left what follows as it was: the generations then differ.
    let valid = item.len() > OLD && le64(item, 160, WHAT)? == le64(item, OLD, WHAT)?;
    Ok(Root { references, snapshot: valid && take::<16>(item, 263, WHAT)? != [0; 16] })
}

/// Folder and name of a subvolume: a `struct btrfs_root_ref`.
pub(super) fn root_backref(item: &[u8]) -> Result<(u64, &[u8])> {
    const WHAT: &str = "reference of a subvolume";
    let length = usize::from(u16::from_le_bytes(take(item, 16, WHAT)?));
    let name = item.get(18..18 + length).ok_or_else(|| damaged(WHAT))?;
    Ok((le64(item, 0, WHAT)?, name))
}

/// What to say of an item that cannot be.
pub(super) fn damaged(what: &str) -> Error {
    Error::unsupported(format!("the btrfs is damaged: a {what} in it cannot be right"))
        .hint("look at it with `btrfs check`")
}

fn take<const N: usize>(item: &[u8], at: usize, what: &str) -> Result<[u8; N]> {
    let tail = item.get(at..).and_then(|tail| tail.first_chunk());
    tail.copied().ok_or_else(|| damaged(what))
}

fn byte(item: &[u8], at: usize, what: &str) -> Result<u8> {
    take::<1>(item, at, what).map(|[byte]| byte)
}

fn le64(item: &[u8], at: usize, what: &str) -> Result<u64> {
    take(item, at, what).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_end_in_an_answer(item in proptest::collection::vec(any::<u8>(), 0..500)) {
            let stripes = chunk(&item).map_or(0, |chunk| chunk.stripes.len());
            prop_assert!(48 + stripes * 32 <= item.len().max(48));
            let name = root_backref(&item).map_or(0, |(_, name)| name.len());
            prop_assert!(name <= item.len());
            let _ = (file_extent(&item), device(&item), device_extent(&item), is_data(&item), root(&item));
        }

        #[test]
        fn a_chunk_has_as_many_stripes_as_it_says(count in 0u16..8, spare in 0usize..32) {
            let mut item = vec![1; 44];
            item.extend(count.to_le_bytes());
            item.extend(vec![0; 2 + 32 * usize::from(count)]);
            prop_assert_eq!(chunk(&item).unwrap().stripes.len(), usize::from(count));
            item.truncate((item.len() - 1).saturating_sub(spare));
            prop_assert!(count == 0 && item.len() >= 48 || chunk(&item).is_err());
        }
    }
}
