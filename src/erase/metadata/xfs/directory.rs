//! Directories that do not fit into their inode. Their blocks lie in three regions of the data fork: entries, then the
//! hashes of the names, then which block has how much room (fs/xfs/libxfs/xfs_da_format.h). A small directory has one
//! block with entries and hashes in it.

#![forbid(unsafe_code)]

use super::fields::{DA, DIRECTORY, Dead, Marks, be16, be32, damaged, only, u8_at};
use super::fork::{self, Mapping};
use super::geometry::Geometry;
use super::inode::Inode;
use super::{Kind, Walk};
use crate::erase::extent::Extent;
use crate::error::Result;

/// `XFS_DIR2_LEAF_OFFSET`: where the region of the hashes begins, in bytes.
const HASHES: u64 = 1 << 35;
/// `XFS_DIR2_FREE_OFFSET`.
const ROOM: u64 = 2 << 35;
/// `XFS_DIR2_DATA_FREE_TAG`: where an entry would have the number of an inode.
const FREE: u16 = 0xffff;

/// Cleans all blocks of a directory.
pub(super) fn clean(walk: &mut Walk<'_>, inode: &Inode, slot: &[u8]) -> Result<()> {
    let mut whole = Whole { first: 0, blocks: 0, places: Vec::new() };
    fork::each(walk, inode, &inode.data, slot, &mut |walk, mapping| whole.add(walk, inode, mapping))?;
    if whole.places.is_empty() {
        Ok(())
    } else {
        Err(damaged(format!("inode {}: half a block", inode.number)))
    }
}

/// A directory block, which may have more than one block of the filesystem, in more than one extent.
struct Whole {
    /// The first block of the filesystem that it has, counted in the fork.
    first: u64,
    blocks: u64,
    places: Vec<Extent>,
}

impl Whole {
    fn add(&mut self, walk: &mut Walk<'_>, inode: &Inode, mapping: Mapping) -> Result<()> {
        let (size, block) = (walk.geometry.directory_blocks, walk.geometry.block);
        let mut done = 0;
        walk.spend(mapping.blocks)?;
        while done < mapping.blocks {
            let offset = mapping.offset + done;
            if self.blocks == 0 {
                self.first = offset;
            }
            if offset != self.first + self.blocks || !self.first.is_multiple_of(size) || mapping.unwritten {
                return Err(damaged(format!("inode {}: half a block", inode.number)));
            }
            let blocks = (size - self.blocks).min(mapping.blocks - done);
            self.places.push(Extent { start: mapping.place.start + done * block, length: blocks * block });
            self.blocks += blocks;
            done += blocks;
            if self.blocks == size {
                let at = self.first.checked_mul(block);
                let at = at.ok_or_else(|| damaged(format!("inode {}: far too long", inode.number)))?;
                clean_block(walk, inode, at, &self.places)?;
                self.places.clear();
                self.blocks = 0;
            }
        }
        Ok(())
    }
}

/// Cleans the block that lies at this byte of the directory.
fn clean_block(walk: &mut Walk<'_>, inode: &Inode, at: u64, places: &[Extent]) -> Result<()> {
    let mut block = walk.read(places)?;
    let (marks, dead) = match at {
        ..HASHES => (DIRECTORY, entries(&block, &walk.geometry)?),
        HASHES..ROOM => (DA, hashes(&block, walk.geometry.v5)?),
        ROOM.. => (DIRECTORY, room(&block, walk.geometry.v5)?),
    };
    let crc = checked(walk, &marks, &block, places, inode)?;
    walk.clean_at(Kind::Directories, places, &mut block, &dead, crc)
}

/// Where the checksum of a block is, after a look at its other marks.
pub(super) fn checked(
    walk: &Walk<'_>,
    marks: &Marks,
    block: &[u8],
    places: &[Extent],
    inode: &Inode,
) -> Result<Option<usize>> {
    let start = places.first().map_or(0, |place| place.start);
    if !walk.geometry.v5 {
        return Ok(None);
    }
    marks.check(block, start, &walk.geometry.uuid, inode.number)?;
    Ok(Some(marks.crc))
}

/// A block of entries: each used one ends with padding, each unused one is old names but for its tag, length and place.
fn entries(block: &[u8], geometry: &Geometry) -> Result<Dead> {
    let wrong = || damaged("a block of a directory");
    let (start, is_single) = match (block.first_chunk::<4>().unwrap_or(b"    "), geometry.v5) {
        (b"XD2D", false) => (16, false),
        (b"XD2B", false) => (16, true),
        (b"XDD3", true) => (64, false),
        (b"XDB3", true) => (64, true),
        _ => return Err(wrong()),
    };
    let mut end = block.len();
    if is_single {
        let hashes = (be32(block, end - 8) as usize).checked_mul(8);
        end = hashes.and_then(|hashes| (end - 8).checked_sub(hashes)).ok_or_else(wrong)?;
    }
    let (mut at, mut dead) = (start, Dead::new());
    while at < end {
        let is_free = be16(block, at) == FREE;
        let (used, length) = if is_free {
            (4, usize::from(be16(block, at + 2)))
        } else {
            let used = 9 + usize::from(u8_at(block, at + 8)) + usize::from(geometry.file_types);
            (used, (used + 2).next_multiple_of(8))
        };
        let next = at + length;
        if length < 8 || length % 8 != 0 || next > end || usize::from(be16(block, next - 2)) != at {
            return Err(wrong());
        }
        dead.push(at + used..next - 2);
        at = next;
    }
    if at == end { Ok(dead) } else { Err(wrong()) }
}

/// A leaf or node of the tree of hashes. Behind the hashes a lone leaf has how much room each block of entries has.
fn hashes(block: &[u8], v5: bool) -> Result<Dead> {
    let wrong = || damaged("a block of the hashes of a directory");
    let (head, count) = if v5 { (64, be16(block, 56)) } else { (16, be16(block, 12)) };
    let used = head + usize::from(count) * 8;
    let tail = match (be16(block, 8), v5) {
        (0xd2f1, false) | (0x3df1, true) => {
            (be32(block, block.len() - 4) as usize).saturating_mul(2).saturating_add(4)
        }
        (0xd2ff | 0xfebe, false) | (0x3dff | 0x3ebe, true) => 0,
        _ => return Err(wrong()),
    };
    let end = block.len().checked_sub(tail).filter(|end| *end >= used).ok_or_else(wrong)?;
    Ok(only(used..end))
}

/// A block of the third region.
fn room(block: &[u8], v5: bool) -> Result<Dead> {
    let (magic, head, count) =
        if v5 { (b"XDF3", 64, be32(block, 52)) } else { (b"XD2F", 16, be32(block, 8)) };
    let used = (count as usize).saturating_mul(2).saturating_add(head);
    if !block.starts_with(magic) || used > block.len() {
        return Err(damaged("a block of the room of a directory"));
    }
    Ok(only(used..block.len()))
}
