//! Extended attributes that do not fit into their inode: a leaf, or a tree of hashes with leaves below it, and blocks
//! of large values that the leaves name (fs/xfs/libxfs/xfs_da_format.h).

#![forbid(unsafe_code)]

use super::directory::checked;
use super::fields::{DA, Dead, REMOTE, be16, be32, damaged, only, u8_at};
use super::fork::{self, Mapping};
use super::inode::{Fork, Inode};
use super::{Kind, Walk};
use crate::error::Result;

/// `XFS_ATTR_LOCAL`: the value is in the leaf.
const LOCAL: u8 = 1;
/// `XFS_ATTR_INCOMPLETE`: being made or removed when the system went down.
const INCOMPLETE: u8 = 0x80;
/// `XATTR_SIZE_MAX` of linux/limits.h.
const LONGEST_VALUE: u32 = 64 << 10;
/// `sizeof(struct xfs_attr3_rmt_hdr)`.
const VALUE_HEAD: usize = 56;
/// `XFS_DA_NODE_MAXDEPTH`.
const MAX_LEVELS: u16 = 5;

/// Cleans all blocks of the attributes of an inode.
pub(super) fn clean(walk: &mut Walk<'_>, inode: &Inode, fork: &Fork, slot: &[u8]) -> Result<()> {
    let blocks = fork::list(walk, inode, fork, slot)?;
    if blocks.is_empty() {
        return Ok(());
    }
    let all = Blocks { inode, list: blocks };
    let mut ahead = vec![(0, None)];
    while let Some((number, level)) = ahead.pop() {
        all.clean(walk, number, level, &mut ahead)?;
    }
    Ok(())
}

/// The attribute fork of one inode.
struct Blocks<'i> {
    inode: &'i Inode,
    list: Vec<Mapping>,
}

/// A value in blocks of its own: its first block, counted in the fork, and its bytes.
type Value = (u32, u32);

impl Blocks<'_> {
    /// Cleans one block of the tree; `level` is the level that its parent wants of it. Puts its children `ahead`.
    fn clean(
        &self,
        walk: &mut Walk<'_>,
        number: u32,
        level: Option<u16>,
        ahead: &mut Vec<(u32, Option<u16>)>,
    ) -> Result<()> {
        walk.spend(1)?;
        let v5 = walk.geometry.v5;
        let place = fork::find(&self.list, number.into(), walk.geometry.block)?;
        let mut block = walk.read(&[place])?;
        let crc = checked(walk, &DA, &block, &[place], self.inode)?;
        let (dead, values) = match (be16(&block, 8), v5) {
            (0xfbee, false) | (0x3bee, true) if level.unwrap_or(0) == 0 => leaf(&block, v5)?,
            (0xfebe, false) | (0x3ebe, true) => (self.node(&block, v5, level, ahead)?, Vec::new()),
            _ => return Err(self.wrong()),
        };
        walk.clean_at(Kind::Attributes, &[place], &mut block, &dead, crc)?;
        values.into_iter().try_for_each(|value| self.value(walk, value))
    }

    fn node(
        &self,
        block: &[u8],
        v5: bool,
        level: Option<u16>,
        ahead: &mut Vec<(u32, Option<u16>)>,
    ) -> Result<Dead> {
        let (head, at) = if v5 { (64, 56) } else { (16, 12) };
        let (count, here) = (usize::from(be16(block, at)), be16(block, at + 2));
        let end = head + count * 8;
        if end > block.len() || !(1..=MAX_LEVELS).contains(&here) || level.is_some_and(|level| level != here)
        {
            return Err(self.wrong());
        }
        ahead.extend((0..count).map(|index| (be32(block, head + index * 8 + 4), Some(here - 1))));
        Ok(only(end..block.len()))
    }

    /// Cleans the rest of the blocks of one value.
    fn value(&self, walk: &mut Walk<'_>, (number, bytes): Value) -> Result<()> {
        let v5 = walk.geometry.v5;
        let head = if v5 { VALUE_HEAD } else { 0 };
        let (mut left, mut number) = (bytes as usize, u64::from(number));
        while left > 0 {
            walk.spend(1)?;
            let here = left.min(walk.geometry.block_len() - head);
            let place = fork::find(&self.list, number, walk.geometry.block)?;
            left -= here;
            number += 1;
            let mut block = walk.read(&[place])?;
            let crc = checked(walk, &REMOTE, &block, &[place], self.inode)?;
            if v5 && !(block.starts_with(b"XARM") && be32(&block, 8) as usize == here) {
                return Err(self.wrong());
            }
            let dead = only(head + here..block.len());
            walk.clean_at(Kind::Attributes, &[place], &mut block, &dead, crc)?;
        }
        Ok(())
    }

    fn wrong(&self) -> crate::error::Error {
        damaged(format!("inode {}: the attributes", self.inode.number))
    }
}

/// A leaf: hashes from the front, names and values from the back, in any order and with holes between them.
fn leaf(block: &[u8], v5: bool) -> Result<(Dead, Vec<Value>)> {
    let wrong = || damaged("a leaf of attributes");
    let (head, count) = if v5 { (80, be16(block, 56)) } else { (32, be16(block, 12)) };
    let end = head + usize::from(count) * 8;
    if end > block.len() {
        return Err(wrong());
    }
    let (mut used, mut values) = (only(0..end), Vec::new());
    for entry in block[head..end].chunks_exact(8) {
        let (at, flags) = (usize::from(be16(entry, 4)), u8_at(entry, 6));
        let length = if flags & LOCAL != 0 {
            3 + usize::from(u8_at(block, at + 2)) + usize::from(be16(block, at))
        } else {
            let (first, bytes) = (be32(block, at), be32(block, at + 4));
            if bytes > LONGEST_VALUE {
                return Err(wrong());
            }
            // The blocks of one that was not finished may not be there, or not be written.
            if flags & INCOMPLETE == 0 && first != 0 {
                values.push((first, bytes));
            }
            9 + usize::from(u8_at(block, at + 8))
        };
        used.push(at..at + length);
    }
    used.sort_unstable_by_key(|range| range.start);
    used.push(block.len()..block.len());
    let mut dead = Dead::new();
    for pair in used.windows(2) {
        if pair[0].end > pair[1].start {
            return Err(wrong());
        }
        dead.push(pair[0].end..pair[1].start);
    }
    Ok((dead, values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A leaf of version 4 with these entries: where its name is, its flags, and the bytes there.
    fn block(entries: &[(u16, u8, &[u8])]) -> Vec<u8> {
        let mut block = vec![0xee; 1024];
        block[12..14].copy_from_slice(&u16::try_from(entries.len()).unwrap().to_be_bytes());
        for (index, (at, flags, bytes)) in entries.iter().enumerate() {
            let entry = 32 + index * 8;
            block[entry + 4..entry + 6].copy_from_slice(&at.to_be_bytes());
            block[entry + 6] = *flags;
            block[usize::from(*at)..usize::from(*at) + bytes.len()].copy_from_slice(bytes);
        }
        block
    }

    #[test]
    fn all_but_heads_names_and_values_is_dead() {
        let small = b"\0\x02\x03namVA".as_slice();
        let large = b"\0\0\0\x07\0\0\x10\0\x04name".as_slice();
        let block = block(&[(1000, LOCAL, small), (600, 0, large), (700, INCOMPLETE, large)]);
        let (dead, values) = leaf(&block, false).unwrap();
        let between: Vec<_> = dead.into_iter().filter(|range| !range.is_empty()).collect();
        assert_eq!(between, [56..600, 613..700, 713..1000, 1008..1024]);
        assert_eq!(values, [(7, 4096)], "nothing is known of the blocks of one that is incomplete");
    }

    #[test]
    fn names_that_overlap_are_damage() {
        let small = b"\0\x02\x03namVA".as_slice();
        leaf(&block(&[(1000, LOCAL, small), (1004, LOCAL, small)]), false).unwrap_err();
        leaf(&block(&[(36, LOCAL, small)]), false).unwrap_err();
        leaf(&block(&[(1020, LOCAL, b"\0\x09\x09n")]), false).unwrap_err();
    }

    proptest! {
        #[test]
        fn dead_parts_are_inside_and_apart(mut block in prop::collection::vec(any::<u8>(), 1024), count in 0..40_u16) {
            block[12..14].copy_from_slice(&count.to_be_bytes());
            if let Ok((dead, _)) = leaf(&block, false) {
                prop_assert!(dead.iter().all(|range| range.start <= range.end && range.end <= block.len()));
                prop_assert!(dead.windows(2).all(|pair| pair[0].end <= pair[1].start));
            }
        }
    }
}
