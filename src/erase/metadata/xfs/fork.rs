//! Which blocks of the volume a fork of an inode consists of: a list of extents in the inode, or a tree of them.

#![forbid(unsafe_code)]

use super::Walk;
use super::fields::{be64, damaged};
use super::inode::{Fork, Format, Inode};
use super::tree::{MAP, Tree};
use crate::erase::extent::Extent;
use crate::error::Result;

/// The most extents that are kept in memory of one fork.
const LIMIT: usize = 1 << 20;

/// One extent of a fork.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mapping {
    /// Its first block, counted in the fork.
    pub(super) offset: u64,
    /// How many blocks.
    pub(super) blocks: u64,
    /// Where they are on the volume.
    pub(super) place: Extent,
    /// Allocated but never written to: reads as zero, whatever the blocks hold.
    pub(super) unwritten: bool,
}

/// Visits the extents of a fork in the order of the fork.
pub(super) fn each(
    walk: &mut Walk<'_>,
    inode: &Inode,
    fork: &Fork,
    slot: &[u8],
    visit: &mut dyn FnMut(&mut Walk<'_>, Mapping) -> Result<()>,
) -> Result<()> {
    let mut behind = 0;
    let mut all = |walk: &mut Walk<'_>, records: &[u8]| {
        records.chunks_exact(16).try_for_each(|record| {
            let mapping = unpack(walk, record)?;
            if mapping.offset < behind {
                return Err(damaged(format!("inode {}: extents out of order", inode.number)));
            }
            behind = mapping.offset + mapping.blocks;
            visit(walk, mapping)
        })
    };
    match fork.format {
        Format::Device | Format::Local => Ok(()),
        Format::Extents => all(walk, fork.records(slot)?),
        Format::Tree => {
            let root = fork.root(slot)?;
            let pointers = slot[root.pointers].chunks_exact(8).map(|pointer| be64(pointer, 0));
            let tree = Tree { form: &MAP, owner: inode.number };
            tree.walk(walk, pointers, u32::from(root.level) - 1, &mut all)
        }
    }
}

/// All extents of a fork of metadata, which has no unwritten ones.
pub(super) fn list(walk: &mut Walk<'_>, inode: &Inode, fork: &Fork, slot: &[u8]) -> Result<Vec<Mapping>> {
    let mut list = Vec::new();
    each(walk, inode, fork, slot, &mut |_, mapping| {
        if mapping.unwritten || list.len() >= LIMIT {
            return Err(damaged(format!("inode {}: extents", inode.number)));
        }
        list.push(mapping);
        Ok(())
    })?;
    Ok(list)
}

/// `xfs_bmbt_rec`: 1 bit of state, 54 of the offset, 52 of the first block, 21 of the length.
fn unpack(walk: &Walk<'_>, record: &[u8]) -> Result<Mapping> {
    let (high, low) = (be64(record, 0), be64(record, 8));
    let blocks = low & ((1 << 21) - 1);
    let place = walk.geometry.blocks_at((high & 0x1ff) << 43 | low >> 21, blocks)?;
    Ok(Mapping { offset: high << 1 >> 10, blocks, place, unwritten: high >> 63 != 0 })
}

/// Where the block of a fork that has this number lies.
pub(super) fn find(list: &[Mapping], number: u64, block: u64) -> Result<Extent> {
    let behind = list.partition_point(|mapping| mapping.offset <= number);
    let mapping = behind.checked_sub(1).and_then(|index| list.get(index));
    let mapping = mapping.filter(|mapping| number - mapping.offset < mapping.blocks);
    let mapping = mapping.ok_or_else(|| damaged("a block that is named is not there"))?;
    Ok(Extent { start: mapping.place.start + (number - mapping.offset) * block, length: block })
}
