//! The journal inside of the filesystem (the kernel's include/linux/jbd2.h). An empty one is made zero but for its
//! superblock, which stays as it is: its size, its features and its users.

#![forbid(unsafe_code)]

use super::fields::be32;
use super::inode::{Inode, Type, is_sound};
use super::layout::damaged;
use super::tally::Kind;
use super::{Walk, blocks, sheet::Window};
use crate::error::{Error, Result};

const MAGIC: u32 = 0xc03b_3998;
/// Kinds of blocks: superblocks of the first and the second form.
const SUPERBLOCKS: [u32; 2] = [3, 4];

/// Cleans the journal, if the filesystem has one.
pub(super) fn clean(walk: &mut Walk<'_>) -> Result<()> {
    let Some(number) = walk.layout.journal else { return Ok(()) };
    let inode = read(walk, number)?;
    let mut next = 0;
    for run in blocks::gather(walk, &inode)? {
        if run.logical != next || run.count == 0 {
            return Err(damaged("its journal has holes"));
        }
        next += run.count;
        let head = u64::from(run.logical == 0);
        if head > 0 {
            is_empty(walk, run.physical)?;
        }
        walk.blank(Kind::Journal, run.physical + head, run.count - head)?;
    }
    if next == 0 { Err(damaged("its journal has no blocks")) } else { Ok(()) }
}

fn read(walk: &Walk<'_>, number: u32) -> Result<Inode> {
    let layout = &walk.layout;
    let index = number.checked_sub(1).filter(|index| index / layout.inodes_per_group < layout.groups);
    let index = index.ok_or_else(|| damaged("the inode of its journal"))?;
    let group = layout.group(&mut Window::new(walk.volume), index / layout.inodes_per_group)?;
    let offset = u64::from(index % layout.inodes_per_group) * layout.inode as u64;
    let table = group.inode_table * u64::from(layout.block);
    let slot = walk.volume.read_vec(table.saturating_add(offset), layout.inode)?;
    let inode = Inode::read(layout, number, &slot)?;
    let sound = inode.kind == Type::File && inode.links > 0 && inode.has_blocks();
    if sound && is_sound(layout, &inode, &slot) {
        Ok(inode)
    } else {
        Err(damaged("the inode of its journal"))
    }
}

/// Whether the superblock of the journal says that nothing in it is still to be done.
fn is_empty(walk: &mut Walk<'_>, block: u64) -> Result<()> {
    let block = walk.block(block)?;
    let sound = be32(&block, 0) == MAGIC
        && SUPERBLOCKS.contains(&be32(&block, 4))
        && be32(&block, 12) == walk.layout.block;
    if !sound {
        return Err(damaged("the superblock of its journal"));
    }
    match be32(&block, 28) {
        0 => Ok(()),
        _ => Err(Error::unsupported("its journal is not empty: mount it for writing and unmount it first")),
    }
}
