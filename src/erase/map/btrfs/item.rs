//! The items of btrfs trees that matter for what is used, as pure parsers of their bytes: the structs of the kernel's
//! include/uapi/linux/btrfs_tree.h, little-endian.

#![forbid(unsafe_code)]

use crate::error::{Error, Result};

/// Types of keys (`BTRFS_…_KEY`).
pub(super) mod kind {
    pub(in super::super) const ROOT: u8 = 132;
    pub(in super::super) const EXTENT: u8 = 168;
    pub(in super::super) const METADATA: u8 = 169;
    pub(in super::super) const DEVICE_EXTENT: u8 = 204;
    pub(in super::super) const DEVICE: u8 = 216;
    pub(in super::super) const CHUNK: u8 = 228;
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

pub(super) fn root(item: &[u8]) -> Result<Root> {
    Ok(Root { references: u32::from_le_bytes(take(item, 216, "root")?) })
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
            let _ = (device(&item), device_extent(&item), root(&item));
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
