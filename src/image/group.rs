//! Several disks of one guest: which journal decides about them all, and whether it still does.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::identity::Identity;
use super::info::Image;
use super::journal::{self, Entry, First, FirstEntry, Group, OtherEntry};
use super::lock::LockedImage;
use super::nameless::{folder_of, random_name};
use super::part::{remove, remove_dead_overlay, sync_folder};
use super::place::Place;
use crate::error::{Context, Error, Result};

/// What stands beside an image.
#[derive(Debug)]
pub enum Standing {
    /// No interrupted commit.
    Nothing,
    /// One, of this disk first and of these others.
    Here(Vec<PathBuf>),
    /// One of which the journal beside this image decides.
    Elsewhere(PathBuf),
}

/// Looks what stands beside a locked image, and removes what no commit needs.
///
/// # Errors
/// When a journal cannot be read, or the first disk of its guest is not there.
pub fn standing(image: &Place, lock: &LockedImage) -> Result<Standing> {
    match journal::peek(&image.seat)? {
        Some(Entry::First(entry)) => {
            let others = entry.group.into_iter().flat_map(|group| group.others);
            Ok(Standing::Here(others.map(|other| resolved(&image.path, &other)).collect()))
        }
        Some(Entry::Other(entry)) => {
            if !is_over(image, &entry.first).map_err(|error| journal::refused(&image.seat, error))? {
                return Ok(Standing::Elsewhere(resolved(&image.path, &entry.first.path)));
            }
            clear(image, lock).map(|()| Standing::Nothing)
        }
        None => remove_dead_overlay(image, lock).map(|()| Standing::Nothing),
    }
}

/// Removes what killed runs left beside a locked image and no commit needs.
///
/// # Errors
/// When something else has such a name, or it cannot be removed.
pub(super) fn clear(image: &Place, lock: &LockedImage) -> Result<()> {
    let journal = journal::path_of(&image.seat);
    if journal.symlink_metadata().is_ok() && is_dead(image)? {
        remove(&journal)?;
        sync_folder(image.folder())?;
    }
    remove_dead_overlay(image, lock)
}

/// Whether the journal of an image, which has one, says nothing any more.
///
/// # Errors
/// When that cannot be told.
pub(super) fn is_dead(image: &Place) -> Result<bool> {
    match journal::peek(&image.seat)? {
        Some(Entry::Other(entry)) => is_over(image, &entry.first),
        _ => Ok(false),
    }
}

/// Whether a commit was never begun, or is done: the journal of the first disk is no longer there, or of another commit.
/// Only where that disk itself is found, since a journal can also be missing because its image was moved.
fn is_over(image: &Place, first: &First) -> Result<bool> {
    let path = resolved(&image.path, &first.path);
    let missing = || format!("the first disk of this guest, {}, cannot be found", path.display());
    if !Identity::by(&path.metadata().context(missing)?)?.is(&first.file) {
        return Err(Error::failed(format!("{} is not the first disk of this guest", path.display())));
    }
    Ok(match journal::peek(&image.other(&path)?.seat)? {
        Some(Entry::First(FirstEntry { group: Some(group), .. })) => group.id != first.group,
        _ => true,
    })
}

/// The journals of images that are committed together, the first one's first.
pub(super) fn entries(
    first: FirstEntry,
    others: Vec<(&Image, OtherDisk)>,
    image: &Path,
) -> Result<Vec<Entry>> {
    if others.is_empty() {
        return Ok(vec![Entry::First(first)]);
    }
    let id = random_name()?;
    let group = Group {
        id: id.clone(),
        others: others.iter().map(|(other, _)| path_from(image, &other.path)).collect(),
    };
    let file = first.image.file.clone();
    let other = |(other, disk): (&Image, OtherDisk)| {
        let first = First { path: path_from(&other.path, image), file: file.clone(), group: id.clone() };
        let OtherDisk { image, overlay } = disk;
        Entry::Other(OtherEntry { image, format: other.format, overlay, past: other.past, first })
    };
    let others: Vec<_> = others.into_iter().map(other).collect();
    let first = Entry::First(FirstEntry { group: Some(group), ..first });
    Ok(std::iter::once(first).chain(others).collect())
}

/// What is known of a disk that is not the first.
pub(super) struct OtherDisk {
    pub(super) image: super::identity::ImageIdentity,
    pub(super) overlay: Identity,
}

/// How the journal of `image` names another: a folder that is moved keeps what is in it together.
fn path_from(image: &Path, other: &Path) -> PathBuf {
    match other.file_name() {
        Some(name) if folder_of(image) == folder_of(other) => name.into(),
        _ => other.to_path_buf(),
    }
}

fn resolved(image: &Path, named: &Path) -> PathBuf {
    folder_of(image).join(named)
}

/// Checks that the journal of another disk belongs to the commit that the first disk's is about.
///
/// # Errors
/// When it does not.
pub(super) fn belongs(first: &Entry, other: &Entry) -> Result<()> {
    match (first, other) {
        (Entry::First(FirstEntry { group: Some(group), .. }), Entry::Other(other))
            if group.id == other.first.group =>
        {
            Ok(())
        }
        _ => Err(Error::failed("it is of another commit than that of the guest's first disk")),
    }
}
