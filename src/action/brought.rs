//! What the host brings into a guest, as actions see it: a listing with numbers in place of the host's paths. The
//! content comes later, piece by piece, when the files are written.

#![forbid(unsafe_code)]

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::guest::path_serde;

/// One file, folder or link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Item {
    /// Its path below the place where all goes; empty when it is that place.
    #[serde(with = "path_serde")]
    pub below: PathBuf,
    /// What it is.
    pub kind: ItemKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner's number.
    pub uid: u32,
    /// Group's number.
    pub gid: u32,
    /// When it was last changed, in seconds since 1970, where that is kept.
    pub modified: Option<i64>,
}

/// What an [`Item`] is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ItemKind {
    /// A regular file: its number among the files of the operation.
    File(u32),
    /// A folder.
    Folder,
    /// A symbolic link, and where it points to.
    Link(#[serde(with = "path_serde")] PathBuf),
}

/// The key under which an operation's settings have what a verb brings from a path of the host.
pub fn key(verb: &str, from: &str) -> String {
    format!("{verb} {from}")
}
