//! What is mounted where: found out by [`crate::inspect`], carried out by [`super::tree`].

#![forbid(unsafe_code)]

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::disk::Content;

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
}

impl Place {
    /// The root of the guest.
    pub fn root(volume: usize, content: Content, subvolume: Option<String>) -> Self {
        Self { volume, content, subvolume, subvolume_id: None, point: PathBuf::from("/") }
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
    /// What is not mounted and why that is no harm.
    pub notes: Vec<String>,
}
