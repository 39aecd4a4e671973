//! Which blocks an inode has: by extents (the kernel's fs/ext4/ext4_extents.h) or by the older map of direct and
//! indirect blocks.

#![forbid(unsafe_code)]

use super::Walk;
use super::fields::{le16, le32, part, part_mut, put, size16};
use super::inode::Inode;
use super::layout::damaged;
use super::tally::Kind;
use crate::disk::crc::crc32c;
use crate::error::{Error, Result};

const MAGIC: u16 = 0xf30a;
/// Length of the head of a node and of each entry in it.
const ENTRY: usize = 12;
/// How deep the kernel lets a tree be.
const DEEPEST: u16 = 5;
/// An extent with more blocks than this was not written yet, and has that many less.
const MOST_WRITTEN: u16 = 32768;

/// Direct blocks of a map; behind them stand the roots of one, two and three levels.
const DIRECT: usize = 12;

/// Blocks in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Where in the file.
    pub(super) logical: u64,
    /// Where on the volume.
    pub(super) physical: u64,
    pub(super) count: u64,
    /// Whether they were not written yet.
    pub(super) unwritten: bool,
}

impl Run {
    fn goes_on_with(&self, next: &Self) -> bool {
        self.logical + self.count == next.logical
            && self.physical + self.count == next.physical
            && self.unwritten == next.unwritten
    }
}

/// The most runs of a directory or journal.
const MOST_RUNS: usize = 1 << 20;

/// What is done with each run.
pub(super) type Visit<'v, 'a> = &'v mut dyn FnMut(&mut Walk<'a>, Run) -> Result<()>;

fn odd(inode: &Inode) -> Error {
    damaged(format_args!("the blocks of inode {}", inode.number))
}

/// Visits the blocks of an inode in order, and wipes what is unused in the nodes of a tree of extents.
pub(super) fn visit<'a>(walk: &mut Walk<'a>, inode: &Inode, visit: Visit<'_, 'a>) -> Result<()> {
    if inode.has_extents() {
        let depth = le16(&inode.root, 6);
        if depth > DEEPEST {
            return Err(odd(inode));
        }
        return node(walk, inode, &inode.root, depth, visit);
    }
    let mut at = 0;
    let length = inode.length(&walk.layout);
    for slot in 0..DIRECT + 3 {
        let levels = slot.saturating_sub(DIRECT - 1);
        map(walk, (le32(&inode.root, slot * 4), levels), (&mut at, length), visit)?;
    }
    Ok(())
}

/// All blocks of an inode in order, as few runs.
pub(super) fn gather(walk: &mut Walk<'_>, inode: &Inode) -> Result<Vec<Run>> {
    let mut runs: Vec<Run> = Vec::new();
    visit(walk, inode, &mut |walk, run| {
        walk.partial(run.physical, run.count)?;
        match runs.last_mut().filter(|last| last.goes_on_with(&run)) {
            Some(last) => last.count += run.count,
            None => runs.push(run),
        }
        if runs.len() > MOST_RUNS {
            return Err(Error::unsupported(format!("inode {} is in too many pieces", inode.number)));
        }
        Ok(())
    })?;
    Ok(runs)
}

/// A node of a tree of extents, `depth` levels above its leaves.
fn node<'a>(
    walk: &mut Walk<'a>,
    inode: &Inode,
    bytes: &[u8],
    depth: u16,
    visit: Visit<'_, 'a>,
) -> Result<()> {
    let (entries, room) = (size16(bytes, 2), size16(bytes, 4));
    let most = (bytes.len() - ENTRY) / ENTRY;
    if le16(bytes, 0) != MAGIC || entries > room || room > most || le16(bytes, 6) != depth {
        return Err(odd(inode));
    }
    for entry in bytes.chunks_exact(ENTRY).skip(1).take(entries) {
        if depth == 0 {
            let run = run(entry);
            walk.layout.place(run.physical, run.count)?;
            visit(walk, run)?;
        } else {
            let child = u64::from(le32(entry, 4)) | u64::from(le16(entry, 8)) << 32;
            let bytes = tree_block(walk, inode, child)?;
            node(walk, inode, &bytes, depth - 1, visit)?;
        }
    }
    Ok(())
}

fn run(entry: &[u8]) -> Run {
    let count = le16(entry, 4);
    let unwritten = count > MOST_WRITTEN;
    Run {
        logical: le32(entry, 0).into(),
        physical: u64::from(le32(entry, 8)) | u64::from(le16(entry, 6)) << 32,
        count: u64::from(if unwritten { count - MOST_WRITTEN } else { count }),
        unwritten,
    }
}

/// Reads a node that has a block of its own. Kernels before 5.2 left memory of theirs behind the entries.
fn tree_block(walk: &mut Walk<'_>, inode: &Inode, number: u64) -> Result<Vec<u8>> {
    let mut block = walk.block(number)?;
    walk.partial(number, 1)?;
    let used = (size16(&block, 2) + 1).saturating_mul(ENTRY);
    let sum_at = (size16(&block, 4) + 1).saturating_mul(ENTRY);
    let checksums = walk.layout.checksums;
    if used > sum_at || sum_at + 4 > block.len() {
        return Err(odd(inode));
    }
    if checksums && crc32c(inode.seed, part(&block, 0..sum_at)) != le32(&block, sum_at) {
        return Err(odd(inode));
    }
    let rest = if checksums { sum_at + 4 } else { sum_at };
    let mut changed = walk.tally.clean(Kind::InodeSlack, part_mut(&mut block, used..sum_at));
    changed |= walk.tally.clean(Kind::InodeSlack, part_mut(&mut block, rest..usize::MAX));
    if changed {
        if checksums {
            let sum = crc32c(inode.seed, part(&block, 0..sum_at));
            put(&mut block, sum_at, &sum.to_le_bytes());
        }
        walk.volume.write(walk.layout.place(number, 1)?, &block)?;
    }
    Ok(block)
}

/// What a pointer of a map leads to: a block when it has no levels, else a block of pointers with one level less.
/// `at` is where in the file the walk is; it ends at `length`.
fn map<'a>(
    walk: &mut Walk<'a>,
    (number, levels): (u32, usize),
    (at, length): (&mut u64, u64),
    visit: Visit<'_, 'a>,
) -> Result<()> {
    let pointers = u64::from(walk.layout.block / 4);
    let span = (0..levels).fold(1_u64, |span, _| span.saturating_mul(pointers));
    if number == 0 || *at >= length {
        *at = at.saturating_add(span);
        return Ok(());
    }
    if levels == 0 {
        let run = Run { logical: *at, physical: number.into(), count: 1, unwritten: false };
        *at += 1;
        walk.layout.place(run.physical, 1)?;
        return visit(walk, run);
    }
    let block = walk.block(number.into())?;
    for pointer in block.chunks_exact(4) {
        map(walk, (le32(pointer, 0), levels - 1), (at, length), visit)?;
    }
    Ok(())
}
