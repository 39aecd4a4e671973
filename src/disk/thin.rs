//! Which chunks of a thin pool belong to none of its volumes: the space map in the metadata of device-mapper's target
//! `thin-pool` (drivers/md/dm-thin-metadata.c and drivers/md/persistent-data of the kernel). All of it is checked by its
//! checksums, and the count of what is used must be right: what is taken for free is made zero.

#![forbid(unsafe_code)]

use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

use super::crc::crc32c;
use super::number::{le32, le64};
use crate::error::{Context, Error, Result};

/// Metadata is kept in blocks of this length, in bytes.
const BLOCK: usize = 4096;
const MAGIC: u64 = 27_022_010;
const SECTOR: u64 = 512;
/// What the checksum of each kind of block is mixed with.
const SUPERBLOCK: u32 = 160_774;
const NODE: u32 = 121_107;
const BITMAP: u32 = 240_779;
/// Set when the pool wants thin_check(8).
const NEEDS_CHECK: u32 = 1;
const INTERNAL: u32 = 1;
const LEAF: u32 = 2;
const NODE_HEADER: usize = 32;
const BITMAP_HEADER: usize = 16;
/// How many chunks one block of bits tells of: two bits each.
const CHUNKS: u64 = (BLOCK as u64 - BITMAP_HEADER as u64) * 4;
/// A tree as high as this tells of more chunks than there are numbers.
const HIGHEST: u32 = 8;

/// The stretches of the pool's data device, in bytes, that no volume and no snapshot uses, from its metadata device.
/// `data_bytes` is the length of the data device.
///
/// # Errors
/// When it cannot be read; unsupported when it is no such metadata, or is damaged.
pub fn free_chunks(metadata: &mut (impl Read + Seek), data_bytes: u64) -> Result<Vec<Range<u64>>> {
    let superblock = block(metadata, 0, SUPERBLOCK)?;
    if le64(&superblock, 32) != MAGIC {
        return Err(damaged("it has no superblock"));
    }
    if le32(&superblock, 4) & NEEDS_CHECK != 0 {
        return Err(damaged("it is marked as one that needs a check"));
    }
    let chunk = u64::from(le32(&superblock, 336)) * SECTOR;
    let (count, used, root) = (le64(&superblock, 64), le64(&superblock, 72), le64(&superblock, 80));
    if chunk == 0 || count.checked_mul(chunk).is_none_or(|bytes| bytes > data_bytes) {
        return Err(damaged("its data is longer than the device for it"));
    }
    let mut bits = Bits { count, next: 0, used: 0, free: Vec::new() };
    bits.tree(metadata, root, HIGHEST)?;
    if bits.next < count || bits.used != used {
        return Err(damaged("its space map does not count up"));
    }
    let end = count * chunk;
    let stretches = bits.free.into_iter().map(|chunks| chunks.start * chunk..chunks.end * chunk);
    // What is left behind the last chunk is no chunk's.
    Ok(stretches.chain(std::iter::once(end..data_bytes)).filter(|stretch| !stretch.is_empty()).collect())
}

/// The bits of the space map, as far as they were read.
struct Bits {
    count: u64,
    /// The first chunk that nothing was said of yet.
    next: u64,
    used: u64,
    free: Vec<Range<u64>>,
}

impl Bits {
    /// Reads a tree from chunk numbers to blocks of bits; its leaves come in order.
    fn tree(&mut self, metadata: &mut (impl Read + Seek), at: u64, height: u32) -> Result<()> {
        let node = block(metadata, at, NODE)?;
        let (flags, entries, most, size) =
            (le32(&node, 4), le32(&node, 16), le32(&node, 20), le32(&node, 24));
        let (entries, most, size) = (entries as usize, most as usize, size as usize);
        let fits = most.checked_mul(8 + size).is_some_and(|bytes| bytes <= BLOCK - NODE_HEADER);
        let wanted = if flags == LEAF { 16 } else { 8 };
        if !fits || entries > most || size != wanted || height == 0 {
            return Err(damaged("a node of its tree makes no sense"));
        }
        for entry in 0..entries {
            let key = le64(&node, NODE_HEADER + entry * 8);
            let below = le64(&node, NODE_HEADER + most * 8 + entry * size);
            match flags {
                LEAF if key.checked_mul(CHUNKS) == Some(self.next) => self.bitmap(metadata, below)?,
                INTERNAL => self.tree(metadata, below, height - 1)?,
                _ => return Err(damaged("a node of its tree makes no sense")),
            }
        }
        Ok(())
    }

    fn bitmap(&mut self, metadata: &mut (impl Read + Seek), at: u64) -> Result<()> {
        let bits = block(metadata, at, BITMAP)?;
        let end = self.count.min(self.next + CHUNKS);
        if self.next >= end {
            return Err(damaged("its space map is longer than its data"));
        }
        let pairs = bits[BITMAP_HEADER..].iter().flat_map(|byte| [0, 2, 4, 6].map(|shift| byte >> shift & 3));
        for (chunk, pair) in (self.next..end).zip(pairs) {
            match self.free.last_mut() {
                _ if pair != 0 => self.used += 1,
                Some(last) if last.end == chunk => last.end += 1,
                _ => self.free.push(chunk..chunk + 1),
            }
        }
        self.next = end;
        Ok(())
    }
}

/// One block, whose checksum and place are right.
fn block(metadata: &mut (impl Read + Seek), number: u64, kind: u32) -> Result<Vec<u8>> {
    let failed = || format!("cannot read block {number} of the thin pool's metadata");
    let at = number.checked_mul(BLOCK as u64).ok_or_else(|| damaged("a block lies outside of it"))?;
    metadata.seek(SeekFrom::Start(at)).context(failed)?;
    let mut bytes = vec![0; BLOCK];
    match metadata.read_exact(&mut bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            return Err(damaged("a block lies outside of it"));
        }
        read => read.context(failed)?,
    }
    if crc32c(u32::MAX, &bytes[4..]) ^ kind != le32(&bytes, 0) || le64(&bytes, 8) != number {
        return Err(damaged("a checksum is wrong"));
    }
    Ok(bytes)
}

fn damaged(why: &str) -> Error {
    Error::unsupported(format!("the metadata of the thin pool is not understood: {why}"))
        .hint("look at it with thin_check(8)")
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    const CHUNK: u64 = 64 << 10;

    fn seal(image: &mut [u8], number: usize, kind: u32) {
        let block = &mut image[number * BLOCK..][..BLOCK];
        block[8..16].copy_from_slice(&(number as u64).to_le_bytes());
        let sum = crc32c(u32::MAX, &block[4..]) ^ kind;
        block[..4].copy_from_slice(&sum.to_le_bytes());
    }

    /// Metadata by which these chunks are used: superblock, a root over one leaf, and the bits.
    fn pool(used: &[bool]) -> Vec<u8> {
        let maps = used.len().div_ceil(usize::try_from(CHUNKS).unwrap());
        let mut image = vec![0; (3 + maps) * BLOCK];
        let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
        put(32, &MAGIC.to_le_bytes());
        let count = used.iter().filter(|used| **used).count() as u64;
        for (at, number) in [(64, used.len() as u64), (72, count), (80, 1)] {
            put(at, &number.to_le_bytes());
        }
        put(336, &u32::try_from(CHUNK / SECTOR).unwrap().to_le_bytes());
        for (node, flags, entries, most, size) in [(1, INTERNAL, 1, 252_u32, 8_u32), (2, LEAF, maps, 168, 16)]
        {
            for (at, number) in [(4, flags), (16, u32::try_from(entries).unwrap()), (20, most), (24, size)] {
                put(node * BLOCK + at, &number.to_le_bytes());
            }
        }
        put(BLOCK + NODE_HEADER + 252 * 8, &2_u64.to_le_bytes());
        for map in 0..maps {
            put(2 * BLOCK + NODE_HEADER + map * 8, &(map as u64).to_le_bytes());
            put(2 * BLOCK + NODE_HEADER + 168 * 8 + map * 16, &(3 + map as u64).to_le_bytes());
        }
        for (chunk, _) in used.iter().enumerate().filter(|(_, used)| **used) {
            let (map, inside) =
                (chunk / usize::try_from(CHUNKS).unwrap(), chunk % usize::try_from(CHUNKS).unwrap());
            // One, two, many users by turns.
            let pair = u8::try_from(chunk % 3 + 1).unwrap();
            image[(3 + map) * BLOCK + BITMAP_HEADER + inside / 4] |= pair << (inside % 4 * 2);
        }
        for (number, kind) in [(0, SUPERBLOCK), (1, NODE), (2, NODE)] {
            seal(&mut image, number, kind);
        }
        (0..maps).for_each(|map| seal(&mut image, 3 + map, BITMAP));
        image
    }

    proptest! {
        #[test]
        fn what_is_not_used_is_free(used in prop::collection::vec(any::<bool>(), 1..40_000), tail in 0..CHUNK) {
            let bytes = used.len() as u64 * CHUNK;
            let free = free_chunks(&mut Cursor::new(pool(&used)), bytes + tail).unwrap();
            let mut wanted = vec![true; used.len()];
            for stretch in free.iter().filter(|stretch| stretch.start < bytes) {
                (stretch.start / CHUNK..stretch.end / CHUNK)
                    .for_each(|chunk| wanted[usize::try_from(chunk).unwrap()] = false);
            }
            prop_assert_eq!(wanted, used);
            prop_assert_eq!(free.last().is_some_and(|last| last.end == bytes + tail), tail > 0 || free.last().is_some_and(|last| last.end == bytes));
        }

        #[test]
        fn no_damage_goes_unseen(used in prop::collection::vec(any::<bool>(), 1..100), at: prop::sample::Index, bit in 0..8_u8) {
            let mut image = pool(&used);
            let at = at.index(image.len());
            image[at] ^= 1_u8 << bit;
            prop_assert!(free_chunks(&mut Cursor::new(&image), 1 << 40).is_err());
            // Even when whoever did it has made the checksums right again.
            for (number, kind) in [(0, SUPERBLOCK), (1, NODE), (2, NODE), (3, BITMAP)] {
                seal(&mut image, number, kind);
            }
            let _ = free_chunks(&mut Cursor::new(&image), 1 << 40);
            image.truncate(at);
            prop_assert!(free_chunks(&mut Cursor::new(&image), 1 << 40).is_err());
        }
    }
}
