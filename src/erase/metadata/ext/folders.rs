//! Blocks of directories and of extended attributes: gathered from many inodes and cleaned in the order in which they
//! lie on the disk, so that those near each other are read at once.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;

use super::Walk;
use super::attributes;
use super::blocks::{self, Run};
use super::directory::{Shape, children, clean_block, levels};
use super::inode::Inode;
use super::layout::damaged;
use super::sheet::Sheet;
use crate::error::Result;

/// How many stretches are gathered before they are cleaned.
const FULL: usize = 1 << 16;

/// What may lie between two stretches that are read at once, and the most that is.
const NEAR: u64 = 32 << 10;
const LOT: u64 = 512 << 10;

/// Blocks in a row that have one directory's names, or one block of its index.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stretch {
    block: u64,
    count: u64,
    shape: Shape,
    seed: u32,
}

/// Gathers the blocks of a directory.
pub(super) fn note(walk: &mut Walk<'_>, inode: &Inode) -> Result<()> {
    let length = inode.length(&walk.layout);
    let mut runs = blocks::gather(walk, inode)?;
    for run in &mut runs {
        run.count = run.count.min(length.saturating_sub(run.logical));
        walk.spend(run.count)?;
        if run.unwritten {
            return Err(damaged(format_args!("the blocks of directory {}", inode.number)));
        }
    }
    let nodes = if inode.is_indexed() && walk.layout.indexes { index(walk, &runs)? } else { BTreeSet::new() };
    for run in &runs {
        split(walk, inode, *run, &nodes);
    }
    Ok(())
}

/// Gathers one run: blocks of the index each by itself, those with names as they are.
fn split(walk: &mut Walk<'_>, inode: &Inode, run: Run, nodes: &BTreeSet<u64>) {
    let names = Shape::Names { hashes: inode.has_hashes() };
    let most = LOT / u64::from(walk.layout.block);
    let mut gather = |mut from: u64, to: u64, shape| {
        while to > from {
            let (block, count) = (run.physical + (from - run.logical), most.min(to - from));
            walk.folders.push(Stretch { block, count, shape, seed: inode.seed });
            from += count;
        }
    };
    let (mut at, end) = (run.logical, run.logical + run.count);
    for node in nodes.range(at..end).copied() {
        gather(at, node, names);
        gather(node, node + 1, if node == 0 { Shape::Root } else { Shape::Node });
        at = node + 1;
    }
    gather(at, end, names);
}

/// The blocks of a directory, counted from its start, that its index takes.
fn index(walk: &mut Walk<'_>, runs: &[Run]) -> Result<BTreeSet<u64>> {
    let layout = walk.layout.clone();
    let root = indexed(walk, runs, 0)?;
    let below = levels(&layout, &root).ok_or_else(|| damaged("the index of a directory"))?;
    let (mut nodes, mut level) = (BTreeSet::from([0]), vec![]);
    let mut next = children(&layout, Shape::Root, &root)?;
    for _ in 0..below {
        std::mem::swap(&mut level, &mut next);
        next.clear();
        for node in level.drain(..).map(u64::from) {
            if !nodes.insert(node) {
                return Err(damaged("the index of a directory"));
            }
            let block = indexed(walk, runs, node)?;
            next.extend(children(&layout, Shape::Node, &block)?);
        }
    }
    Ok(nodes)
}

/// Reads a block of a directory by its place in it.
fn indexed(walk: &mut Walk<'_>, runs: &[Run], logical: u64) -> Result<Vec<u8>> {
    let run = runs[..runs.partition_point(|run| run.logical <= logical)].last();
    let run = run.filter(|run| logical - run.logical < run.count);
    let run = run.ok_or_else(|| damaged("the index of a directory"))?;
    walk.block(run.physical + (logical - run.logical))
}

/// Cleans what was gathered when it is much.
pub(super) fn flush_full(walk: &mut Walk<'_>) -> Result<()> {
    if walk.folders.len().max(walk.attributes.len()) >= FULL { flush(walk) } else { Ok(()) }
}

/// Cleans what was gathered.
pub(super) fn flush(walk: &mut Walk<'_>) -> Result<()> {
    let mut folders = std::mem::take(&mut walk.folders);
    folders.sort_unstable_by_key(|stretch| stretch.block);
    let mut rest = folders.as_slice();
    while !rest.is_empty() {
        let (lot, more) = rest.split_at(near(rest, walk.layout.block.into()));
        clean(walk, lot)?;
        rest = more;
    }
    let mut shared = std::mem::take(&mut walk.attributes);
    shared.sort_unstable();
    shared.dedup();
    for number in shared {
        let mut block = walk.block(number)?;
        walk.partial(number, 1)?;
        if attributes::clean_block(&mut walk.tally, &walk.layout, number, &mut block)? {
            walk.volume.write(walk.layout.place(number, 1)?, &block)?;
        }
    }
    Ok(())
}

/// How many of these stretches are read at once: at least one.
fn near(stretches: &[Stretch], block: u64) -> usize {
    let start = stretches.first().map_or(0, |first| first.block);
    let mut end = start;
    let fits = |stretch: &&Stretch| {
        let reach = end.max(stretch.block + stretch.count);
        let fits = stretch.block <= end + NEAR / block && reach - start <= LOT / block;
        end = reach;
        fits
    };
    stretches.iter().take_while(fits).count().max(1)
}

/// Cleans stretches that lie near each other.
fn clean(walk: &mut Walk<'_>, stretches: &[Stretch]) -> Result<()> {
    let size = walk.layout.block as usize;
    let start = stretches.first().map_or(0, |first| first.block);
    let end = stretches.iter().map(|stretch| stretch.block + stretch.count).max().unwrap_or(start);
    let length = usize::try_from(end - start).unwrap_or(0) * size;
    let mut sheet = Sheet::read(&walk.volume, walk.layout.place(start, end - start)?, length)?;
    for stretch in stretches {
        for block in stretch.block..stretch.block + stretch.count {
            let at = usize::try_from(block - start).unwrap_or(0) * size;
            let shape = (stretch.shape, stretch.seed);
            if clean_block(&mut walk.tally, &walk.layout, shape, sheet.part(at..at + size))? {
                sheet.changed(at..at + size);
            }
        }
    }
    sheet.store(&walk.volume)
}
