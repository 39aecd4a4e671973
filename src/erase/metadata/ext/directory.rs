//! Directory blocks: `struct ext4_dir_entry_2` and the hashed index of the kernel's fs/ext4/ext4.h and namei.c. An
//! entry that is removed gives its length to the one before it, and its name stays.

#![forbid(unsafe_code)]

use super::fields::{byte, le16, le32, part, part_mut, put, size16};
use super::layout::{Layout, damaged};
use super::tally::{Kind, Tally};
use crate::disk::crc::crc32c;
use crate::error::{Error, Result};

/// The entry at the end of a block that holds its checksum: its length, the type of file that marks it, the checksum.
const TAIL: usize = 12;
const TAIL_MARK: u8 = 0xde;
const TAIL_CHECKSUM: usize = 8;

/// The head of an entry, before its name.
const HEAD: usize = 8;
/// A name's hash.
const HASH: usize = 8;

/// Where the index stands in its root and in the blocks below it, and how long an entry of it is.
const ROOT_INDEX: usize = 32;
const NODE_INDEX: usize = 8;
const INDEX_ENTRY: usize = 8;
/// Of the root: how long its head is, and how many levels of index are below it.
const ROOT_INFO: usize = 29;
const ROOT_LEVELS: usize = 30;

/// What a block of a directory holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Names; and whether each is followed by its hash.
    Names { hashes: bool },
    /// The root of the index.
    Root,
    /// A block of the index below the root.
    Node,
}

fn odd() -> Error {
    damaged("a block of a directory")
}

/// Wipes what a directory's block has besides its entries, and mends its checksum; whether it changed. `seed` is what
/// the checksums of the directory start from.
pub(super) fn clean_block(
    tally: &mut Tally,
    layout: &Layout,
    (shape, seed): (Shape, u32),
    block: &mut [u8],
) -> Result<bool> {
    let Shape::Names { hashes } = shape else {
        // The checksum of an index covers its entries only.
        let (start, count, limit) = index(layout, shape, block)?;
        let unused = start + count * INDEX_ENTRY..start + limit * INDEX_ENTRY;
        return Ok(tally.clean(Kind::Directories, part_mut(block, unused)));
    };
    if !layout.checksums {
        return clean_entries(tally, block, hashes);
    }
    let end = block.len().saturating_sub(TAIL);
    let is_tail =
        le32(block, end) == 0 && size16(block, end + 4) == TAIL && byte(block, end + 7) == TAIL_MARK;
    if !is_tail {
        return Err(odd());
    }
    let before = block.to_vec();
    let changed = clean_entries(tally, part_mut(block, 0..end), hashes)?;
    if changed {
        // Most blocks do not change, and their sums cost more than all the rest.
        if crc32c(seed, part(&before, 0..end)) != le32(block, end + TAIL_CHECKSUM) {
            return Err(odd());
        }
        let sum = crc32c(seed, part(block, 0..end));
        put(block, end + TAIL_CHECKSUM, &sum.to_le_bytes());
    }
    Ok(changed)
}

/// Wipes what is behind the name of each entry, and the names of those that are unused.
pub(super) fn clean_entries(tally: &mut Tally, entries: &mut [u8], hashes: bool) -> Result<bool> {
    let (mut at, mut changed) = (0, false);
    while at < entries.len() {
        let length = match le16(entries, at + 4) {
            // In a block of 64 KiB, the whole of it does not fit in the field.
            0 | u16::MAX if entries.len() > 65_500 => entries.len() - at,
            length => usize::from(length),
        };
        let name = usize::from(byte(entries, at + 6));
        let end = at + length;
        let used = match le32(entries, at) {
            // An unused entry has no name, of which not even the length is kept.
            0 => 6,
            _ if HEAD + name > length => return Err(odd()),
            // The names of the directory itself and of the one above have none, nor room for it.
            _ if hashes => ((HEAD + name).next_multiple_of(4) + HASH).min(length),
            _ => HEAD + name,
        };
        if length < TAIL || !length.is_multiple_of(4) || end > entries.len() {
            return Err(odd());
        }
        changed |= tally.clean(Kind::Directories, part_mut(entries, at + used..end));
        at = end;
    }
    Ok(changed)
}

/// Where a block of the index has its entries, how many, and how many it has room for.
fn index(layout: &Layout, shape: Shape, block: &[u8]) -> Result<(usize, usize, usize)> {
    let start = if shape == Shape::Root { ROOT_INDEX } else { NODE_INDEX };
    let tail = if layout.checksums { INDEX_ENTRY } else { 0 };
    let (limit, count) = (size16(block, start), size16(block, start + 2));
    let room = block.len().saturating_sub(start + tail) / INDEX_ENTRY;
    let head = shape == Shape::Node || byte(block, ROOT_INFO) == 8 && levels(layout, block).is_some();
    if limit == room && (1..=limit).contains(&count) && head { Ok((start, count, limit)) } else { Err(odd()) }
}

/// How many levels of index are between a root and the names; none when there cannot be as many.
pub(super) fn levels(layout: &Layout, root: &[u8]) -> Option<u8> {
    let most = if layout.large_directories { 2 } else { 1 };
    Some(byte(root, ROOT_LEVELS)).filter(|levels| *levels <= most)
}

/// The blocks of the directory that a block of its index names.
pub(super) fn children(layout: &Layout, shape: Shape, block: &[u8]) -> Result<Vec<u32>> {
    let (start, count, _) = index(layout, shape, block)?;
    let child = |entry| le32(block, start + entry * INDEX_ENTRY + 4) & 0x0fff_ffff;
    Ok((0..count).map(child).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::erase::metadata::Act;
    use proptest::prelude::*;

    /// Entries of an inode, a name and what the entry has beyond it, up to the end of `length` bytes.
    fn block(entries: &[(u32, &str, usize)], length: usize) -> Vec<u8> {
        let mut block = vec![b'#'; length];
        let mut at = 0;
        for (index, (inode, name, more)) in entries.iter().enumerate() {
            let whole = (HEAD + name.len()).next_multiple_of(4) + more;
            let whole = if index + 1 == entries.len() { length - at } else { whole };
            put(&mut block, at, &inode.to_le_bytes());
            put(&mut block, at + 4, &u16::try_from(whole).unwrap().to_le_bytes());
            put(&mut block, at + 6, &[u8::try_from(name.len()).unwrap(), 1]);
            put(&mut block, at + HEAD, name.as_bytes());
            at += whole;
        }
        block
    }

    fn wiped(mut block: Vec<u8>, hashes: bool) -> Vec<u8> {
        clean_entries(&mut Tally::new(Act::Zero), &mut block, hashes).unwrap();
        block
    }

    #[test]
    fn names_stay_and_the_rest_goes() {
        let after = wiped(block(&[(12, "kept", 20), (0, "gone", 0), (13, "last", 0)], 200), false);
        let text = String::from_utf8_lossy(&after);
        assert!(
            text.contains("kept") && text.contains("last") && !text.contains("gone") && !text.contains('#')
        );
        let hashed = wiped(block(&[(12, "kept", 20)], 200), true);
        assert_eq!(hashed[12..20], *b"########");
        assert!(hashed[20..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn entries_that_do_not_fit_are_refused() {
        for length in [0_u16, 4, 11, 13, 15, 404] {
            let mut block = block(&[(12, "name", 0)], 400);
            put(&mut block, 4, &length.to_le_bytes());
            assert!(clean_entries(&mut Tally::new(Act::Zero), &mut block, false).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_block_is_cleaned_or_refused(
            bytes in proptest::collection::vec(prop_oneof![Just(0), Just(12), any::<u8>()], 1024),
            (checksums, hashes) in any::<(bool, bool)>(), shape in 0..3_usize,
        ) {
            let layout = Layout::small(checksums);
            let shape = [Shape::Names { hashes }, Shape::Root, Shape::Node][shape];
            let (mut tally, mut block) = (Tally::new(Act::Zero), bytes);
            if clean_block(&mut tally, &layout, (shape, 7), &mut block).is_ok() {
                let mut again = Tally::new(Act::Count);
                clean_block(&mut again, &layout, (shape, 7), &mut block).unwrap();
                prop_assert!(again.remains().iter().all(|remains| remains.nonzero == 0));
            }
        }
    }
}
