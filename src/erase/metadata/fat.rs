//! What a vfat keeps of deleted files outside of its free clusters: a deleted file leaves its entry in its folder but for
//! one byte of the name; what lies behind the end of a file in its last cluster is whatever was there; and clusters that
//! belong to no file are not free either. The unused end of the table and the reserved sectors are left alone.

#![forbid(unsafe_code)]

use super::{Act, Remains};
use crate::disk::number::nonzero;
use crate::erase::extent::Extent;
use crate::erase::map::fat::table::{Entry, Table, damaged};
use crate::erase::volume::VolumeBytes;
use crate::error::{Error, Result};
use crate::sys::interrupt;

/// Bytes of an entry of a folder.
const ENTRY: usize = 32;
/// Bytes that are read at a time.
const PIECE: u64 = 64 << 10;
/// The most folders that wait to be looked into.
const MOST_FOLDERS: usize = 4 << 20;

/// The first byte of a deleted entry, and of the one behind the last.
const DELETED: u8 = 0xe5;
const END: u8 = 0;

const LONG_NAME: u8 = 0x0f;
const FOLDER: u8 = 0x10;
const LABEL: u8 = 0x08;

/// Counts or makes zero what is left of deleted files in the folders and clusters of a vfat that nothing has mounted.
/// Gives one account for each of `directories`, `file slack` and `lost clusters`.
///
/// # Errors
/// When it is no vfat, was not unmounted or is damaged: then it is cleaned in part. When the disk cannot be read or
/// written.
pub fn walk(volume: &VolumeBytes<'_>, act: Act) -> Result<Vec<Remains>> {
    let table = Table::read(volume)?;
    let seen = vec![0; usize::try_from(table.clusters().end / 8 + 1).unwrap_or_default()];
    let (folders, [directories, slack, lost]) =
        (Vec::new(), ["directories", "file slack", "lost clusters"].map(account));
    let mut walk = Walk { volume: *volume, act, table, seen, folders, directories, slack, lost };
    match walk.table.root() {
        Some(root) => walk.folders.push(root),
        None => walk.fixed_root()?,
    }
    while let Some(first) = walk.folders.pop() {
        walk.folder(first)?;
    }
    walk.lost_clusters()?;
    Ok(vec![walk.directories, walk.slack, walk.lost])
}

fn account(kind: &str) -> Remains {
    Remains { kind: kind.to_owned(), ..Remains::default() }
}

struct Walk<'a> {
    volume: VolumeBytes<'a>,
    act: Act,
    table: Table<'a>,
    /// A bit for each cluster that a file or folder has.
    seen: Vec<u8>,
    folders: Vec<u32>,
    directories: Remains,
    slack: Remains,
    lost: Remains,
}

impl Walk<'_> {
    /// Marks a cluster as belonging to a file. A second time is damage, and so no chain is followed for ever.
    fn take(&mut self, cluster: u32) -> Result<()> {
        let at = usize::try_from(cluster / 8).unwrap_or(usize::MAX);
        let (byte, bit) =
            (self.seen.get_mut(at).ok_or_else(|| damaged("the number of a cluster"))?, 1 << (cluster % 8));
        if *byte & bit != 0 {
            return Err(damaged("a cluster that two files have"));
        }
        *byte |= bit;
        Ok(())
    }

    /// Takes a cluster of a file: where it lies, and the one after it.
    fn step(&mut self, cluster: u32) -> Result<(Extent, Option<u32>)> {
        interrupt::check()?;
        self.take(cluster)?;
        let next = match self.table.entry(cluster)? {
            Entry::Last => None,
            Entry::Next(cluster) => Some(cluster),
            Entry::Free | Entry::Bad => return Err(damaged("a file with clusters that are free or bad")),
        };
        Ok((self.table.place(cluster)?, next))
    }

    /// The root folder of FAT12 and FAT16 has no clusters.
    fn fixed_root(&mut self) -> Result<()> {
        let mut folder = Folder::default();
        self.entries(&mut folder, self.table.root_place())?;
        self.orphans(&mut folder)
    }

    /// Cleans a folder, and all files in it.
    fn folder(&mut self, first: u32) -> Result<()> {
        let (mut folder, mut next) = (Folder::default(), Some(first));
        while let Some(cluster) = next {
            let (place, behind) = self.step(cluster)?;
            self.entries(&mut folder, place)?;
            next = behind;
        }
        self.orphans(&mut folder)
    }

    fn entries(&mut self, folder: &mut Folder, place: Extent) -> Result<()> {
        let mut at = place.start;
        while at < place.end() {
            let length = usize::try_from((place.end() - at).min(PIECE)).unwrap_or_default();
            let bytes = self.volume.read_vec(at, length)?;
            for (entry, index) in bytes.as_chunks::<ENTRY>().0.iter().zip(0_u64..) {
                self.entry(folder, entry, at + index * ENTRY as u64)?;
            }
            at += length as u64;
        }
        Ok(())
    }

    fn entry(&mut self, folder: &mut Folder, entry: &[u8; ENTRY], at: u64) -> Result<()> {
        let attributes = entry[11] & 0x3f;
        match entry[0] {
            END | DELETED => {
                folder.ended |= entry[0] == END;
                self.orphans(folder)?;
                clean(
                    &mut self.directories,
                    &self.volume,
                    self.act,
                    Extent::between(at + 1, at + ENTRY as u64),
                )
            }
            // Linux would show what stands there, others would not.
            _ if folder.ended => Err(damaged("a folder with entries behind its end")),
            _ if attributes == LONG_NAME => {
                // One that begins a name ends what came before.
                if entry[0] & 0x40 != 0 {
                    self.orphans(folder)?;
                }
                // A name of 255 characters has 20 entries.
                if folder.long.len() >= 20 {
                    return Err(damaged("a name of a file"));
                }
                folder.long.push((at, entry[13]));
                Ok(())
            }
            _ => {
                let sum = checksum(entry);
                if !folder.long.iter().all(|(_, of)| *of == sum) {
                    self.orphans(folder)?;
                }
                folder.long.clear();
                self.file(entry)
            }
        }
    }

    /// Pieces of a long name that no file has: some other system deleted it.
    fn orphans(&mut self, folder: &mut Folder) -> Result<()> {
        for (at, _) in folder.long.drain(..) {
            if self.act == Act::Zero {
                self.volume.write(at, &[DELETED])?;
            }
            clean(&mut self.directories, &self.volume, self.act, Extent::between(at + 1, at + ENTRY as u64))?;
        }
        Ok(())
    }

    /// Follows what an entry names.
    fn file(&mut self, entry: &[u8; ENTRY]) -> Result<()> {
        let half = |at: usize| u32::from(u16::from_le_bytes([entry[at], entry[at + 1]]));
        let first = if self.table.is_wide() { half(20) << 16 | half(26) } else { half(26) };
        let size = u64::from(half(28) | half(30) << 16);
        let own_name = entry[..11] == *b".          " || entry[..11] == *b"..         ";
        match entry[11] {
            attributes if attributes & LABEL != 0 && attributes & FOLDER == 0 => Ok(()),
            attributes if attributes & FOLDER != 0 && own_name => Ok(()),
            attributes if attributes & FOLDER != 0 => {
                if self.folders.len() >= MOST_FOLDERS {
                    return Err(Error::unsupported(format!("the vfat has more than {MOST_FOLDERS} folders")));
                }
                self.folders.push(first);
                Ok(())
            }
            _ if first == 0 && size == 0 => Ok(()),
            _ => self.slack(first, size),
        }
    }

    /// Cleans what lies behind the end of a file in its clusters.
    fn slack(&mut self, first: u32, size: u64) -> Result<()> {
        let (mut left, mut next) = (size, Some(first));
        while let Some(cluster) = next {
            let (place, behind) = self.step(cluster)?;
            let used = place.length.min(left);
            left -= used;
            let slack = Extent::between(place.start + used, place.end());
            clean(&mut self.slack, &self.volume, self.act, slack)?;
            next = behind;
        }
        if left > 0 { Err(damaged("a file that is longer than its clusters")) } else { Ok(()) }
    }

    /// Cleans clusters that are in use by the table and by no file.
    fn lost_clusters(&mut self) -> Result<()> {
        for cluster in self.table.clusters() {
            let byte = usize::try_from(cluster / 8).ok().and_then(|at| self.seen.get(at));
            let seen = byte.is_some_and(|byte| byte & 1 << (cluster % 8) != 0);
            if !seen && matches!(self.table.entry(cluster)?, Entry::Last | Entry::Next(_)) {
                clean(&mut self.lost, &self.volume, self.act, self.table.place(cluster)?)?;
            }
        }
        Ok(())
    }
}

/// Where a walk through a folder is.
#[derive(Default)]
struct Folder {
    /// Pieces of a long name whose file was not seen yet: where each is, and the checksum of its file's short name.
    long: Vec<(u64, u8)>,
    /// Whether the entry behind the last one was seen.
    ended: bool,
}

/// The checksum of a short name that the pieces of its long name carry.
fn checksum(entry: &[u8; ENTRY]) -> u8 {
    entry[..11].iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// Puts a place to the account, and makes it zero when that is the act.
fn clean(account: &mut Remains, volume: &VolumeBytes<'_>, act: Act, place: Extent) -> Result<()> {
    account.bytes = account.bytes.saturating_add(place.length);
    let mut at = place.start;
    while at < place.end() {
        interrupt::check()?;
        let length = usize::try_from((place.end() - at).min(PIECE)).unwrap_or_default();
        let mut bytes = volume.read_vec(at, length)?;
        let nonzero = nonzero(&bytes);
        account.nonzero = account.nonzero.saturating_add(nonzero);
        if nonzero > 0 && act == Act::Zero {
            bytes.fill(0);
            volume.write(at, &bytes)?;
        }
        at += length as u64;
    }
    Ok(())
}
