//! The tables of a qcow2 image: which cluster of the disk lies where in the file. qemu trusts them when it writes, so
//! that what is cut off, lies on something else or counts as free would be found out in the midst of a commit.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};

use super::qcow2::{be32, be64};
use crate::error::{Context, Error, Result};

/// The most bytes of an L1 table and of a refcount table, by qemu's own bounds.
pub(super) const L1_LIMIT: u64 = 32 << 20;
const REFCOUNTS_LIMIT: u64 = 8 << 20;
/// The bits of a table entry that hold an offset.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
/// The most words of 64 clusters that may be in use: 32 TiB in clusters of 64 KiB that lie side by side.
const WORDS_LIMIT: usize = 8 << 20;

/// Checks that every table and cluster that the image names lies in its file, on its own, and is counted as used. Reads
/// 8 bytes for each cluster of the disk that is in use, and some for its count.
///
/// # Errors
/// When it cannot be read, or something is missing or impossible.
pub fn check<R: Read + Seek>(image: &mut R) -> Result<()> {
    let end = image.seek(SeekFrom::End(0)).context(|| "cannot measure the image")?;
    let mut tables = Tables::read(image, end)?;
    tables.counts(image)?;
    tables.clusters(image)?;
    tables.all_counted(image)
}

fn cut() -> Error {
    Error::failed("the image is cut off").hint("copy it again; qemu-img check tells more")
}

fn damaged(what: &str) -> Error {
    Error::unsupported(format!("the image is damaged: {what}"))
        .hint("repair it first, on a copy: qemu-img check -r all IMAGE")
}

struct Tables {
    end: u64,
    cluster_bits: u32,
    /// Bytes of an L2 entry.
    entry: u64,
    l1_at: u64,
    l1_entries: u64,
    counts_at: u64,
    counts_length: u64,
    /// The power of two that is the width of a count in bits.
    count_order: u32,
    /// Where the blocks of counts are.
    blocks: Vec<u64>,
    used: Clusters,
    /// Clusters with compressed data, of which several share one.
    shared: Clusters,
}

impl Tables {
    fn read<R: Read + Seek>(image: &mut R, end: u64) -> Result<Self> {
        let head = read_at(image, 0, 104).map_err(|error| cut().caused_by(error))?;
        let version3 = be32(&head, 4) == 3;
        let extended = version3 && be64(&head, 72) & 16 != 0;
        let mut tables = Self {
            end,
            cluster_bits: be32(&head, 20),
            entry: if extended { 16 } else { 8 },
            l1_at: be64(&head, 40),
            l1_entries: be32(&head, 36).into(),
            counts_at: be64(&head, 48),
            counts_length: u64::from(be32(&head, 56)),
            count_order: if version3 { be32(&head, 96) } else { 4 },
            blocks: Vec::new(),
            used: Clusters::default(),
            shared: Clusters::default(),
        };
        tables.counts_length = tables.counts_length.saturating_mul(tables.cluster());
        let covered = (tables.cluster() / tables.entry).saturating_mul(tables.cluster());
        let needed = be64(&head, 24).div_ceil(covered);
        if needed > tables.l1_entries {
            return Err(damaged("its table is too small for its disk"));
        }
        // What is beyond the disk, a larger one of earlier times left.
        tables.l1_entries = needed;
        if needed * 8 > L1_LIMIT || tables.counts_length > REFCOUNTS_LIMIT || tables.count_order > 6 {
            return Err(damaged("its tables are larger than qemu takes"));
        }
        tables.claim(0, 104)?;
        tables.claim(tables.l1_at, needed * 8)?;
        tables.claim(tables.counts_at, tables.counts_length)?;
        Ok(tables)
    }

    fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Takes a part of the file for a table, which must begin with a cluster, be there and be its own.
    fn claim(&mut self, at: u64, length: u64) -> Result<()> {
        if at.checked_add(length).is_none_or(|last| last > self.end) {
            return Err(cut());
        }
        self.claim_beginning(at, length)
    }

    /// The same for what may end behind the end of the file, as the last cluster of data may.
    fn claim_beginning(&mut self, at: u64, length: u64) -> Result<()> {
        if at >= self.end {
            return Err(cut());
        }
        if !at.is_multiple_of(self.cluster()) {
            return Err(damaged("a table or cluster begins within another"));
        }
        for cluster in at >> self.cluster_bits..(at + length).div_ceil(self.cluster()) {
            if !self.used.insert(cluster)? {
                return Err(damaged("two of its tables or clusters lie on one another"));
            }
        }
        Ok(())
    }

    /// Where the counts are.
    fn counts<R: Read + Seek>(&mut self, image: &mut R) -> Result<()> {
        let table =
            read_at(image, self.counts_at, self.counts_length).map_err(|error| cut().caused_by(error))?;
        self.blocks = table.chunks_exact(8).map(|entry| be64(entry, 0) & !0x1ff).collect();
        for at in self.blocks.clone().into_iter().filter(|at| *at != 0) {
            self.claim(at, self.cluster())?;
        }
        Ok(())
    }

    /// Goes through the L1 and all L2 tables.
    fn clusters<R: Read + Seek>(&mut self, image: &mut R) -> Result<()> {
        let missing = |error: std::io::Error| cut().caused_by(error);
        let l1 = read_at(image, self.l1_at, self.l1_entries * 8).map_err(missing)?;
        for at in l1.chunks_exact(8).map(|entry| be64(entry, 0) & OFFSET).filter(|at| *at != 0) {
            self.claim(at, self.cluster())?;
            let l2 = read_at(image, at, self.cluster()).map_err(missing)?;
            let step = usize::try_from(self.entry).unwrap_or(8);
            for entry in l2.chunks_exact(step).map(|entry| be64(entry, 0)).filter(|entry| *entry != 0) {
                self.cluster_at(entry)?;
            }
        }
        Ok(())
    }

    fn cluster_at(&mut self, entry: u64) -> Result<()> {
        if entry & COMPRESSED == 0 {
            let at = entry & OFFSET;
            return if at == 0 { Ok(()) } else { self.claim_beginning(at, self.cluster()) };
        }
        // The offset in bytes, and above it how many more sectors of 512 bytes the data reaches into.
        let bits = 62 - (self.cluster_bits - 8);
        let at = entry & ((1 << bits) - 1);
        let sectors = (entry & (COMPRESSED - 1)) >> bits;
        let last = (at & !511) + (sectors + 1) * 512 - 1;
        if at >= self.end {
            return Err(cut());
        }
        for cluster in at >> self.cluster_bits..=last >> self.cluster_bits {
            self.shared.insert(cluster)?;
        }
        Ok(())
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
        let mut all: Vec<(u64, u64)> =
            self.used.words.iter().chain(&self.shared.words).map(|(word, bits)| (*word, *bits)).collect();
        all.sort_unstable();
        // Counts in a block of one cluster.
        let in_block = (self.cluster() * 8) >> self.count_order;
        let mut block: (u64, Vec<u8>) = (u64::MAX, Vec::new());
        for (word, bits) in all {
            for cluster in (0..64).filter(|bit| bits >> bit & 1 != 0).map(|bit| word * 64 + bit) {
                let number = cluster / in_block;
                if block.0 != number {
                    let at = usize::try_from(number).ok().and_then(|number| self.blocks.get(number));
                    let at = at.copied().filter(|at| *at != 0);
                    let at = at.ok_or_else(|| damaged("a cluster in use is counted nowhere"))?;
                    block =
                        (number, read_at(image, at, self.cluster()).map_err(|error| cut().caused_by(error))?);
                }
                if is_free(&block.1, cluster % in_block, self.count_order) {
                    return Err(damaged("a cluster in use counts as free"));
                }
            }
        }
        Ok(())
    }
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
#[derive(Default)]
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
}

fn read_at<R: Read + Seek>(image: &mut R, at: u64, length: u64) -> std::io::Result<Vec<u8>> {
    image.seek(SeekFrom::Start(at))?;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let mut filled = 0;
    // The last cluster of a file may be shorter, and reads as zeros beyond its end.
    while filled < bytes.len() {
        match image.read(&mut bytes[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(bytes)
}
