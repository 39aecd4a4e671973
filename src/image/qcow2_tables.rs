//! The tables of a qcow2 image: which cluster of the disk lies where in the file. qemu trusts them when it writes, so
//! that what is cut off, lies on something else or counts as free would be found out in the midst of a commit.

use std::collections::HashMap;
use std::io::{Read, Seek};
use std::ops::Range;

use super::qcow2_geometry::{Geometry, Place, cut, damaged, read_at};
use crate::disk::number::be64;
use crate::error::{Error, Result};

/// The most words of 64 clusters that may be in use: 32 TiB in clusters of 64 KiB that lie side by side.
const WORDS_LIMIT: usize = 8 << 20;

/// Checks that every table and cluster that the image names lies in its file, on its own, and is counted as used. Reads
/// 8 bytes for each cluster of the disk that is in use, and some for its count.
///
/// # Errors
/// When it cannot be read, or something is missing or impossible.
pub fn check<R: Read + Seek>(image: &mut R) -> Result<()> {
    Tables::checked(image).map(drop)
}

/// An image of which every table was checked, and what they name.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) geometry: Geometry,
    /// Where the blocks of counts are.
    blocks: Vec<u64>,
    used: Clusters,
    /// Clusters with compressed data, of which several share one.
    shared: Clusters,
    /// Clusters in use of which no byte is one of the disk.
    idle: Clusters,
}

impl Tables {
    /// Reads and checks them all, as [`check`] does.
    pub(super) fn checked<R: Read + Seek>(image: &mut R) -> Result<Self> {
        let geometry = Geometry::read(image)?;
        let (blocks, [used, shared, idle]) = (Vec::new(), [(); 3].map(|()| Clusters::default()));
        let mut tables = Self { geometry, blocks, used, shared, idle };
        tables.claim(0, 104)?;
        tables.claim(geometry.l1_at, geometry.l1_entries * 8)?;
        tables.claim(geometry.counts_at, geometry.counts_length)?;
        tables.counts(image)?;
        geometry.visit(image, |_, place| tables.take(place))?;
        // What a larger disk left is worth keeping where nothing of this one is.
        for (_, at) in geometry.l1(image, geometry.l1_needed, geometry.l1_entries)? {
            if tables.may_claim(at) {
                tables.claim(at, geometry.cluster())?;
            }
        }
        tables.all_counted(image)?;
        Ok(tables)
    }

    /// Takes a part of the file for a table, which must begin with a cluster, be there and be its own.
    fn claim(&mut self, at: u64, length: u64) -> Result<()> {
        if at.checked_add(length).is_none_or(|last| last > self.geometry.end) {
            return Err(cut());
        }
        self.claim_beginning(at, length)
    }

    /// The same for what may end behind the end of the file, as the last cluster of data may.
    fn claim_beginning(&mut self, at: u64, length: u64) -> Result<()> {
        if at >= self.geometry.end {
            return Err(cut());
        }
        if !at.is_multiple_of(self.geometry.cluster()) {
            return Err(damaged("a table or cluster begins within another"));
        }
        for cluster in self.clusters_of(at, at.saturating_add(length)) {
            if !self.used.insert(cluster)? {
                return Err(damaged("two of its tables or clusters lie on one another"));
            }
        }
        Ok(())
    }

    /// Whether a cluster that is taken for a table would be one of its own.
    fn may_claim(&self, at: u64) -> bool {
        let Geometry { cluster_bits, end, .. } = self.geometry;
        let inside = at.checked_add(self.geometry.cluster()).is_some_and(|last| last <= end);
        let number = at >> cluster_bits;
        let free = !self.used.has(number) && !self.shared.has(number);
        inside && free && at.is_multiple_of(self.geometry.cluster())
    }

    /// The numbers of the clusters that hold the bytes from `start` up to `end`.
    fn clusters_of(&self, start: u64, end: u64) -> Range<u64> {
        start >> self.geometry.cluster_bits..end.div_ceil(self.geometry.cluster())
    }

    /// Where the counts are.
    fn counts<R: Read + Seek>(&mut self, image: &mut R) -> Result<()> {
        let Geometry { counts_at, counts_length, .. } = self.geometry;
        let table = read_at(image, counts_at, counts_length).map_err(|error| cut().caused_by(error))?;
        self.blocks = table.chunks_exact(8).map(|entry| be64(entry, 0) & !0x1ff).collect();
        for at in self.blocks.clone().into_iter().filter(|at| *at != 0) {
            self.claim(at, self.geometry.cluster())?;
        }
        Ok(())
    }

    /// Takes what a table names.
    fn take(&mut self, place: Place) -> Result<()> {
        match place {
            Place::Table { at } => self.claim(at, self.geometry.cluster()),
            Place::Cluster { at, live } => {
                self.claim_beginning(at, self.geometry.cluster())?;
                if live == 0 {
                    self.idle.insert(at >> self.geometry.cluster_bits)?;
                }
                Ok(())
            }
            Place::Compressed { at, .. } if at >= self.geometry.end => Err(cut()),
            Place::Compressed { at, end } => {
                self.clusters_of(at, end).try_for_each(|cluster| self.shared.insert(cluster).map(drop))
            }
            Place::Zeros => Ok(()),
        }
    }

    /// Whether any data is compressed.
    pub(super) fn has_compressed(&self) -> bool {
        !self.shared.words.is_empty()
    }

    /// The clusters with compressed data, each from its first byte on, in order.
    pub(super) fn compressed(&self) -> Vec<u64> {
        let words = sorted(self.shared.words.iter());
        words.into_iter().flat_map(numbers).map(|number| number << self.geometry.cluster_bits).collect()
    }

    /// The stretches of the file, in order, of which no byte is one of the disk or of a table: whole clusters, and what
    /// is behind the last one.
    pub(super) fn unused(&self, mut visit: impl FnMut(u64, u64) -> Result<()>) -> Result<()> {
        let (end, mut from) = (self.geometry.end, 0);
        let mut live = sorted(self.used.words.iter().chain(&self.shared.words));
        live.dedup_by(|next, kept| {
            kept.1 |= if next.0 == kept.0 { next.1 } else { 0 };
            next.0 == kept.0
        });
        for (word, bits) in &mut live {
            *bits &= !self.idle.words.get(word).copied().unwrap_or_default();
        }
        for number in live.into_iter().flat_map(numbers) {
            let at = number << self.geometry.cluster_bits;
            if at > from {
                visit(from, at.min(end))?;
            }
            from = at + self.geometry.cluster();
        }
        if end > from { visit(from, end) } else { Ok(()) }
    }

    /// Nothing that is in use may count as free: qemu would write something else there.
    fn all_counted<R: Read + Seek>(&self, image: &mut R) -> Result<()> {
        if self
            .shared
            .words
            .iter()
            .any(|(word, bits)| self.used.words.get(word).is_some_and(|used| used & bits != 0))
        {
            return Err(damaged("compressed data lies on something else"));
        }
        let all = sorted(self.used.words.iter().chain(&self.shared.words));
        // Counts in a block of one cluster.
        let (size, order) = (self.geometry.cluster(), self.geometry.count_order);
        let in_block = (size * 8) >> order;
        let mut block: (u64, Vec<u8>) = (u64::MAX, Vec::new());
        for cluster in all.into_iter().flat_map(numbers) {
            let number = cluster / in_block;
            if block.0 != number {
                let at = usize::try_from(number).ok().and_then(|number| self.blocks.get(number));
                let at = at.copied().filter(|at| *at != 0);
                let at = at.ok_or_else(|| damaged("a cluster in use is counted nowhere"))?;
                block = (number, read_at(image, at, size).map_err(|error| cut().caused_by(error))?);
            }
            if is_free(&block.1, cluster % in_block, order) {
                return Err(damaged("a cluster in use counts as free"));
            }
        }
        Ok(())
    }
}

/// Words of clusters with their numbers, in order.
fn sorted<'a>(words: impl Iterator<Item = (&'a u64, &'a u64)>) -> Vec<(u64, u64)> {
    let mut words: Vec<_> = words.map(|(word, bits)| (*word, *bits)).collect();
    words.sort_unstable();
    words
}

/// The clusters of a word.
fn numbers((word, bits): (u64, u64)) -> impl Iterator<Item = u64> {
    (0..64).filter(move |bit| bits >> bit & 1 != 0).map(move |bit| word * 64 + bit)
}

/// Whether the count is 0. Counts of less than a byte fill it from its lowest bit on.
fn is_free(block: &[u8], index: u64, order: u32) -> bool {
    let bit = index << order;
    let at = usize::try_from(bit / 8).unwrap_or(usize::MAX);
    if order < 3 {
        let mask = (1u8 << (1 << order)) - 1;
        return block.get(at).is_none_or(|byte| byte >> (bit % 8) & mask == 0);
    }
    let width = 1 << (order - 3);
    block.get(at..at + width).is_none_or(|count| count.iter().all(|byte| *byte == 0))
}

/// A set of clusters, 64 of them a word.
#[derive(Debug, Default)]
struct Clusters {
    words: HashMap<u64, u64>,
}

impl Clusters {
    /// False when it was there before.
    fn insert(&mut self, cluster: u64) -> Result<bool> {
        if self.words.len() > WORDS_LIMIT {
            return Err(Error::unsupported("the image has more clusters than guestseal keeps an account of")
                .hint("write it anew with larger clusters: qemu-img convert -O qcow2 -o cluster_size=2M OLD NEW.qcow2"));
        }
        let word = self.words.entry(cluster / 64).or_default();
        let bit = 1 << (cluster % 64);
        let new = *word & bit == 0;
        *word |= bit;
        Ok(new)
    }

    fn has(&self, cluster: u64) -> bool {
        self.words.get(&(cluster / 64)).is_some_and(|word| word >> (cluster % 64) & 1 != 0)
    }
}
