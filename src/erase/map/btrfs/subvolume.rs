//! The subvolumes of a btrfs: which there are, which of them were made as snapshots and so hold copies of what was
//! deleted elsewhere, and which are deleted and still there.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};

use super::item::{self, Root, damaged, kind};
use super::search::{FIRST, LAST, each, tree};
use crate::error::{Context, Error, Result};
use crate::sys::ioctl::btrfs_folder_path;

/// The subvolume that every btrfs has (`BTRFS_FS_TREE_OBJECTID`).
const TOP: u64 = 5;
/// The ids of all others (`BTRFS_FIRST_FREE_OBJECTID`, `BTRFS_LAST_FREE_OBJECTID`).
const FIRST_OTHER: u64 = 256;
const LAST_OTHER: u64 = 0_u64.wrapping_sub(256);
/// Where a balance moves trees (`BTRFS_TREE_RELOC_OBJECTID`).
const RELOCATION: u64 = 0_u64.wrapping_sub(8);
/// The most subvolumes that are kept account of.
const LIMIT: usize = 64 << 10;
/// The most subvolumes that are within each other.
const DEPTH: usize = 256;

/// What the tree of roots tells of one subvolume.
#[derive(Debug)]
struct Subvolume {
    root: Root,
    /// Subvolume, folder and name where it is seen.
    place: Option<(u64, u64, String)>,
}

/// The subvolumes by their ids.
#[derive(Debug)]
pub(super) struct Subvolumes(BTreeMap<u64, Subvolume>);

impl Subvolumes {
    /// Reads them.
    ///
    /// # Errors
    /// When the tree cannot be read or is damaged, when one of them is deleted and still there or a balance is not
    /// done, and when there are too many.
    pub(super) fn read(mounted: BorrowedFd<'_>) -> Result<Self> {
        let mut found: BTreeMap<u64, Subvolume> = BTreeMap::new();
        each(mounted, tree::ROOTS, (FIRST, LAST), |found_item| {
            let id = found_item.object;
            match found_item.kind {
                kind::ROOT if id == RELOCATION => {
                    return Err(Error::failed("a balance of the btrfs is not done")
                        .hint("mount it for writing and finish it: btrfs balance resume"));
                }
                kind::ROOT if id == TOP || (FIRST_OTHER..=LAST_OTHER).contains(&id) => {
                    let root = item::root(found_item.bytes)?;
                    if root.references == 0 {
                        let what =
                            format!("the deleted subvolume {id} is still being removed from the btrfs");
                        return Err(
                            Error::failed(what).hint("mount it for writing and wait: btrfs subvolume sync")
                        );
                    }
                    if found.len() >= LIMIT {
                        return Err(Error::unsupported(format!(
                            "the btrfs has more than {LIMIT} subvolumes"
                        )));
                    }
                    found.insert(id, Subvolume { root, place: None });
                }
                kind::ROOT_BACKREF => {
                    let (folder, name) = item::root_backref(found_item.bytes)?;
                    let name = String::from_utf8_lossy(name).into_owned();
                    if let Some(subvolume) = found.get_mut(&id) {
                        subvolume.place = Some((found_item.offset, folder, name));
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(Self(found))
    }

    /// Their ids.
    pub(super) fn ids(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.keys().copied()
    }

    /// Where a subvolume is, from the filesystem's top.
    fn path(&self, mounted: BorrowedFd<'_>, id: u64) -> Result<String> {
        let (mut path, mut at) = (String::new(), id);
        for _ in 0..DEPTH {
            let Some((parent, folder, name)) = self.0.get(&at).and_then(|found| found.place.as_ref()) else {
                return if at == TOP { Ok(path) } else { Err(damaged("reference of a subvolume")) };
            };
            let folder = btrfs_folder_path(mounted, *parent, *folder)
                .context(|| format!("cannot tell where the subvolume {id} of the btrfs is"))?;
            path = format!("/{}{name}{path}", String::from_utf8_lossy(&folder));
            at = *parent;
        }
        Err(damaged("reference of a subvolume"))
    }
}

/// The subvolumes that were made as snapshots, by their paths from the filesystem's top: each may hold what was deleted
/// from the one it was made of, and this also when that one is gone. Bytes that are no UTF-8 are replaced.
///
/// # Errors
/// As [`super::free_extents`], and when there are more than guestseal keeps an account of.
pub fn snapshots(mounted: impl AsFd) -> Result<Vec<String>> {
    let mounted = mounted.as_fd();
    let all = Subvolumes::read(mounted)?;
    let made = all.0.iter().filter(|(_, subvolume)| subvolume.root.snapshot);
    made.map(|(id, _)| all.path(mounted, *id)).collect()
}
