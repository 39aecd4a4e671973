//! Reading the trees of a mounted btrfs, item by item and a page of them at a time, by the ioctl
//! `BTRFS_IOC_TREE_SEARCH_V2`.

#![forbid(unsafe_code)]

use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::item::damaged;
use crate::error::{Error, Result};
use crate::sys::interrupt;
use crate::sys::ioctl::{BTRFS_SEARCH_HEAD, BtrfsSearch, btrfs_tree_search};

/// Room for the items of one call: more than the longest item of the largest tree block.
const PAGE: usize = 1 << 20;
/// The most items that are read of one tree: what a filesystem of terabytes has.
const LIMIT: u64 = 1 << 30;
/// Length of a `struct btrfs_ioctl_search_header`.
const HEADER: usize = 32;

/// Object id, type and offset.
pub(super) type Key = (u64, u8, u64);

/// The first key that there can be.
pub(super) const FIRST: Key = (0, 0, 0);
/// The last one.
pub(super) const LAST: Key = (u64::MAX, u8::MAX, u64::MAX);

/// The ids of trees.
pub(super) mod tree {
    pub(in super::super) const ROOTS: u64 = 1;
    pub(in super::super) const EXTENTS: u64 = 2;
    pub(in super::super) const CHUNKS: u64 = 3;
    pub(in super::super) const DEVICES: u64 = 4;
    pub(in super::super) const CHECKSUMS: u64 = 7;
    /// Where a balance keeps the data that it moves.
    pub(in super::super) const MOVED_DATA: u64 = 0_u64.wrapping_sub(9);
}

/// One item of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Item<'a> {
    pub(super) object: u64,
    pub(super) kind: u8,
    pub(super) offset: u64,
    pub(super) bytes: &'a [u8],
}

impl Item<'_> {
    fn key(&self) -> Key {
        (self.object, self.kind, self.offset)
    }
}

/// Calls `visit` for every item of a tree between two keys, these included, in order.
///
/// # Errors
/// When the tree cannot be read, is damaged or has too many items; what `visit` fails with; and when a signal came.
pub(super) fn each(
    mounted: BorrowedFd<'_>,
    tree: u64,
    (from, to): (Key, Key),
    mut visit: impl FnMut(Item<'_>) -> Result<()>,
) -> Result<()> {
    let mut page = vec![0; BTRFS_SEARCH_HEAD + PAGE];
    let mut next = Some(from);
    let mut read = 0;
    while let Some(from) = next {
        interrupt::check()?;
        let search = BtrfsSearch { tree, from, to };
        let count = btrfs_tree_search(mounted, &search, &mut page).map_err(|errno| refused(tree, errno))?;
        if count == 0 {
            break;
        }
        let mut last = None;
        for item in items(&page[BTRFS_SEARCH_HEAD..]).take(count.try_into().unwrap_or(usize::MAX)) {
            let item = item?;
            // Without this a tree could be read for ever.
            if item.key() < from || last.is_some_and(|last| item.key() <= last) {
                return Err(damaged("key"));
            }
            last = Some(item.key());
            visit(item)?;
        }
        next = last.and_then(behind);
        read += u64::from(count);
        if read > LIMIT {
            return Err(Error::unsupported(format!("tree {tree} of the btrfs has more than {LIMIT} items")));
        }
    }
    Ok(())
}

fn refused(tree: u64, errno: Errno) -> Error {
    let what = format!("cannot read tree {tree} of the btrfs");
    match errno {
        Errno::EPERM => Error::host_lacks(what)
            .caused_by(errno)
            .hint("reading it needs CAP_SYS_ADMIN, outside of any user namespace"),
        _ => Error::failed(what).caused_by(errno),
    }
}

/// The key that follows; none behind the last one.
fn behind((object, kind, offset): Key) -> Option<Key> {
    match (offset.checked_add(1), kind.checked_add(1)) {
        (Some(offset), _) => Some((object, kind, offset)),
        (None, Some(kind)) => Some((object, kind, 0)),
        (None, None) => object.checked_add(1).map(|object| (object, 0, 0)),
    }
}

/// The items of a page; an error, once, where it ends within one.
fn items(page: &[u8]) -> impl Iterator<Item = Result<Item<'_>>> {
    let mut rest = Some(page);
    std::iter::from_fn(move || {
        let page = rest.take()?;
        let (item, behind) = match first(page) {
            Some(found) => found,
            None => return Some(Err(damaged("page of items"))),
        };
        rest = Some(behind);
        Some(Ok(item))
    })
}

/// The first item of a page and what follows it. The header is in the byte order of this machine.
fn first(page: &[u8]) -> Option<(Item<'_>, &[u8])> {
    let (header, rest) = page.split_at_checked(HEADER)?;
    let (words, _) = header.as_chunks::<8>();
    let [object, offset] = [words[1], words[2]].map(u64::from_ne_bytes);
    let (halves, _) = words[3].as_chunks::<4>();
    let kind = u8::try_from(u32::from_ne_bytes(halves[0])).ok()?;
    let length = usize::try_from(u32::from_ne_bytes(halves[1])).ok()?;
    let (bytes, behind) = rest.split_at_checked(length)?;
    Some((Item { object, kind, offset, bytes }, behind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn put(page: &mut Vec<u8>, (object, kind, offset): Key, bytes: &[u8]) {
        page.extend([7, object, offset].map(u64::to_ne_bytes).as_flattened());
        page.extend([kind.into(), u32::try_from(bytes.len()).unwrap()].map(u32::to_ne_bytes).as_flattened());
        page.extend(bytes);
    }

    #[test]
    fn keys_carry() {
        assert_eq!(behind((1, 2, 3)), Some((1, 2, 4)));
        assert_eq!(behind((1, 2, u64::MAX)), Some((1, 3, 0)));
        assert_eq!(behind((1, u8::MAX, u64::MAX)), Some((2, 0, 0)));
        assert_eq!(behind(LAST), None);
    }

    proptest! {
        #[test]
        fn what_was_put_in_comes_out(
            all in proptest::collection::vec((any::<Key>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
            cut in 1usize..40,
        ) {
            let mut page = Vec::new();
            for (key, bytes) in &all {
                put(&mut page, *key, bytes);
            }
            let found: Vec<_> = items(&page).take(all.len()).map(Result::unwrap).collect();
            prop_assert_eq!(found.len(), all.len());
            for (item, (key, bytes)) in found.iter().zip(&all) {
                prop_assert_eq!((item.key(), item.bytes), (*key, &bytes[..]));
            }
            page.truncate(page.len().saturating_sub(cut));
            prop_assert!(items(&page).take(all.len()).any(|item| item.is_err()) || all.is_empty());
        }

        #[test]
        fn any_bytes_end_in_an_answer(page in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(items(&page).count() <= page.len() / HEADER + 1);
        }
    }
}
