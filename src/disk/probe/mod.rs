//! Superblock probes: which filesystem, swap or container a volume holds, by the same signs and in the same order as
//! libblkid, so that UUID= and LABEL= of a guest's fstab mean the same here as in the guest.

mod btrfs;
mod ext;
pub(crate) mod fat;
mod member;
mod other;
mod pool;
mod swap;
mod windows;
mod xfs;
mod xfs_log;

use std::io::{self, Read, Seek};

use super::bytes::Window;
use super::content::{Content, ContentClass, Superblock};

type Probe<R> = fn(&mut Window<'_, R>) -> io::Result<Option<Superblock>>;

/// What the `length` bytes of the disk from `offset` on hold; none when nothing known is there.
///
/// Of several superblocks the first by libblkid's order is given, sound ones before damaged ones, and the others are
/// named in [`Superblock::also`]. A sound container (LVM, RAID, encryption) ends the search as it does in libblkid, since
/// what lies under it is not this volume's own.
///
/// # Errors
/// When the disk cannot be read. Bytes beyond its end count as missing, not as an error.
pub fn probe<R: Read + Seek>(disk: &mut R, offset: u64, length: u64) -> io::Result<Option<Superblock>> {
    let probes: [Probe<R>; 25] = [
        member::md,
        pool::bcache,
        pool::bcachefs,
        member::lvm,
        member::verity,
        member::integrity,
        member::luks,
        pool::stratis,
        windows::bitlocker,
        fat::vfat,
        swap::swap,
        xfs::xfs,
        ext::ext,
        other::reiserfs,
        other::jfs,
        other::udf,
        other::iso9660,
        pool::zfs,
        windows::ntfs,
        other::squashfs,
        btrfs::btrfs,
        other::nilfs2,
        windows::exfat,
        other::f2fs,
        other::erofs,
    ];
    let mut window = Window::new(disk, offset, length)?;
    let mut found = Vec::new();
    for probe in probes {
        if let Some(superblock) = probe(&mut window)? {
            let ends = is_container(&superblock) && found.is_empty();
            found.push(superblock);
            if ends {
                break;
            }
        }
    }
    found.sort_by_key(|superblock| superblock.damaged);
    Ok(merge(found))
}

/// One that is damaged may be what a filesystem was made over.
fn is_container(superblock: &Superblock) -> bool {
    matches!(superblock.content.class(), ContentClass::Member | ContentClass::Encrypted)
        && !superblock.damaged
}

fn merge(found: Vec<Superblock>) -> Option<Superblock> {
    let mut found = found.into_iter();
    let mut first = found.next()?;
    let others: Vec<_> = found.filter(|other| !bridged(first.content, other.content)).collect();
    first.ambivalent = !first.damaged && others.iter().any(|other| !other.damaged);
    first.also = others.into_iter().map(|other| other.content).collect();
    Some(first)
}

/// A disc may carry both formats over the same files on purpose.
fn bridged(one: Content, other: Content) -> bool {
    one == Content::Udf && other == Content::Iso9660
}

#[cfg(test)]
mod tests;
