//! What ext2, ext3 and ext4 keep of deleted files outside of their free space: in the journal, in slots of free
//! inodes, behind the names of directories, in unused parts of inodes, and in blocks that were allocated but never
//! written. Nothing is allocated, freed or moved, so no count and no descriptor changes.
//!
//! Left alone are the boot sector, quota files, the orphan file, bytes behind the end of a file in its last block (the
//! kernel zeroes them), and inodes that are reserved.

#![forbid(unsafe_code)]

mod attributes;
mod blocks;
mod directory;
mod fields;
mod fixed;
mod folders;
mod inode;
mod journal;
mod layout;
mod sheet;
mod slack;
mod table;
mod tally;

use layout::{Layout, damaged};
use sheet::blank;
use tally::{Kind, Tally};

use super::{Act, Remains};
use crate::erase::extent::{Extent, Extents};
use crate::erase::volume::VolumeBytes;
use crate::error::{Error, Result};

/// The most pieces of clusters that are kept an account of.
const MOST_PIECES: usize = 4 << 20;

/// Counts or makes zero what is left of deleted files in the metadata of an ext2, ext3 or ext4 that nothing has
/// mounted. Gives one account for each of `journal`, `free inodes`, `inode slack`, `directories` and `preallocated`.
///
/// # Errors
/// When the filesystem was not unmounted cleanly, has features that are not known, or is damaged: then its metadata is
/// cleaned in part. When the disk cannot be read or written.
pub fn walk(volume: &VolumeBytes<'_>, act: Act) -> Result<Vec<Remains>> {
    let layout = Layout::read(volume)?;
    // Each block belongs to one file: only a damaged filesystem names more than it has.
    let budget = layout.blocks.saturating_mul(2).saturating_add(1024);
    let tally = Tally::new(act);
    let (folders, attributes, pieces) = (Vec::new(), Vec::new(), Vec::new());
    let mut walk = Walk { volume: *volume, layout, tally, budget, folders, attributes, pieces };
    journal::clean(&mut walk)?;
    table::clean(&mut walk)?;
    walk.clusters()?;
    Ok(walk.tally.remains())
}

/// One walk over one filesystem.
#[derive(Debug)]
struct Walk<'a> {
    volume: VolumeBytes<'a>,
    layout: Layout,
    tally: Tally,
    /// How many blocks may still be looked at.
    budget: u64,
    /// Blocks of directories that are still to be cleaned.
    folders: Vec<folders::Stretch>,
    /// Blocks of extended attributes that are still to be cleaned.
    attributes: Vec<u64>,
    /// What files have of clusters that are not theirs as a whole.
    pieces: Vec<Extent>,
}

impl Walk<'_> {
    /// Notes that `count` blocks are looked at.
    fn spend(&mut self, count: u64) -> Result<()> {
        let left = self.budget.checked_sub(count).ok_or_else(|| damaged("its files share blocks"))?;
        self.budget = left;
        Ok(())
    }

    /// Reads one block of metadata.
    fn block(&mut self, number: u64) -> Result<Vec<u8>> {
        self.spend(1)?;
        self.volume.read_vec(self.layout.place(number, 1)?, self.layout.block as usize)
    }

    /// Counts or makes zero whole blocks.
    fn blank(&mut self, kind: Kind, block: u64, count: u64) -> Result<()> {
        self.spend(count)?;
        let start = self.layout.place(block, count)?;
        let end = start + count * u64::from(self.layout.block);
        blank(&self.volume, &mut self.tally, kind, (start, end))
    }

    /// Notes that blocks are a file's, where their clusters may have more blocks than the file.
    fn partial(&mut self, block: u64, count: u64) -> Result<()> {
        let cluster = self.layout.cluster;
        if cluster == 1 || count == 0 {
            return Ok(());
        }
        let (end, size) = (block + count, u64::from(self.layout.block));
        let (head, tail) = (block.next_multiple_of(cluster).min(end), (end - end % cluster).max(block));
        let pieces = if head >= tail { [(block, end), (0, 0)] } else { [(block, head), (tail, end)] };
        self.pieces.extend(
            pieces
                .iter()
                .filter(|(from, to)| to > from)
                .map(|(from, to)| Extent::between(from * size, to * size)),
        );
        if self.pieces.len() > MOST_PIECES {
            return Err(Error::unsupported("its files are in too many pieces of clusters"));
        }
        Ok(())
    }

    /// Cleans the blocks of those clusters which no file has written to: the whole cluster counts as used.
    fn clusters(&mut self) -> Result<()> {
        let bytes = self.layout.cluster * u64::from(self.layout.block);
        let all = self.layout.blocks * u64::from(self.layout.block);
        let pieces = Extents::new(std::mem::take(&mut self.pieces))?;
        let outer = |piece: Extent| {
            Extent::between(piece.start - piece.start % bytes, piece.end().next_multiple_of(bytes).min(all))
        };
        for cluster in Extents::new(pieces.iter().map(outer))?.iter() {
            for gap in pieces.within(cluster.start, cluster.end()).gaps(cluster.start, cluster.end()).iter() {
                blank(&self.volume, &mut self.tally, Kind::Preallocated, (gap.start, gap.end()))?;
            }
        }
        Ok(())
    }
}
