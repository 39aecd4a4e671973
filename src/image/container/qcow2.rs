//! What no table of a qcow2 image refers to: free and lost clusters, clusters and parts of them that read as zeros, the
//! sectors around compressed data, what is beyond the end of the disk, and the rest of the header's and the L1 table's
//! clusters.

#![forbid(unsafe_code)]

use std::io::{Read, Seek};

use super::super::qcow2::read_header;
use super::super::qcow2_geometry::{Geometry, Place};
use super::super::qcow2_tables::Tables;
use crate::erase::extent::{Extent, Extents};
use crate::error::{Error, Result};

/// An L2 entry tells apart so many parts of its cluster, where it does.
const PARTS: u64 = 32;
/// The most separate stretches of compressed data that are kept account of; they take 16 bytes each.
const STRETCHES: usize = 4 << 20;

/// Gives each stretch of the file that nothing refers to; says what was left out.
///
/// # Errors
/// Before the first stretch when the tables are damaged, or name more than one disk: snapshots, bitmaps, a data file.
pub(super) fn unreferenced<R: Read + Seek>(
    image: &mut R,
    mut give: impl FnMut(Extent) -> Result<()>,
) -> Result<Option<String>> {
    let header = read_header(image)?;
    if header.snapshots > 0 || header.bitmaps || header.external_data || header.encrypted {
        let what = "the image holds more than one disk: internal snapshots, bitmaps, other files or keys";
        return Err(Error::unsupported(what).hint("--drop-snapshots removes snapshots and bitmaps"));
    }
    let tables = Tables::checked(image)?;
    let geometry = tables.geometry;
    tables.unused(|start, end| give(Extent::between(start, end)))?;
    let cluster = geometry.cluster();
    let parts = header.head.iter().map(|(start, end)| Extent::between(*start, *end));
    Extents::new(parts)?.gaps(0, cluster).iter().try_for_each(&mut give)?;
    let l1_end = geometry.l1_at + geometry.l1_entries * 8;
    give(Extent::between(l1_end, l1_end.next_multiple_of(cluster)))?;
    within_clusters(image, &tables, give)
}

/// The parts of clusters in use that hold nothing of the disk.
fn within_clusters<R: Read + Seek>(
    image: &mut R,
    tables: &Tables,
    mut give: impl FnMut(Extent) -> Result<()>,
) -> Result<Option<String>> {
    let geometry = tables.geometry;
    let cut_off = !geometry.virtual_bytes.is_multiple_of(geometry.cluster());
    if !geometry.extended && !tables.has_compressed() && !cut_off {
        return Ok(None);
    }
    let mut compressed = Stretches::default();
    geometry.visit(image, |disk, place| match place {
        Place::Cluster { at, live } => parts(geometry, disk, at, live).try_for_each(&mut give),
        Place::Compressed { at, end } => {
            compressed.add(Extent::between(at, end));
            Ok(())
        }
        Place::Table { .. } | Place::Zeros => Ok(()),
    })?;
    let Some(pieces) = compressed.finish()? else {
        return Ok(Some(format!("what lies between pieces of compressed data: there are too many; {HINT}")));
    };
    for start in tables.compressed() {
        pieces.gaps(start, start + geometry.cluster()).iter().try_for_each(&mut give)?;
    }
    // Where a piece ends only its decompression tells.
    let ends = || format!("up to 511 bytes behind each piece of compressed data; {HINT}");
    Ok(tables.has_compressed().then(ends))
}

const HINT: &str = "--output NEW writes only what is in the disk";

/// The parts of one cluster that hold nothing of the disk. Of a cluster without any, nothing: it is given as a whole.
fn parts(geometry: Geometry, disk: u64, at: u64, live: u32) -> impl Iterator<Item = Extent> {
    let cluster = geometry.cluster();
    let length = cluster / PARTS;
    // qemu counts disks in sectors.
    let inside = geometry.virtual_bytes.saturating_sub(disk).min(cluster).next_multiple_of(512).min(cluster);
    let is_dead = move |part: &u64| live >> part & 1 == 0 && part * length < inside;
    let part = move |part: u64| Extent::between(at + part * length, at + ((part + 1) * length).min(inside));
    let behind = (inside < cluster).then(|| Extent::between(at + inside, at + cluster));
    (0..PARTS).filter(is_dead).map(part).chain(behind).filter(move |_| live != 0)
}

/// Stretches of compressed data. qemu writes pieces one behind the other, which makes few of many.
#[derive(Default)]
struct Stretches {
    list: Vec<Extent>,
    too_many: bool,
}

impl Stretches {
    fn add(&mut self, piece: Extent) {
        if let Some(last) = self.list.last_mut()
            && (last.start..=last.end()).contains(&piece.start)
        {
            *last = Extent::between(last.start, last.end().max(piece.end()));
        } else if self.list.len() < STRETCHES {
            self.list.push(piece);
        } else {
            self.too_many = true;
        }
    }

    /// None when there were too many.
    fn finish(self) -> Result<Option<Extents>> {
        if self.too_many { Ok(None) } else { Extents::new(self.list).map(Some) }
    }
}
