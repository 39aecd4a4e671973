//! How a qcow2 image is laid out by its header, and what the tables of its disk name. By the format's specification,
//! docs/interop/qcow2.rst of qemu.

#![forbid(unsafe_code)]

use std::io::{Read, Seek, SeekFrom};

use crate::disk::number::{be32, be64};
use crate::error::{Context, Error, Result};

/// The most bytes of an L1 table and of a refcount table, by qemu's own bounds.
pub(super) const L1_LIMIT: u64 = 32 << 20;
const REFCOUNTS_LIMIT: u64 = 8 << 20;
/// The bits of a table entry that hold an offset.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
pub(super) fn cut() -> Error {
    Error::failed("the image is cut off").hint("copy it again; qemu-img check tells more")
}

pub(super) fn damaged(what: &str) -> Error {
    Error::unsupported(format!("the image is damaged: {what}"))
        .hint("repair it first, on a copy: qemu-img check -r all IMAGE")
}

/// How an image is laid out, by its header.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    /// Length of the file in bytes.
    pub(super) end: u64,
    /// Length of the disk in bytes.
    pub(super) virtual_bytes: u64,
    /// The power of two that is the length of a cluster.
    pub(super) cluster_bits: u32,
    /// Whether the header is of version 3, which knows clusters that read as zeros.
    version3: bool,
    /// Whether an L2 entry tells apart 32 parts of its cluster.
    pub(super) extended: bool,
    /// Where the L1 table begins.
    pub(super) l1_at: u64,
    /// All entries of the L1 table.
    pub(super) l1_entries: u64,
    /// Those of its entries that the disk needs; the others a larger disk of earlier times left.
    pub(super) l1_needed: u64,
    /// Where the table of counts begins.
    pub(super) counts_at: u64,
    /// Its length in bytes.
    pub(super) counts_length: u64,
    /// The power of two that is the width of a count in bits.
    pub(super) count_order: u32,
}

/// What a table of the disk names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The L2 table that begins here; its entries follow.
    Table { at: u64 },
    /// The cluster that begins here. Each bit of `live` is a 32nd of it that has bytes of the disk: what reads as zeros
    /// has none.
    Cluster { at: u64, live: u32 },
    /// Compressed data from the first byte up to the second.
    Compressed { at: u64, end: u64 },
    /// Nothing: the cluster reads as zeros, whatever is below the image.
    Zeros,
}

/// Where a byte of the disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Located {
    /// Here in the file, and what follows up to the end of its cluster behind it.
    At(u64),
    /// Nowhere: it reads as zero.
    Zeros,
    /// Not in this file: it is that of the file below, or zero without one.
    Nowhere,
    /// Compressed, or one of a cluster that is there in parts.
    Otherwise,
}

impl Geometry {
    pub(super) fn read<R: Read + Seek>(image: &mut R) -> Result<Self> {
        let end = image.seek(SeekFrom::End(0)).context(|| "cannot measure the image")?;
        let head = read_at(image, 0, 104).map_err(|error| cut().caused_by(error))?;
        let version3 = be32(&head, 4) == 3;
        let mut geometry = Self {
            end,
            virtual_bytes: be64(&head, 24),
            cluster_bits: be32(&head, 20),
            version3,
            extended: version3 && be64(&head, 72) & 16 != 0,
            l1_at: be64(&head, 40),
            l1_entries: be32(&head, 36).into(),
            l1_needed: 0,
            counts_at: be64(&head, 48),
            counts_length: u64::from(be32(&head, 56)),
            count_order: if version3 { be32(&head, 96) } else { 4 },
        };
        if !(9..=21).contains(&geometry.cluster_bits) {
            return Err(damaged("its cluster size is out of range"));
        }
        geometry.counts_length = geometry.counts_length.saturating_mul(geometry.cluster());
        geometry.l1_needed = geometry.virtual_bytes.div_ceil(geometry.covered());
        if geometry.l1_needed > geometry.l1_entries {
            return Err(damaged("its table is too small for its disk"));
        }
        if geometry.l1_entries * 8 > L1_LIMIT
            || geometry.counts_length > REFCOUNTS_LIMIT
            || geometry.count_order > 6
        {
            return Err(damaged("its tables are larger than qemu takes"));
        }
        Ok(geometry)
    }

    /// Length of a cluster in bytes.
    pub(super) fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Bytes of an L2 entry.
    fn entry(&self) -> u64 {
        if self.extended { 16 } else { 8 }
    }

    /// How much of the disk one L2 table tells of, in bytes.
    fn covered(&self) -> u64 {
        (self.cluster() / self.entry()).saturating_mul(self.cluster())
    }

    /// Goes through the L1 and all L2 tables of the disk: `visit` gets each place with the byte of the disk that it is
    /// for, a table before what it names.
    pub(super) fn visit<R: Read + Seek>(
        &self,
        image: &mut R,
        mut visit: impl FnMut(u64, Place) -> Result<()>,
    ) -> Result<()> {
        let step = usize::try_from(self.entry()).unwrap_or(8);
        for (index, at) in self.l1(image, 0, self.l1_needed)? {
            let mut disk = index * self.covered();
            visit(disk, Place::Table { at })?;
            let table = read_at(image, at, self.cluster()).map_err(|error| cut().caused_by(error))?;
            for entry in table.chunks_exact(step) {
                if disk >= self.virtual_bytes {
                    break;
                }
                if let Some(place) = self.place(entry) {
                    visit(disk, place)?;
                }
                disk = disk.saturating_add(self.cluster());
            }
        }
        Ok(())
    }

    /// Where a byte of the disk is in the file.
    pub(super) fn locate<R: Read + Seek>(&self, image: &mut R, at: u64) -> Result<Located> {
        let covered = self.covered();
        let tables = self.l1(image, at / covered, at / covered + 1)?;
        let Some((_, table)) = tables.first() else { return Ok(Located::Nowhere) };
        let entry = table + at % covered / self.cluster() * self.entry();
        let entry = read_at(image, entry, self.entry()).map_err(|error| cut().caused_by(error))?;
        Ok(match self.place(&entry) {
            None => Located::Nowhere,
            Some(Place::Zeros) => Located::Zeros,
            Some(Place::Cluster { at: cluster, live: u32::MAX }) => {
                Located::At(cluster + at % self.cluster())
            }
            Some(_) => Located::Otherwise,
        })
    }

    /// The L2 tables that entries of the L1 table name, with the numbers of these entries.
    pub(super) fn l1<R: Read + Seek>(&self, image: &mut R, from: u64, to: u64) -> Result<Vec<(u64, u64)>> {
        let l1 =
            read_at(image, self.l1_at + from * 8, (to - from) * 8).map_err(|error| cut().caused_by(error))?;
        let tables = (from..).zip(l1.chunks_exact(8).map(|entry| be64(entry, 0) & OFFSET));
        Ok(tables.filter(|(_, at)| *at != 0).collect())
    }

    /// What an L2 entry names.
    fn place(&self, entry: &[u8]) -> Option<Place> {
        let word = be64(entry, 0);
        if word & COMPRESSED != 0 {
            // The offset in bytes, and above it how many more sectors of 512 bytes the data reaches into.
            let bits = 62 - (self.cluster_bits - 8);
            let at = word & ((1 << bits) - 1);
            let sectors = (word & (COMPRESSED - 1)) >> bits;
            return Some(Place::Compressed { at, end: (at & !511) + (sectors + 1) * 512 });
        }
        let live = match (self.extended, self.version3) {
            // Which parts are there, and above that which read as zeros.
            (true, _) => be32(entry, 12) & !be32(entry, 8),
            (false, true) if word & 1 != 0 => 0,
            _ => u32::MAX,
        };
        match word & OFFSET {
            0 if word & 1 != 0 && self.version3 && !self.extended => Some(Place::Zeros),
            0 => None,
            at => Some(Place::Cluster { at, live }),
        }
    }
}

pub(super) fn read_at<R: Read + Seek>(image: &mut R, at: u64, length: u64) -> std::io::Result<Vec<u8>> {
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
