//! XFS: the log, the slots of free inodes, the unused ends of live ones, and the unused parts of the blocks of
//! directories, attributes and trees. Follows the on-disk format of fs/xfs/libxfs/xfs_format.h and xfs_da_format.h, in
//! versions 4 and 5. Each parser only says which bytes of a block nothing uses; `Walk::clean` alone looks at them,
//! makes them zero and mends the checksum.

#![forbid(unsafe_code)]

mod attribute;
mod directory;
mod fields;
mod file;
mod fork;
mod geometry;
mod group;
mod inode;
mod log;
mod tree;

use super::{Act, Remains};
use crate::erase::extent::Extent;
use crate::erase::volume::VolumeBytes;
use crate::error::Result;
use fields::{Dead, damaged, is_sealed, is_zero, nonzero, seal};
use geometry::Geometry;

/// What is read at once where nothing else says how much.
const PIECE: usize = 1 << 20;

/// Where remains are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Log,
    FreeInodes,
    InodeSlack,
    Directories,
    Attributes,
    Links,
    Preallocated,
    Trees,
    FreeLists,
}

impl Kind {
    const ALL: [(Self, &'static str); 9] = [
        (Self::Log, "log"),
        (Self::FreeInodes, "free inodes"),
        (Self::InodeSlack, "inode slack"),
        (Self::Directories, "directories"),
        (Self::Attributes, "attributes"),
        (Self::Links, "links"),
        (Self::Preallocated, "preallocated"),
        (Self::Trees, "trees"),
        (Self::FreeLists, "free lists"),
    ];
}

/// Counts or makes zero what the metadata of an XFS filesystem keeps of deleted files. The filesystem must have been
/// unmounted cleanly, and nothing else may have its volume open. Kinds: `log`; `free inodes` (all but their cores);
/// `inode slack` (what live inodes do not use); `directories`, `attributes`, `links`, `trees` (the unused parts of
/// their blocks); `preallocated` (blocks that files own and never wrote to); `free lists` (free blocks that the
/// allocation groups keep for themselves, which are not among the filesystem's free space).
///
/// # Errors
/// When the volume cannot be read or written, the log is not empty, a structure is damaged, or the filesystem has a
/// feature that is not known.
pub fn walk(volume: &VolumeBytes<'_>, act: Act) -> Result<Vec<Remains>> {
    let geometry = Geometry::read(volume)?;
    let budget = geometry.blocks;
    let found = Kind::ALL.map(|(_, name)| Remains { kind: name.to_owned(), ..Remains::default() });
    let mut walk = Walk { volume, geometry, act, budget, found: found.into() };
    log::clean(&mut walk)?;
    for ag in 0..walk.geometry.ag_count {
        group::clean(&mut walk, ag)?;
    }
    Ok(walk.found)
}

/// One walk over one filesystem.
#[derive(Debug)]
struct Walk<'a> {
    volume: &'a VolumeBytes<'a>,
    geometry: Geometry,
    act: Act,
    /// Blocks that may still be visited: a sound filesystem has each block in one place only, so that more visits than
    /// blocks mean a loop.
    budget: u64,
    found: Vec<Remains>,
}

impl Walk<'_> {
    /// Takes visits of so many blocks.
    fn spend(&mut self, blocks: u64) -> Result<()> {
        let left = self.budget.checked_sub(blocks);
        self.budget = left.ok_or_else(|| damaged("it has the same blocks in many places"))?;
        Ok(())
    }

    /// Notes places of so many bytes.
    fn note(&mut self, kind: Kind, bytes: u64, nonzero: u64) {
        let name = Kind::ALL.iter().position(|(other, _)| *other == kind);
        if let Some(remains) = name.and_then(|index| self.found.get_mut(index)) {
            remains.bytes = remains.bytes.saturating_add(bytes);
            remains.nonzero = remains.nonzero.saturating_add(nonzero);
        }
    }

    /// Makes the dead parts of a block zero in memory and mends its checksum, which must have been right. Returns
    /// whether there was anything.
    fn clean(&mut self, kind: Kind, block: &mut [u8], dead: &Dead, crc: Option<usize>) -> Result<bool> {
        let (mut bytes, mut full) = (0, 0);
        for range in dead {
            let part =
                block.get(range.clone()).ok_or_else(|| damaged("a structure is larger than its block"))?;
            bytes += part.len() as u64;
            full += nonzero(part);
        }
        self.note(kind, bytes, full);
        if full == 0 {
            return Ok(false);
        }
        if crc.is_some_and(|at| !is_sealed(block, at)) {
            return Err(damaged("the checksum of a block is wrong"));
        }
        for range in dead {
            block[range.clone()].fill(0);
        }
        if let Some(at) = crc {
            seal(block, at);
        }
        Ok(true)
    }

    /// The same for a block that lies in these places of the volume, in this order.
    fn clean_at(
        &mut self,
        kind: Kind,
        places: &[Extent],
        block: &mut [u8],
        dead: &Dead,
        crc: Option<usize>,
    ) -> Result<()> {
        if self.clean(kind, block, dead, crc)? {
            let mut rest = &*block;
            for place in places {
                let length = usize::try_from(place.length).unwrap_or(usize::MAX).min(rest.len());
                let (part, behind) = rest.split_at(length);
                self.write(place.start, part)?;
                rest = behind;
            }
        }
        Ok(())
    }

    /// Makes a whole stretch zero, where it is not.
    fn clean_all(&mut self, kind: Kind, place: Extent) -> Result<()> {
        let mut buffer = vec![0; PIECE];
        let mut at = place.start;
        self.note(kind, place.length, 0);
        while at < place.end() {
            at = self.volume.next_data(at, place.end())?;
            let length = usize::try_from(place.end() - at).unwrap_or(PIECE).min(PIECE);
            let piece = &mut buffer[..length];
            self.volume.read(at, piece)?;
            // In units of a page, so that a byte here and there does not fill the holes between.
            let pages: Vec<&[u8]> = piece.chunks(4096).collect();
            let mut from = at;
            for run in pages.chunk_by(|one, next| is_zero(one) == is_zero(next)) {
                let bytes: u64 = run.iter().map(|page| page.len() as u64).sum();
                if !run.first().is_none_or(|page| is_zero(page)) {
                    self.note(kind, 0, run.iter().map(|page| nonzero(page)).sum());
                    self.write(from, &vec![0; usize::try_from(bytes).unwrap_or(PIECE)])?;
                }
                from += bytes;
            }
            at += length as u64;
        }
        Ok(())
    }

    /// Reads a block that lies in these places.
    fn read(&self, places: &[Extent]) -> Result<Vec<u8>> {
        let total = places.iter().map(|place| place.length).fold(0, u64::saturating_add);
        let mut block = vec![0; usize::try_from(total).map_err(|_| damaged("a block without bounds"))?];
        let mut rest = &mut *block;
        for place in places {
            let (part, behind) = rest.split_at_mut(usize::try_from(place.length).unwrap_or_default());
            self.volume.read(place.start, part)?;
            rest = behind;
        }
        Ok(block)
    }

    /// Writes, unless this walk only counts.
    fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        match self.act {
            Act::Count => Ok(()),
            Act::Zero => self.volume.write(at, bytes),
        }
    }
}
