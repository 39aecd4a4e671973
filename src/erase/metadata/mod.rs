//! What metadata keeps of deleted files: journals and logs, the slots of free inodes, the unused parts of directory
//! blocks. One walk finds these places; it either counts what is in them or makes it zero, so that the proof looks at
//! exactly what the erasure cleaned.

#![forbid(unsafe_code)]

pub mod ext;
pub mod fat;
pub mod xfs;

use serde::{Deserialize, Serialize};

/// What a walk does with the places that it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Counts the bytes that are not zero.
    Count,
    /// Makes them zero, and mends the checksums of the blocks that they are in.
    Zero,
}

/// What a walk found in the places of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Remains {
    /// What they are: `journal`, `free inodes`, `directories`, …
    pub kind: String,
    /// How many bytes they have.
    pub bytes: u64,
    /// How many of these were not zero.
    pub nonzero: u64,
}
