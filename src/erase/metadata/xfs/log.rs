//! The log holds every change of metadata of its last rounds: names, targets of links, attributes. It is a ring of
//! blocks of 512 bytes, each stamped with the number of the round in which it was written; the kernel finds its place
//! by where that number drops (`xlog_find_head` of fs/xfs/xfs_log_recover.c), and takes the log for empty when the last
//! record before that place is an unmount record. So the stamps stay, and so does that record with what it must have;
//! all else becomes zero. The place in the log stays what it was: version 5 refuses metadata that is newer than it.

#![forbid(unsafe_code)]

use std::ops::Range;

use super::fields::{be32, is_zero, nonzero};
use super::{Kind, PIECE, Walk};
use crate::disk::crc::crc32c;
use crate::erase::extent::Extent;
use crate::error::{Error, Result};

const BLOCK: usize = 512;
/// `XLOG_HEADER_MAGIC_NUM`.
const MAGIC: u32 = 0xfeed_babe;
/// `XLOG_UNMOUNT_TRANS` in `oh_flags`.
const UNMOUNT: u8 = 0x20;
/// Bytes of a record whose first words one header block holds.
const HEADER_COVERS: u32 = 32 << 10;
/// `XLOG_MAX_RECORD_BSIZE`.
const LONGEST: u32 = 256 << 10;
/// The first words of the blocks of a record, in whose place they have the stamp: `h_cycle_data`.
const WORDS: Range<usize> = 44..300;
/// `sizeof(struct xlog_rec_header)`, as far as the checksum has it.
const HEADER: usize = 328;
/// `sizeof(struct xlog_rec_ext_header)`.
const MORE_HEADER: usize = 260;
/// Where `h_crc` is.
const CRC: usize = 32;
/// The stamp, the rest of an operation header, and 8 bytes that say unmount.
const OPERATION: usize = 20;

/// Cleans the log.
pub(super) fn clean(walk: &mut Walk<'_>) -> Result<()> {
    let place = walk.geometry.log()?;
    let shape = Shape::read(walk, place)?;
    let record = shape.record(walk)?;
    walk.note(Kind::Log, place.length, 0);
    let mut buffer = vec![0; PIECE];
    for start in shape.full {
        let length = usize::try_from(place.end() - start).unwrap_or(PIECE).min(PIECE);
        let piece = &mut buffer[..length];
        walk.volume.read(start, piece)?;
        let first = (start - place.start) / BLOCK as u64;
        let mut changed = Vec::with_capacity(length / BLOCK);
        for (block, number) in piece.chunks_exact_mut(BLOCK).zip(first..) {
            let remains = match record.as_ref().and_then(|record| record.block(number)) {
                Some(wanted) => replace(block, wanted),
                None => blank(block),
            };
            walk.note(Kind::Log, 0, remains);
            changed.push(remains > 0);
        }
        let mut at = 0;
        for run in changed.chunk_by(|one, next| one == next) {
            let length = run.len() * BLOCK;
            if run[0] {
                walk.write(start + at as u64, &piece[at..at + length])?;
            }
            at += length;
        }
    }
    Ok(())
}

/// Puts a block in the place of another; returns how many bytes change.
fn replace(block: &mut [u8], wanted: &[u8]) -> u64 {
    let different = block.iter().zip(wanted).filter(|(one, other)| one != other).count() as u64;
    block.copy_from_slice(wanted);
    different
}

/// Leaves only the stamp of a block; returns how many bytes were not zero. The head of a record may stay when the
/// record is empty: the kernel writes such where it will go on.
fn blank(block: &mut [u8]) -> u64 {
    if be32(block, 0) != MAGIC {
        let remains = nonzero(&block[4..]);
        block[4..].fill(0);
        return remains;
    }
    let remains = nonzero(&block[CRC..CRC + 4]) + nonzero(&block[WORDS]) + nonzero(&block[HEADER..]);
    if remains > 0 {
        block.copy_within(4..8, 0);
        block[4..].fill(0);
    }
    remains
}

/// The number of the round in which a block was written.
fn cycle(block: &[u8]) -> u32 {
    match be32(block, 0) {
        MAGIC => be32(block, 4),
        cycle => cycle,
    }
}

/// What a look at all stamps says.
struct Shape {
    start: u64,
    blocks: u64,
    /// The block that is written next; 0 also when that is the one behind the end.
    head: u64,
    /// The last head of a record before that, going round.
    record: Option<u64>,
    /// Nothing was ever written.
    unused: bool,
    /// Where the pieces begin that are not only zeros.
    full: Vec<u64>,
}

impl Shape {
    fn read(walk: &Walk<'_>, place: Extent) -> Result<Self> {
        let blocks = place.length / BLOCK as u64;
        let mut shape =
            Self { start: place.start, blocks, head: 0, record: None, unused: false, full: Vec::new() };
        let mut first = None;
        let mut last_record = None;
        let mut buffer = vec![0; PIECE];
        let mut at = place.start;
        while at < place.end() {
            let length = usize::try_from(place.end() - at).unwrap_or(PIECE).min(PIECE);
            let piece = &mut buffer[..length];
            let number = (at - place.start) / BLOCK as u64;
            if walk.volume.next_data(at, place.end())? >= at + length as u64 {
                shape.stamp(&mut first, 0, number)?;
            } else {
                walk.volume.read(at, piece)?;
                if is_zero(piece) {
                    shape.stamp(&mut first, 0, number)?;
                } else {
                    shape.full.push(at);
                    for (block, number) in piece.chunks_exact(BLOCK).zip(number..) {
                        shape.stamp(&mut first, cycle(block), number)?;
                        if be32(block, 0) == MAGIC {
                            last_record = Some(number);
                            if shape.head == 0 {
                                shape.record = last_record;
                            }
                        }
                    }
                }
            }
            at += length as u64;
        }
        shape.unused = first == Some(0);
        // A record that goes round has its head at the end.
        shape.record = shape.record.or(last_record);
        Ok(shape)
    }

    /// Notes the stamp of the block `number`: all are of one round, then all of the round before.
    fn stamp(&mut self, first: &mut Option<u32>, cycle: u32, number: u64) -> Result<()> {
        let newest = *first.get_or_insert(cycle);
        if self.head == 0 && cycle.checked_add(1) == Some(newest) {
            self.head = number;
        }
        let wanted = if self.head == 0 { newest } else { newest - 1 };
        if cycle == wanted { Ok(()) } else { Err(dirty("its rounds are mixed")) }
    }

    /// The record at the head, which must say that the filesystem was unmounted.
    fn record(&self, walk: &Walk<'_>) -> Result<Option<Record>> {
        if self.unused {
            return Ok(None);
        }
        let first = self.record.ok_or_else(|| dirty("it has no record"))?;
        let head = self.read_block(walk, first)?;
        let (version, length, size) = (be32(&head, 8), be32(&head, 12), be32(&head, 320));
        let size = if version & 2 != 0 { size.max(1) } else { 1 };
        if length > LONGEST || size > LONGEST || (length as usize) < OPERATION {
            return Err(dirty("its last record has no bounds"));
        }
        let count = u64::from(size.div_ceil(HEADER_COVERS)) + u64::from(length).div_ceil(BLOCK as u64);
        if count > self.blocks || (first + count) % self.blocks != self.head || be32(&head, 40) != 1 {
            return Err(dirty("its last record is not of an unmount"));
        }
        let mut blocks = vec![];
        for index in 0..count {
            blocks.push(self.read_block(walk, (first + index) % self.blocks)?);
        }
        Record::new(first, self.blocks, blocks, size.div_ceil(HEADER_COVERS) as usize)
    }

    fn read_block(&self, walk: &Walk<'_>, number: u64) -> Result<Vec<u8>> {
        walk.volume.read_vec(self.start + number * BLOCK as u64, BLOCK)
    }
}

/// The unmount record, with nothing in it but what makes it one.
struct Record {
    first: u64,
    /// Blocks of the whole log.
    round: u64,
    blocks: Vec<Vec<u8>>,
}

impl Record {
    fn new(first: u64, round: u64, mut blocks: Vec<Vec<u8>>, headers: usize) -> Result<Option<Self>> {
        if blocks.get(headers).is_none_or(|operation| operation[9] & UNMOUNT == 0) {
            return Err(dirty("its last record is not of an unmount"));
        }
        for (index, block) in blocks.iter_mut().enumerate() {
            match index {
                0 => {
                    block[WORDS.start + 4..WORDS.end].fill(0);
                    block[HEADER..].fill(0);
                }
                _ if index == headers => block[OPERATION..].fill(0),
                _ => block[4..].fill(0),
            }
        }
        if blocks[0][CRC..CRC + 4] != [0; 4] {
            let sum = checksum(&blocks, headers);
            blocks[0][CRC..CRC + 4].copy_from_slice(&sum);
        }
        Ok(Some(Self { first, round, blocks }))
    }

    /// What the block `number` of the log is to be, when it is one of this record.
    fn block(&self, number: u64) -> Option<&[u8]> {
        let index = (number + self.round - self.first) % self.round;
        let block = usize::try_from(index).ok().and_then(|index| self.blocks.get(index));
        block.map(Vec::as_slice)
    }
}

/// The checksum of a record: the kernel's `xlog_cksum`.
fn checksum(blocks: &[Vec<u8>], headers: usize) -> [u8; 4] {
    let first = &blocks[0];
    let mut sum = crc32c(!0, &first[..CRC]);
    sum = crc32c(sum, &[0; 4]);
    sum = crc32c(sum, &first[CRC + 4..HEADER]);
    for header in &blocks[1..headers] {
        sum = crc32c(sum, &header[..MORE_HEADER]);
    }
    blocks[headers..].iter().for_each(|block| sum = crc32c(sum, block));
    (!sum).to_le_bytes()
}

fn dirty(why: &str) -> Error {
    Error::unsupported(format!("the log of the XFS filesystem is not as an unmount leaves it: {why}"))
        .hint("mount and unmount it once")
}
