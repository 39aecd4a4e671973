//! What the user wants erased.

#![forbid(unsafe_code)]

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How much is erased.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Free space, and what journals, free inodes and directories keep of deleted files.
    #[default]
    Full,
    /// Free space only.
    Free,
    /// Nothing: what was deleted stays readable in the image.
    None,
}

/// The decisions about the erasure of one run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ErasePlan {
    /// How much.
    pub policy: Policy,
    /// Whether what lies between partitions stays as it is.
    pub keep_gaps: bool,
    /// Whether a volume whose free space cannot be told is taken as it is.
    pub allow_unproven: bool,
}
