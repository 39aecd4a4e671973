//! The unused parts of an inode that is in use.

#![forbid(unsafe_code)]

use super::Walk;
use super::attributes;
use super::directory::clean_entries;
use super::fields::part_mut;
use super::inode::{BLOCKS, Inode, Type, is_sound, seal};
use super::layout::damaged;
use super::tally::Kind;
use crate::error::Result;

/// The number of the directory above, at the head of an inline directory.
const ABOVE: usize = 4;

/// Cleans a slot and mends its checksum; whether it changed.
pub(super) fn clean(walk: &mut Walk<'_>, inode: &Inode, slot: &mut [u8]) -> Result<bool> {
    let before = slot.to_vec();
    let mut changed = inline(walk, inode, slot)?;
    if let Some(tail) = inode.tail {
        changed |= attributes::clean_inode(&mut walk.tally, part_mut(slot, tail..usize::MAX))?;
    }
    if changed {
        if !is_sound(&walk.layout, inode, &before) {
            return Err(damaged(format_args!("the checksum of inode {}", inode.number)));
        }
        seal(&walk.layout, inode, slot);
    }
    Ok(changed)
}

/// What stands in an inode in place of the numbers of blocks: a short link, a small file, a small directory.
fn inline(walk: &mut Walk<'_>, inode: &Inode, slot: &mut [u8]) -> Result<bool> {
    let tally = &mut walk.tally;
    let room = part_mut(slot, BLOCKS);
    if inode.is_inline() && inode.kind == Type::Directory {
        let hashes = inode.has_hashes();
        let mut changed = clean_entries(tally, part_mut(room, ABOVE..usize::MAX), hashes)?;
        let rest = part_mut(slot, inode.tail.unwrap_or(usize::MAX)..usize::MAX);
        if let Some(more) = attributes::inline_data(rest)? {
            changed |= clean_entries(tally, part_mut(rest, more), hashes)?;
        }
        return Ok(changed);
    }
    // An encrypted link is longer than its size says.
    if inode.is_short_link() && !inode.is_encrypted() || inode.is_inline() && inode.kind == Type::File {
        let used = usize::try_from(inode.size).unwrap_or(usize::MAX);
        return Ok(tally.clean(Kind::InodeSlack, part_mut(room, used..usize::MAX)));
    }
    Ok(false)
}
