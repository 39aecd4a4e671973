//! Inodes: `struct xfs_dinode`, a core and behind it the literal area, which holds the data fork and the attribute
//! fork. A fork of local format, extents or the root of a tree uses only the start of its room.

#![forbid(unsafe_code)]

use std::ops::Range;

use super::fields::{Dead, be16, be32, be64, damaged, only, take, u8_at};
use super::geometry::Geometry;
use super::{Kind, Walk, attribute, directory, file};
use crate::error::{Error, Result};

/// `offsetof(struct xfs_dinode, di_crc)`.
const CRC: usize = 100;
/// `XFS_DIFLAG_REALTIME`.
const REALTIME: u16 = 1;
/// `XFS_DIFLAG2_NREXT64`: 64 bits for the number of extents.
const LARGE_COUNTS: u64 = 1 << 4;

/// `enum xfs_dinode_fmt`, as far as inodes have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Device,
    Local,
    Extents,
    Tree,
}

/// One of the forks of an inode.
#[derive(Debug, Clone)]
pub(super) struct Fork {
    pub(super) format: Format,
    /// Its room in the inode.
    pub(super) room: Range<usize>,
    /// How many extents it has, or how many bytes a local one.
    count: u64,
}

/// What the core of an inode that is in use says.
#[derive(Debug)]
pub(super) struct Inode {
    pub(super) number: u64,
    /// File type and permissions.
    pub(super) mode: u16,
    /// Bytes of its content.
    pub(super) size: u64,
    pub(super) data: Fork,
    pub(super) attributes: Option<Fork>,
}

/// Cleans the inodes of these numbers of an allocation group, which lie side by side, and what those that are in use
/// own. The lowest bit of `free` stands for the first one.
pub(super) fn clean(walk: &mut Walk<'_>, ag: u32, numbers: Range<u32>, free: u64) -> Result<()> {
    let (log, per_block) = (walk.geometry.inode_log, walk.geometry.block_log - walk.geometry.inode_log);
    let (first, last) = (numbers.start >> per_block, numbers.end.saturating_sub(1) >> per_block);
    walk.geometry.in_group(ag, first.into(), u64::from(last.saturating_sub(first)) + 1)?;
    let start = walk.geometry.group(ag) + (u64::from(numbers.start) << log);
    let mut bytes = walk.volume.read_vec(start, numbers.len() << log)?;
    let mut changed = Vec::with_capacity(numbers.len());
    for (index, slot) in bytes.chunks_mut(1 << log).enumerate() {
        let number = walk.geometry.inode(ag, numbers.start) + index as u64;
        changed.push(one(walk, slot, number, free >> index & 1 != 0)?);
    }
    // Runs of changed inodes are written at once, and those between them not at all.
    let mut at = 0;
    for run in changed.chunk_by(|one, next| one == next) {
        let length = run.len() << log;
        if run[0] {
            walk.write(start + at as u64, &bytes[at..at + length])?;
        }
        at += length;
    }
    Ok(())
}

/// Cleans one slot in memory, and on the volume what its inode owns. Returns whether the slot changed.
fn one(walk: &mut Walk<'_>, slot: &mut [u8], number: u64, free: bool) -> Result<bool> {
    let v5 = walk.geometry.v5;
    let crc = v5.then_some(CRC);
    check(slot, number, &walk.geometry)?;
    if free {
        // The core stays: it has the generation, and what the kernel and xfs_repair want of every slot.
        return walk.clean(Kind::FreeInodes, slot, &only(core_length(v5)..slot.len()), crc);
    }
    let inode = Inode::parse(slot, number, v5)?;
    let mut dead = Dead::new();
    dead_bytes(slot, &inode.data, &mut dead)?;
    if let Some(fork) = &inode.attributes {
        dead_bytes(slot, fork, &mut dead)?;
    }
    let changed = walk.clean(Kind::InodeSlack, slot, &dead, crc)?;
    match inode.mode & file_type::MASK {
        file_type::DIRECTORY => directory::clean(walk, &inode, slot)?,
        file_type::LINK => file::clean_link(walk, &inode, slot)?,
        file_type::REGULAR => file::clean_preallocated(walk, &inode, slot)?,
        _ => {}
    }
    if let Some(fork) = &inode.attributes {
        attribute::clean(walk, &inode, fork, slot)?;
    }
    Ok(changed)
}

/// The kinds of files in `di_mode`, as in inode(7).
mod file_type {
    pub(super) const MASK: u16 = 0o170_000;
    pub(super) const DIRECTORY: u16 = 0o040_000;
    pub(super) const REGULAR: u16 = 0o100_000;
    pub(super) const LINK: u16 = 0o120_000;
}

/// Bytes of the core: the third version has checksum, number and UUID behind what the others have.
fn core_length(v5: bool) -> usize {
    if v5 { 176 } else { 100 }
}

fn check(slot: &[u8], number: u64, geometry: &Geometry) -> Result<()> {
    let version = u8_at(slot, 4);
    let sound = slot.starts_with(b"IN")
        && if geometry.v5 {
            version == 3 && be64(slot, 152) == number && take::<16>(slot, 160) == geometry.uuid
        } else {
            (1..=2).contains(&version)
        };
    if sound { Ok(()) } else { Err(damaged(format!("inode {number}"))) }
}

impl Inode {
    fn parse(slot: &[u8], number: u64, v5: bool) -> Result<Self> {
        let wrong = |what: &str| damaged(format!("inode {number}: {what}"));
        let (mode, size, start) = (be16(slot, 2), be64(slot, 56), core_length(v5));
        if mode == 0 {
            return Err(wrong("in use and free"));
        }
        if be16(slot, 90) & REALTIME != 0 {
            return Err(Error::unsupported(format!(
                "inode {number} of the XFS filesystem is of its realtime device"
            )));
        }
        let split = start + usize::from(u8_at(slot, 82)) * 8;
        if split > slot.len() {
            return Err(wrong("forks"));
        }
        let (extents, attribute_extents) = if v5 && be64(slot, 120) & LARGE_COUNTS != 0 {
            (be64(slot, 24), be32(slot, 76).into())
        } else {
            (be32(slot, 76).into(), be16(slot, 80).into())
        };
        let fork_at = |format: u8, room: Range<usize>, local: u64, extents: u64| {
            let (format, count) = match format {
                0 => (Format::Device, 4),
                1 => (Format::Local, local),
                2 => (Format::Extents, extents),
                3 => (Format::Tree, extents),
                _ => return Err(wrong("the format of a fork")),
            };
            Ok(Fork { format, room, count })
        };
        let end = if split == start { slot.len() } else { split };
        let data = fork_at(u8_at(slot, 5), start..end, size, extents)?;
        let local = be16(slot, split).into();
        let attributes = (split > start)
            .then(|| fork_at(u8_at(slot, 83), split..slot.len(), local, attribute_extents))
            .transpose()?;
        if data.format == Format::Local && mode & file_type::MASK == file_type::REGULAR {
            return Err(wrong("content in its slot"));
        }
        Ok(Self { number, mode, size, data, attributes })
    }
}

impl Fork {
    /// The records of extents that lie in the inode itself.
    pub(super) fn records<'s>(&self, slot: &'s [u8]) -> Result<&'s [u8]> {
        let length = usize::try_from(self.count).ok().and_then(|count| count.checked_mul(16));
        let room = slot.get(self.room.clone()).unwrap_or_default();
        length.and_then(|length| room.get(..length)).ok_or_else(|| damaged("an inode has too many extents"))
    }

    /// The root of a tree: its level, how many pointers it has, where its keys end, and its pointers.
    pub(super) fn root(&self, slot: &[u8]) -> Result<Root> {
        let start = self.room.start;
        let (level, count) = (be16(slot, start), usize::from(be16(slot, start + 2)));
        let most = self.room.len().saturating_sub(4) / 16;
        if count == 0 || count > most || level == 0 {
            return Err(damaged("the root of a tree in an inode"));
        }
        let (keys, pointers) = (start + 4, start + 4 + most * 8);
        Ok(Root { level, keys: keys..keys + count * 8, pointers: pointers..pointers + count * 8 })
    }
}

/// `struct xfs_bmdr_block`: a root that has only keys and pointers.
#[derive(Debug)]
pub(super) struct Root {
    pub(super) level: u16,
    keys: Range<usize>,
    pub(super) pointers: Range<usize>,
}

/// What a fork does not use of its room.
fn dead_bytes(slot: &[u8], fork: &Fork, dead: &mut Dead) -> Result<()> {
    let Range { start, end } = fork.room;
    let used = match fork.format {
        Format::Tree => {
            let Root { keys, pointers, .. } = fork.root(slot)?;
            dead.push(keys.end..pointers.start);
            dead.push(pointers.end..end);
            return Ok(());
        }
        Format::Extents => fork.records(slot)?.len(),
        Format::Device | Format::Local => usize::try_from(fork.count).unwrap_or(usize::MAX),
    };
    if used > end - start {
        return Err(damaged("an inode holds more than it can"));
    }
    dead.push(start + used..end);
    Ok(())
}
