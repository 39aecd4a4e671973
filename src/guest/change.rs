//! What can be done to a guest: a few plain changes, each made in one place. Actions only say which; this carries
//! them out, whole or not at all.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Entry, FileKind, GuestRoot};
use crate::error::{Error, Result};

/// One change to the guest that an action found necessary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Unlink one file, link or special.
    Remove {
        /// The file.
        path: PathBuf,
        /// What it is.
        kind: FileKind,
        /// Its length.
        bytes: u64,
    },
    /// Remove a folder with all below.
    RemoveTree {
        /// The folder.
        path: PathBuf,
        /// The lengths of all files below together.
        bytes: u64,
        /// How many files, links and folders are below.
        entries: u64,
    },
    /// Set a file's length to 0 in place.
    Truncate {
        /// The file.
        path: PathBuf,
        /// Its length before.
        bytes: u64,
    },
    /// Give a file a new content in one step; an existing one keeps owner, mode, attributes and label.
    Replace {
        /// The file; not a link.
        path: PathBuf,
        /// The whole new content.
        content: Content,
        /// For a file that does not exist yet.
        new: NewFile,
    },
    /// Put something behind the content of a file in one step, at the next multiple of four bytes; it keeps owner, mode,
    /// attributes and label.
    Append {
        /// The file; not a link.
        path: PathBuf,
        /// What comes behind.
        content: Content,
    },
    /// Make a symbolic link, in place of whatever file is there.
    Link {
        /// Where.
        path: PathBuf,
        /// What it points to.
        target: PathBuf,
    },
    /// Make a folder.
    Folder {
        /// Where; its parent exists.
        path: PathBuf,
        /// Owner and mode.
        new: NewFile,
    },
    /// Put a file of the host here, in one step; owner and mode are the new ones, whatever was here.
    Bring {
        /// The file; not a link.
        path: PathBuf,
        /// Its number among the files that the host gives.
        source: u32,
        /// Owner and mode.
        new: NewFile,
        /// When it was last changed, in seconds since 1970; now when none.
        modified: Option<i64>,
    },
    /// Set the permission bits of a file or folder.
    Mode {
        /// The file; not a link.
        path: PathBuf,
        /// Permission bits.
        mode: u32,
    },
    /// Set the owner of a file or folder.
    Owner {
        /// The file; not a link.
        path: PathBuf,
        /// Owner's number.
        uid: u32,
        /// Group's number.
        gid: u32,
    },
    /// Set the times of a file to now.
    Touch {
        /// The file; not a link.
        path: PathBuf,
    },
    /// Give a file or folder another place.
    Move {
        /// Where it is.
        from: PathBuf,
        /// Where it will be.
        path: PathBuf,
    },
    /// Copy a file, link, or folder with all below: mode, owner, attributes and times as they are.
    Copy {
        /// What is copied.
        from: PathBuf,
        /// Where the copy will be.
        path: PathBuf,
    },
}

/// The most that [`Supply::piece`] gives at once, in bytes.
pub const PIECE: u32 = 1 << 20;

/// Whoever has the files of the host that go into the guest.
pub trait Supply {
    /// The bytes of a file from `offset` on, at most [`PIECE`]; none at its end.
    ///
    /// # Errors
    /// When it cannot be read, or is not what it was when the run was planned.
    fn piece(&mut self, source: u32, offset: u64) -> Result<Vec<u8>>;
}

/// Nobody: for changes that bring nothing.
#[derive(Debug)]
pub struct Nothing;

impl Supply for Nothing {
    fn piece(&mut self, _: u32, _: u64) -> Result<Vec<u8>> {
        Err(Error::failed("nobody here has files of the host"))
    }
}

/// The content of a file. Its debug form shows the length only: it may be the guest's shadow file.
#[derive(Clone, PartialEq, Eq)]
pub struct Content(pub Vec<u8>);

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Owner and mode of a file that is made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewFile {
    /// Permission bits.
    pub mode: u32,
    /// Owner's number.
    pub uid: u32,
    /// Group's number.
    pub gid: u32,
}

impl NewFile {
    /// Owned by root.
    pub fn root(mode: u32) -> Self {
        Self { mode, uid: 0, gid: 0 }
    }

    /// As this file is.
    pub fn like(entry: &Entry) -> Self {
        Self { mode: entry.mode, uid: entry.uid, gid: entry.gid }
    }
}

/// The name of a change for people and machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Verb {
    Remove,
    Truncate,
    Write,
    Link,
    Create,
    Mode,
    Owner,
    Touch,
    Move,
    Copy,
}

impl Change {
    /// Gives a file that is there this content.
    pub fn rewrite(entry: Entry, content: Vec<u8>) -> Self {
        let new = NewFile::like(&entry);
        Self::Replace { path: entry.path, content: Content(content), new }
    }

    /// The file it is about.
    pub fn path(&self) -> &Path {
        match self {
            Self::Remove { path, .. }
            | Self::RemoveTree { path, .. }
            | Self::Truncate { path, .. }
            | Self::Replace { path, .. }
            | Self::Append { path, .. }
            | Self::Link { path, .. }
            | Self::Folder { path, .. }
            | Self::Bring { path, .. }
            | Self::Mode { path, .. }
            | Self::Owner { path, .. }
            | Self::Touch { path }
            | Self::Move { path, .. }
            | Self::Copy { path, .. } => path,
        }
    }

    /// How many bytes of the guest's content go away with it.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Remove { bytes, .. } | Self::RemoveTree { bytes, .. } | Self::Truncate { bytes, .. } => {
                *bytes
            }
            _ => 0,
        }
    }

    /// How many files, links and folders it is about.
    pub fn entries(&self) -> u64 {
        if let Self::RemoveTree { entries, .. } = self { entries + 1 } else { 1 }
    }

    /// What kind of change it is.
    pub fn verb(&self) -> Verb {
        match self {
            Self::Remove { .. } | Self::RemoveTree { .. } => Verb::Remove,
            Self::Truncate { .. } => Verb::Truncate,
            Self::Replace { .. } | Self::Append { .. } | Self::Bring { .. } => Verb::Write,
            Self::Link { .. } => Verb::Link,
            Self::Folder { .. } => Verb::Create,
            Self::Mode { .. } => Verb::Mode,
            Self::Owner { .. } => Verb::Owner,
            Self::Touch { .. } => Verb::Touch,
            Self::Move { .. } => Verb::Move,
            Self::Copy { .. } => Verb::Copy,
        }
    }

    /// Makes a change that needs no file of the host.
    ///
    /// # Errors
    /// As [`Change::make_with`].
    pub fn make(&self, root: &GuestRoot) -> Result<()> {
        self.make_with(root, &mut Nothing)
    }

    /// Makes the change. Something that is already gone is no error.
    ///
    /// # Errors
    /// When the guest's filesystem refuses; the sentence names the path. When a file of the host cannot be had.
    pub fn make_with(&self, root: &GuestRoot, supply: &mut dyn Supply) -> Result<()> {
        match self {
            Self::Remove { path, .. } => root.remove(path),
            Self::RemoveTree { path, .. } => root.remove_tree(path),
            Self::Truncate { path, .. } => root.truncate(path),
            Self::Replace { path, content, new } => root.replace(path, &content.0, *new),
            Self::Append { path, content } => root.append(path, &content.0),
            Self::Link { path, target } => root.link(path, target),
            Self::Folder { path, new } => root.make_folder(path, *new),
            Self::Bring { path, source, new, modified } => {
                root.bring(path, (*source, supply), *new, *modified)
            }
            Self::Mode { path, mode } => root.set_mode(path, *mode),
            Self::Owner { path, uid, gid } => root.set_owner(path, *uid, *gid),
            Self::Touch { path } => root.touch(path),
            Self::Move { from, path } => root.rename(from, path),
            Self::Copy { from, path } => root.copy(from, path),
        }
    }
}
