//! The trees that XFS keeps its maps in: blocks with a head, keys and pointers, and at the lowest level records. What
//! lies behind the last of these may be a former life of the block.

#![forbid(unsafe_code)]

use super::fields::{Dead, LONG_TREE, Marks, SHORT_TREE, be16, be32, be64, damaged, only};
use super::geometry::Geometry;
use super::{Kind, Walk};
use crate::error::Result;

/// The kernel builds none higher than 9 levels.
pub(super) const MAX_LEVELS: u32 = 16;

/// One kind of tree: its magic numbers in version 4 and 5, and the bytes of its keys and records.
#[derive(Debug)]
pub(super) struct Form {
    magic: [&'static [u8; 4]; 2],
    key: usize,
    record: usize,
    /// Its pointers are 64-bit numbers of blocks of the filesystem, else 32-bit ones of its allocation group.
    long: bool,
}

pub(super) const BY_BLOCK: Form = Form { magic: [b"ABTB", b"AB3B"], key: 8, record: 8, long: false };
pub(super) const BY_SIZE: Form = Form { magic: [b"ABTC", b"AB3C"], key: 8, record: 8, long: false };
pub(super) const INODES: Form = Form { magic: [b"IABT", b"IAB3"], key: 4, record: 16, long: false };
pub(super) const FREE_INODES: Form = Form { magic: [b"FIBT", b"FIB3"], key: 4, record: 16, long: false };
/// A key has a low and a high end, of 20 bytes each.
pub(super) const REVERSE: Form = Form { magic: [b"RMB3", b"RMB3"], key: 40, record: 24, long: false };
pub(super) const REFERENCES: Form = Form { magic: [b"R3FC", b"R3FC"], key: 4, record: 12, long: false };
pub(super) const MAP: Form = Form { magic: [b"BMAP", b"BMA3"], key: 8, record: 16, long: true };

/// What is done with the records of one block.
pub(super) type Visit<'v> = dyn FnMut(&mut Walk<'_>, &[u8]) -> Result<()> + 'v;

impl Form {
    fn marks(&self) -> Marks {
        if self.long { LONG_TREE } else { SHORT_TREE }
    }

    fn head(&self, v5: bool) -> usize {
        match (self.long, v5) {
            (false, false) => 16,
            (false, true) => 56,
            (true, false) => 24,
            (true, true) => 72,
        }
    }

    fn pointer(&self) -> usize {
        if self.long { 8 } else { 4 }
    }

    /// Where the pointers begin: behind as many keys as the block has room for.
    fn pointers(&self, geometry: &Geometry) -> usize {
        let head = self.head(geometry.v5);
        head + (geometry.block_len() - head) / (self.key + self.pointer()) * self.key
    }

    /// The parts of a block that nothing uses.
    fn dead(&self, block: &[u8], geometry: &Geometry) -> Result<Dead> {
        let (head, count) = (self.head(geometry.v5), usize::from(be16(block, 6)));
        let dead = if be16(block, 4) == 0 {
            only(head + count * self.record..block.len())
        } else {
            let pointers = self.pointers(geometry);
            vec![head + count * self.key..pointers, pointers + count * self.pointer()..block.len()]
        };
        if dead.iter().any(|range| range.start > range.end) {
            return Err(damaged("a block of a tree holds more than it can"));
        }
        Ok(dead)
    }
}

/// A tree, and whose it is: the number of an allocation group or of an inode.
#[derive(Debug)]
pub(super) struct Tree<'f> {
    pub(super) form: &'f Form,
    pub(super) owner: u64,
}

impl Tree<'_> {
    /// Visits the blocks below these pointers, which are of this level, from left to right.
    pub(super) fn walk(
        &self,
        walk: &mut Walk<'_>,
        pointers: impl DoubleEndedIterator<Item = u64>,
        level: u32,
        visit: &mut Visit<'_>,
    ) -> Result<()> {
        if level >= MAX_LEVELS {
            return Err(damaged("a tree is too high"));
        }
        let mut ahead: Vec<(u64, u32)> = pointers.rev().map(|pointer| (pointer, level)).collect();
        while let Some((pointer, level)) = ahead.pop() {
            let block = self.block(walk, pointer, level)?;
            let (head, count) = (self.form.head(walk.geometry.v5), usize::from(be16(&block, 6)));
            match level.checked_sub(1) {
                None => visit(walk, &block[head..head + count * self.form.record])?,
                Some(below) => {
                    let (at, size) = (self.form.pointers(&walk.geometry), self.form.pointer());
                    let number = |index| match size {
                        8 => be64(&block, at + index * size),
                        _ => be32(&block, at + index * size).into(),
                    };
                    ahead.extend((0..count).rev().map(|index| (number(index), below)));
                }
            }
        }
        Ok(())
    }

    /// Reads, checks and cleans one block.
    fn block(&self, walk: &mut Walk<'_>, pointer: u64, level: u32) -> Result<Vec<u8>> {
        walk.spend(1)?;
        let geometry = &walk.geometry;
        let place = match u32::try_from(self.owner) {
            Ok(ag) if !self.form.long => geometry.in_group(ag, pointer, 1)?,
            _ => geometry.blocks_at(pointer, 1)?,
        };
        let mut block = walk.read(&[place])?;
        let magic = self.form.magic[usize::from(geometry.v5)];
        if !block.starts_with(magic) || u32::from(be16(&block, 4)) != level {
            return Err(damaged(format!("no block of a tree at byte {}", place.start)));
        }
        let marks = self.form.marks();
        if geometry.v5 {
            marks.check(&block, place.start, &geometry.uuid, self.owner)?;
        }
        let dead = self.form.dead(&block, geometry)?;
        let crc = geometry.v5.then_some(marks.crc);
        walk.clean_at(Kind::Trees, &[place], &mut block, &dead, crc)?;
        Ok(block)
    }
}
