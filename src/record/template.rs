//! What the record of a template says besides: by what a change of its files shows at once, and where its clones get
//! their random seeds.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

use super::Subject;
use crate::image::format::Format;

/// What is known of a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TemplateFacts {
    /// Its name.
    pub name: String,
    /// The definition of its machine, and the digest of that file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<Subject>,
    /// Its disks, in the order of the subjects.
    pub disks: Vec<TemplateDisk>,
    /// Where each clone gets its random seed; none when that takes mounting the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<SeedPlace>,
}

/// A disk of a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TemplateDisk {
    /// Its format.
    pub format: Format,
    /// Length of the disk in it, in bytes.
    pub virtual_bytes: u64,
    /// Whether not even root can write to the file.
    pub immutable: bool,
    /// The file as it was when all was done.
    pub stamp: FileStamp,
}

/// What differs once anybody wrote to a file, or put another in its place. The kernel alone sets the time of the last
/// change, so that nobody hides one by touch(1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FileStamp {
    /// Its number on its filesystem.
    pub inode: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// When it was last changed in any way (stat(2), `st_ctim`): whole seconds since 1970.
    pub changed: i64,
    /// And nanoseconds.
    pub changed_nanoseconds: i64,
}

impl FileStamp {
    /// Of an open file.
    ///
    /// # Errors
    /// When it cannot be examined.
    pub fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self {
            inode: metadata.ino(),
            bytes: metadata.len(),
            changed: metadata.ctime(),
            changed_nanoseconds: metadata.ctime_nsec(),
        })
    }
}

/// A random seed's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SeedPlace {
    /// The number of the disk.
    pub disk: usize,
    /// Its first byte on that.
    pub offset: u64,
}
