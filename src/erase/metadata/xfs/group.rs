//! Allocation groups: their headers, the blocks that they keep in hand, their trees and, through one of these, their
//! inodes.

#![forbid(unsafe_code)]

use super::fields::{be16, be32, be64, damaged, is_sealed};
use super::tree::{BY_BLOCK, BY_SIZE, FREE_INODES, Form, INODES, MAX_LEVELS, REFERENCES, REVERSE, Tree};
use super::{Kind, Walk, inode};
use crate::erase::extent::Extent;
use crate::error::Result;

/// Inodes of one record of the inode tree.
const CHUNK: u32 = 64;
/// Inodes of one bit of `ir_holemask`.
const HOLE: u32 = 4;

/// Cleans one allocation group and everything that its inodes own.
pub(super) fn clean(walk: &mut Walk<'_>, ag: u32) -> Result<()> {
    let (start, sector) = (walk.geometry.group(ag), walk.geometry.sector);
    let headers = walk.volume.read_vec(start, 4 * sector)?;
    let (agf, rest) = headers[sector..].split_at(sector);
    let (agi, agfl) = rest.split_at(sector);
    let blocks = walk.geometry.group_blocks(ag);
    for (header, magic, crc) in [(agf, b"XAGF", 216), (agi, b"XAGI", 312)] {
        let sound = header.starts_with(magic)
            && be32(header, 8) == ag
            && u64::from(be32(header, 12)) == blocks
            && (!walk.geometry.v5 || is_sealed(header, crc));
        if !sound {
            return Err(damaged(format!("the headers of allocation group {ag}")));
        }
    }
    // The filesystem never writes between the headers and the next block; in the first group a boot loader might.
    let (behind, end) = (4 * sector as u64, (4 * sector as u64).next_multiple_of(walk.geometry.block));
    if ag > 0 {
        walk.clean_all(Kind::FreeLists, Extent::between(start + behind, start + end))?;
    }
    free_list(walk, ag, agf, agfl)?;
    trees(walk, ag, agf, agi)?;
    let mut behind = 0;
    tree(walk, ag, &INODES, (be32(agi, 20), be32(agi, 24)), &mut |walk, records| {
        records.chunks_exact(16).try_for_each(|record| chunk(walk, ag, record, &mut behind))
    })
}

/// The blocks of the list hold what they held when they became free.
fn free_list(walk: &mut Walk<'_>, ag: u32, agf: &[u8], agfl: &[u8]) -> Result<()> {
    let wrong = || damaged(format!("the free list of allocation group {ag}"));
    let v5 = walk.geometry.v5;
    if v5 && !(agfl.starts_with(b"XAFL") && be32(agfl, 4) == ag && is_sealed(agfl, 32)) {
        return Err(wrong());
    }
    let from = if v5 { 36 } else { 0 };
    let [first, last, count] = [40, 44, 48].map(|at| be32(agf, at) as usize);
    // Compilers once disagreed by one on how many entries there are: the ends and the count tell which one it was.
    let room = (agfl.len() - from) / 4;
    let fits = |size: &usize| first.max(last) < *size && (last + size - first) % size + 1 == count;
    let size = match [room, room - 1].into_iter().find(fits) {
        Some(size) => size,
        None if count == 0 => return Ok(()),
        None => return Err(wrong()),
    };
    for index in 0..count {
        let block = be32(agfl, from + (first + index) % size * 4);
        let place = walk.geometry.in_group(ag, block.into(), 1)?;
        walk.spend(1)?;
        walk.clean_all(Kind::FreeLists, place)?;
    }
    Ok(())
}

/// All trees but that of the inodes.
fn trees(walk: &mut Walk<'_>, ag: u32, agf: &[u8], agi: &[u8]) -> Result<()> {
    let geometry = &walk.geometry;
    let has = [true, true, geometry.reverse_tree, geometry.reference_tree, geometry.free_inode_tree];
    let all = [
        (&BY_BLOCK, (be32(agf, 16), be32(agf, 28))),
        (&BY_SIZE, (be32(agf, 20), be32(agf, 32))),
        (&REVERSE, (be32(agf, 24), be32(agf, 36))),
        (&REFERENCES, (be32(agf, 88), be32(agf, 92))),
        (&FREE_INODES, (be32(agi, 328), be32(agi, 332))),
    ];
    for ((form, root), _) in all.into_iter().zip(has).filter(|(_, has)| *has) {
        tree(walk, ag, form, root, &mut |_, _| Ok(()))?;
    }
    Ok(())
}

fn tree(
    walk: &mut Walk<'_>,
    ag: u32,
    form: &Form,
    (root, levels): (u32, u32),
    visit: &mut super::tree::Visit<'_>,
) -> Result<()> {
    let level = levels.checked_sub(1).filter(|level| *level < MAX_LEVELS);
    let level = level.ok_or_else(|| damaged(format!("a tree of allocation group {ag} is too high")))?;
    Tree { form, owner: ag.into() }.walk(walk, std::iter::once(root.into()), level, visit)
}

/// The inodes of one record. `behind` is the number behind the last one of the record before.
fn chunk(walk: &mut Walk<'_>, ag: u32, record: &[u8], behind: &mut u32) -> Result<()> {
    let first = be32(record, 0);
    let end = first.checked_add(CHUNK);
    let end = end.filter(|_| first >= *behind).ok_or_else(|| damaged("its inodes are not in order"))?;
    *behind = end;
    let holes = if walk.geometry.sparse_inodes { be16(record, 4) } else { 0 };
    let free = be64(record, 8);
    let mut from = 0;
    while from < CHUNK {
        let is_hole = |index: u32| holes & 1 << (index / HOLE) != 0;
        let to = (from..CHUNK).find(|index| is_hole(*index) != is_hole(from)).unwrap_or(CHUNK);
        if !is_hole(from) {
            inode::clean(walk, ag, first + from..first + to, free >> from)?;
        }
        from = to;
    }
    Ok(())
}
