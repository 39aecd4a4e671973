//! The tables of inodes: slots that are free are made zero, and those in use lead to everything else.

#![forbid(unsafe_code)]

use super::fields::{byte, le32};
use super::inode::{Inode, RESIZE, ROOT, Type, is_sound};
use super::layout::{Group, damaged};
use super::sheet::{Sheet, Window};
use super::tally::Kind;
use super::{Walk, blocks, fixed, folders, slack};
use crate::error::Result;

/// Where an inode has the block that points to blocks of pointers.
const DOUBLE: usize = 13 * 4;

/// What is read of a table at once; a multiple of every size of inodes.
const LOT: u64 = 256 << 10;

/// Cleans every table, and all that the inodes in them lead to.
pub(super) fn clean(walk: &mut Walk<'_>) -> Result<()> {
    let (mut descriptors, mut bitmaps) = (Window::new(walk.volume), Window::new(walk.volume));
    let size = walk.layout.block as usize;
    let none = vec![0; size];
    for number in 0..walk.layout.groups {
        let group = walk.layout.group(&mut descriptors, number)?;
        fixed::clean(walk, number, &group)?;
        // A bitmap that was never written may hold what the disk held before.
        if group.blocks_uninit {
            walk.blank(Kind::Preallocated, group.block_bitmap, 1)?;
        }
        if group.inodes_uninit {
            walk.blank(Kind::Preallocated, group.inode_bitmap, 1)?;
            table(walk, number, &group, &none)?;
            continue;
        }
        let bitmap = bitmaps.read(walk.layout.place(group.inode_bitmap, 1)?, size)?;
        if !walk.layout.holds(&group, bitmap) {
            return Err(damaged(format_args!("which inodes are free in group {number}")));
        }
        table(walk, number, &group, bitmap)?;
    }
    folders::flush(walk)
}

/// Cleans the table of one group; its holes are not read.
fn table(walk: &mut Walk<'_>, number: u32, group: &Group, bitmap: &[u8]) -> Result<()> {
    let size = walk.layout.inode as u64;
    let start = group.inode_table * u64::from(walk.layout.block);
    let end = start + u64::from(walk.layout.inodes_per_group) * size;
    let first = number * walk.layout.inodes_per_group + 1;
    let reserved = if number == 0 { walk.layout.first_inode - 1 } else { 0 };
    let free = (reserved..walk.layout.inodes_per_group).filter(|index| !is_used(bitmap, *index)).count();
    walk.tally.place(Kind::FreeInodes, free as u64 * size);
    let mut at = start;
    while at < end {
        at = walk.volume.next_data(at, end)?;
        at -= (at - start) % size;
        let length = usize::try_from((end - at).min(LOT)).unwrap_or(0);
        let mut sheet = Sheet::read(&walk.volume, at, length)?;
        let index = u32::try_from((at - start) / size).unwrap_or(u32::MAX);
        slots(walk, &mut sheet, (first, index), |index| index < reserved || is_used(bitmap, index))?;
        sheet.store(&walk.volume)?;
        at += length as u64;
    }
    Ok(())
}

fn is_used(bitmap: &[u8], index: u32) -> bool {
    byte(bitmap, index as usize / 8) >> (index % 8) & 1 != 0
}

/// Cleans the slots of one sheet, the first of which has this index in the group whose first inode is `first`.
fn slots(
    walk: &mut Walk<'_>,
    sheet: &mut Sheet,
    (first, index): (u32, u32),
    is_used: impl Fn(u32) -> bool,
) -> Result<()> {
    let size = walk.layout.inode;
    let mut free = 0..0;
    for (index, at) in (index..).zip((0..sheet.bytes.len()).step_by(size)) {
        if !is_used(index) {
            free = if free.end == at { free.start..at + size } else { at..at + size };
            continue;
        }
        sheet.wipe(&mut walk.tally, Kind::FreeInodes, std::mem::take(&mut free));
        if live(walk, first + index, sheet.part(at..at + size))? {
            sheet.changed(at..at + size);
        }
    }
    sheet.wipe(&mut walk.tally, Kind::FreeInodes, free);
    Ok(())
}

/// Cleans an inode that is in use and what it leads to; whether its slot changed.
fn live(walk: &mut Walk<'_>, number: u32, slot: &mut [u8]) -> Result<bool> {
    if number < walk.layout.first_inode && ![ROOT, RESIZE].contains(&number) {
        return Ok(false);
    }
    let inode = Inode::read(&walk.layout, number, slot)?;
    if number == RESIZE {
        // The one block of its own; the others are at fixed places.
        let block = le32(&inode.root, DOUBLE);
        return walk.partial(block.into(), u64::from(block != 0)).map(|()| false);
    }
    if inode.links == 0 {
        return Err(damaged(format_args!("inode {number} is in use but has no name")));
    }
    let changed = slack::clean(walk, &inode, slot)?;
    if inode.attributes != 0 {
        walk.attributes.push(inode.attributes);
    }
    if inode.kind == Type::Directory && inode.has_blocks() {
        folders::note(walk, &inode)?;
    } else if inode.has_blocks() && inode.has_extents() {
        written(walk, &inode, slot)?;
    }
    folders::flush_full(walk)?;
    Ok(changed)
}

/// Cleans the blocks of a file that it did not write yet.
fn written(walk: &mut Walk<'_>, inode: &Inode, slot: &[u8]) -> Result<()> {
    let mut trusted = false;
    blocks::visit(walk, inode, &mut |walk, run| {
        walk.partial(run.physical, run.count)?;
        if !run.unwritten {
            return Ok(());
        }
        // What the inode says is about to cost bytes: it must be what was written.
        trusted = trusted || is_sound(&walk.layout, inode, slot);
        if trusted {
            walk.blank(Kind::Preallocated, run.physical, run.count)
        } else {
            Err(damaged("an inode"))
        }
    })
}
