//! What is mounted where: found out by [`crate::inspect`], carried out by [`super::tree`].

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::wanted::{Wanted, fits};
use crate::disk::Content;
use crate::error::{Error, Result};

/// A filesystem of the guest and where it belongs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Place {
    /// Index of its volume on the disk.
    pub volume: usize,
    /// What the volume holds.
    pub content: Content,
    /// The subvolume of a btrfs; none for its default one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subvolume: Option<String>,
    /// The same by its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subvolume_id: Option<u64>,
    /// Mount point in the guest.
    pub point: PathBuf,
    /// Mount options that the user wants, of those that [`super::wanted`] lets through.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Place {
    /// The root of the guest.
    pub fn root(volume: usize, content: Content, subvolume: Option<String>) -> Self {
        Self {
            volume,
            content,
            subvolume,
            subvolume_id: None,
            point: PathBuf::from("/"),
            options: Vec::new(),
        }
    }

    /// The option that chooses the subvolume of a btrfs; none for its default one.
    pub fn subvolume_option(&self) -> Option<String> {
        let name = self.subvolume.as_ref().map(|name| format!("subvol={name}"));
        // Both together are one more check by the kernel, which guests from before a rollback would fail.
        name.or_else(|| self.subvolume_id.map(|id| format!("subvolid={id}")))
    }
}

/// How the guest's filesystems fit together.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct GuestLayout {
    /// The root filesystem.
    pub root: Place,
    /// What is mounted below it, outer ones first.
    pub others: Vec<Place>,
    /// Swap space by the guest's fstab: indexes of volumes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub swap: Vec<usize>,
    /// What is not mounted and why that is no harm.
    pub notes: Vec<String>,
}

impl GuestLayout {
    /// Gives the filesystems the options that the user wants of them.
    ///
    /// # Errors
    /// Usage errors: a mount point that the guest has not, an option that the filesystem there has not.
    pub fn want(&mut self, wanted: &[Wanted]) -> Result<()> {
        for Wanted { point, options } in wanted {
            let mut places = std::iter::once(&mut self.root).chain(&mut self.others);
            let Some(place) = places.find(|place| place.point == *point) else {
                return Err(self.no_such_point(point));
            };
            fits(options, place.content)
                .map_err(|error| error.within(format!("cannot mount {} as asked", point.display())))?;
            place.options.clone_from(options);
        }
        Ok(())
    }

    fn no_such_point(&self, point: &Path) -> Error {
        let points = std::iter::once(&self.root).chain(&self.others);
        let names: Vec<_> = points.map(|place| place.point.display().to_string()).collect();
        Error::usage(format!("--mount-options names {}, where the guest mounts nothing", point.display()))
            .hint(format!("its filesystems are mounted at {}", names.join(", ")))
    }
}
