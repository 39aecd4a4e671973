//! Chunks: where the logical addresses of a btrfs, in which its trees speak, lie on its devices.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use super::info::Info;
use super::item::{self, ChunkItem, damaged, kind};
use super::search::{FIRST, LAST, each, tree};
use super::{Devices, OnDevices};
use crate::erase::extent::{Extent, Extents};
use crate::erase::map::gather::Gather;
use crate::error::{Error, Result};

/// The only length of stripes that there is (`BTRFS_STRIPE_LEN`).
const STRIPE: u64 = 64 << 10;
/// The most stripes that are kept of one filesystem: a mebibyte each would be a tebibyte.
const LIMIT: usize = 1 << 20;

const RAID0: u64 = 1 << 3;
const RAID1: u64 = 1 << 4;
const DUP: u64 = 1 << 5;
const RAID10: u64 = 1 << 6;
const RAID5: u64 = 1 << 7;
const RAID6: u64 = 1 << 8;
const RAID1C3: u64 = 1 << 9;
const RAID1C4: u64 = 1 << 10;
/// Data, system and metadata.
const TYPES: u64 = 7;

/// One chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chunk {
    start: u64,
    end: u64,
    /// Stripe after stripe goes to the next column; all copies of a column are equal.
    columns: u64,
    copies: usize,
    stripes: Vec<(u64, u64)>,
}

impl Chunk {
    fn new(start: u64, item: ChunkItem) -> Result<Self> {
        let count = item.stripes.len();
        let (columns, copies) = match item.profile & !TYPES {
            0 => (1, 1),
            DUP | RAID1 => (1, 2),
            RAID1C3 => (1, 3),
            RAID1C4 => (1, 4),
            RAID0 => (count, 1),
            RAID10 => (count / 2, 2),
            RAID5 | RAID6 => {
                return Err(Error::unsupported("the btrfs has chunks of RAID5 or RAID6: their parity keeps what was deleted")
                    .hint("change them to another profile first: btrfs balance start -dconvert=raid1 -mconvert=raid1"));
            }
            other => {
                return Err(Error::unsupported(format!(
                    "the btrfs has chunks of an unknown profile ({other:#x})"
                )));
            }
        };
        let sub_stripes = item.profile & RAID10 == 0 || item.sub_stripes == 2;
        let whole = columns > 0 && columns * copies == count && sub_stripes && item.stripe_length == STRIPE;
        let columns = columns as u64;
        let end = start.checked_add(item.length).filter(|_| whole && item.length > 0);
        // Stripes of one column need not end at a whole one.
        let even = columns == 1 || item.length.is_multiple_of(columns.max(1) * STRIPE);
        let end = end.filter(|_| even).ok_or_else(|| damaged("chunk"))?;
        Ok(Self { start, end, columns, copies, stripes: item.stripes })
    }

    /// Where logical bytes of this chunk lie: device and extent for each column and copy.
    fn places(&self, logical: Extent) -> impl Iterator<Item = (u64, Extent)> + '_ {
        let (from, to) = (logical.start.max(self.start), logical.end().min(self.end));
        self.stripes.iter().zip(0_u64..).filter_map(move |((device, physical), index)| {
            let column = index / self.copies as u64;
            let from = physical.saturating_add(self.in_column(column, from));
            let to = physical.saturating_add(self.in_column(column, to));
            (from < to).then_some((*device, Extent::between(from, to)))
        })
    }

    /// How many bytes of a column are for logical addresses before `logical`.
    fn in_column(&self, column: u64, logical: u64) -> u64 {
        let offset = logical.saturating_sub(self.start);
        if self.columns == 1 {
            return offset;
        }
        let row = self.columns * STRIPE;
        (offset / row) * STRIPE + (offset % row).saturating_sub(column * STRIPE).min(STRIPE)
    }

    /// How many bytes each stripe has on its device.
    fn bytes(&self) -> u64 {
        (self.end - self.start) / self.columns
    }
}

/// All chunks of a filesystem, in the order of their logical addresses.
#[derive(Debug)]
pub(super) struct Chunks {
    chunks: Vec<Chunk>,
    /// Length of each device in bytes.
    pub(super) devices: Devices,
    pub(super) info: Info,
}

impl Chunks {
    /// Reads them.
    ///
    /// # Errors
    /// When it is no btrfs, has features that change what the trees mean, is damaged or cannot be read.
    pub(super) fn read(mounted: BorrowedFd<'_>) -> Result<Self> {
        let info = Info::read(mounted)?;
        let mut devices = BTreeMap::new();
        let mut chunks: Vec<Chunk> = Vec::new();
        let mut stripes = 0;
        each(mounted, tree::CHUNKS, (FIRST, LAST), |found| {
            match found.kind {
                kind::DEVICE => {
                    let device = item::device(found.bytes)?;
                    if !info.uuids.contains(&device.filesystem) {
                        return Err(Error::unsupported(
                            "the btrfs grew from a seed device, which others may use too",
                        ));
                    }
                    devices.insert(device.id, device.bytes);
                }
                kind::CHUNK => {
                    let chunk = Chunk::new(found.offset, item::chunk(found.bytes)?)?;
                    stripes += chunk.stripes.len();
                    if chunks.last().is_some_and(|last| last.end > chunk.start) {
                        return Err(damaged("chunk"));
                    }
                    if stripes > LIMIT {
                        return Err(Error::unsupported(format!("the btrfs has more than {LIMIT} stripes")));
                    }
                    chunks.push(chunk);
                }
                _ => {}
            }
            Ok(())
        })?;
        let inside = |(device, start): &(u64, u64), bytes| {
            devices.get(device).is_some_and(|end| start.checked_add(bytes).is_some_and(|last| last <= *end))
        };
        if chunks.iter().any(|chunk| !chunk.stripes.iter().all(|stripe| inside(stripe, chunk.bytes()))) {
            return Err(damaged("chunk"));
        }
        Ok(Self { chunks, devices, info })
    }

    /// Where logical bytes lie on the devices, every copy of them.
    ///
    /// # Errors
    /// When they are not all in chunks, or in too many pieces.
    pub(super) fn on_devices(&self, logical: &Extents) -> Result<OnDevices> {
        let mut found: BTreeMap<u64, Gather> = BTreeMap::new();
        for extent in logical.iter() {
            let mut at = extent.start;
            let from = self.chunks.partition_point(|chunk| chunk.end <= at);
            for chunk in self.chunks[from..].iter().take_while(|chunk| chunk.start < extent.end()) {
                if chunk.start > at {
                    break;
                }
                chunk
                    .places(extent)
                    .try_for_each(|(device, place)| found.entry(device).or_default().add(place))?;
                at = chunk.end;
            }
            if at < extent.end() {
                return Err(damaged("address of data"));
            }
        }
        found.into_iter().map(|(device, gather)| Ok((device, gather.finish()?))).collect()
    }

    /// What the chunks have besides their used extents.
    pub(super) fn gaps(&self) -> Gaps<'_> {
        Gaps { chunks: &self.chunks, at: self.chunks.first().map_or(0, |chunk| chunk.start) }
    }
}

/// Walks the chunks beside the used extents, which are named in order.
#[derive(Debug)]
pub(super) struct Gaps<'a> {
    chunks: &'a [Chunk],
    at: u64,
}

impl Gaps<'_> {
    /// The next used extent: `free` gets device and extent of what lies between it and the one before.
    ///
    /// # Errors
    /// When it is in no chunk, or overlaps the one before; what `free` fails with.
    pub(super) fn used(
        &mut self,
        used: Extent,
        mut free: impl FnMut(u64, Extent) -> Result<()>,
    ) -> Result<()> {
        while let [chunk, rest @ ..] = self.chunks
            && chunk.end <= used.start
        {
            emit(chunk, Extent::between(self.at, chunk.end), &mut free)?;
            self.chunks = rest;
            self.at = rest.first().map_or(chunk.end, |chunk| chunk.start);
        }
        match self.chunks.first() {
            Some(chunk) if self.at <= used.start && used.end() <= chunk.end => {
                emit(chunk, Extent::between(self.at, used.start), &mut free)?;
                self.at = used.end();
                Ok(())
            }
            _ => Err(damaged("used extent")),
        }
    }

    /// What is left behind the last used extent.
    ///
    /// # Errors
    /// What `free` fails with.
    pub(super) fn rest(self, mut free: impl FnMut(u64, Extent) -> Result<()>) -> Result<()> {
        self.chunks.iter().try_for_each(|chunk| {
            emit(chunk, Extent::between(self.at.max(chunk.start), chunk.end), &mut free)
        })
    }
}

fn emit(chunk: &Chunk, logical: Extent, free: &mut impl FnMut(u64, Extent) -> Result<()>) -> Result<()> {
    chunk.places(logical).try_for_each(|(device, extent)| free(device, extent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PROFILES: [(u64, usize); 6] =
        [(0, 1), (DUP, 2), (RAID1C3, 3), (RAID0, 3), (RAID10, 6), (RAID1C4, 4)];

    fn chunk((profile, stripes): (u64, usize), rows: u64) -> Chunk {
        let columns = if profile & (RAID0 | RAID10) == 0 { 1 } else { 3 };
        let stripes = (1..=stripes as u64).map(|device| (device, device << 30)).collect();
        let length = rows * columns * STRIPE;
        Chunk::new(8 << 20, ChunkItem { length, stripe_length: STRIPE, profile, sub_stripes: 2, stripes })
            .unwrap()
    }

    /// Where one byte lies, by the words of the kernel's `btrfs_map_block`.
    fn of_byte(chunk: &Chunk, (profile, stripes): (u64, usize), logical: u64) -> Vec<(u64, u64)> {
        let (nr, within) = ((logical - chunk.start) / STRIPE, (logical - chunk.start) % STRIPE);
        let stripes = stripes as u64;
        let (indexes, row) = match profile {
            RAID0 => (vec![nr % stripes], nr / stripes),
            RAID10 => (vec![nr % (stripes / 2) * 2, nr % (stripes / 2) * 2 + 1], nr / (stripes / 2)),
            _ => ((0..stripes).collect(), nr),
        };
        indexes.into_iter().map(|index| (index + 1, ((index + 1) << 30) + row * STRIPE + within)).collect()
    }

    proptest! {
        #[test]
        fn each_byte_lies_where_the_kernel_puts_it(
            profile in proptest::sample::select(&PROFILES[..]), rows in 1u64..5, from in 0u64..900_000, length in 1u64..900_000,
            probe in 0u64..900_000,
        ) {
            let chunk = chunk(profile, rows);
            let logical = Extent::between(chunk.start + from, chunk.start + from + length);
            let inside = Extent::between(logical.start, logical.end().min(chunk.end));
            let places: Vec<_> = chunk.places(logical).collect();
            let copies = chunk.copies as u64;
            let bytes: u64 = places.iter().map(|(_, extent)| extent.length).sum();
            prop_assert_eq!(bytes, inside.length * copies);
            if inside.length > 0 {
                for (device, byte) in of_byte(&chunk, profile, inside.start + probe % inside.length) {
                    let has = |(id, e): &(u64, Extent)| *id == device && e.start <= byte && byte < e.end();
                    prop_assert!(places.iter().any(has));
                }
            }
        }

        #[test]
        fn any_chunk_ends_in_an_answer(
            start: u64, length: u64, profile: u64, sub_stripes: u16, stripes in proptest::collection::vec(any::<(u64, u64)>(), 0..9),
            from: u64, to: u64, known in 0usize..6,
        ) {
            for profile in [profile, PROFILES[known].0] {
                let item = ChunkItem { length, stripe_length: STRIPE, profile, sub_stripes, stripes: stripes.clone() };
                if let Ok(chunk) = Chunk::new(start, item) {
                    prop_assert!(chunk.places(Extent::between(from, to)).count() <= stripes.len());
                }
            }
        }
    }

    #[test]
    fn used_extents_must_be_in_chunks_and_in_order() {
        let all = [chunk(PROFILES[0], 2)];
        let walk = |used: &[(u64, u64)]| {
            let mut gaps = Gaps { chunks: &all, at: all[0].start };
            let mut free = Vec::new();
            for (start, length) in used {
                let used = Extent { start: (8 << 20) + start, length: *length };
                gaps.used(used, |_, extent| {
                    free.push((extent.start - (1 << 30), extent.length));
                    Ok(())
                })?;
            }
            gaps.rest(|_, extent| {
                free.push((extent.start - (1 << 30), extent.length));
                Ok(())
            })?;
            Ok::<_, Error>(free)
        };
        assert_eq!(walk(&[(0, 4096), (8192, 4096)]).unwrap(), [(4096, 4096), (12288, 118_784)]);
        assert_eq!(walk(&[]).unwrap(), [(0, 2 * STRIPE)]);
        assert_eq!(walk(&[(0, 2 * STRIPE)]).unwrap(), []);
        for bad in
            [&[(0, 4096), (0, 4096)][..], &[(0, 2 * STRIPE + 1)], &[(2 * STRIPE, 1)], &[(8192, 1), (0, 1)]]
        {
            walk(bad).unwrap_err();
        }
    }
}
