//! One file of the host, or a part of one, that is read while the worker writes it.

#![forbid(unsafe_code)]

use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::{Context, Error, ErrorKind, Result};
use crate::guest::change::PIECE;

/// A regular file of the host, or a part of one.
#[derive(Debug, Clone)]
pub struct Source {
    path: PathBuf,
    start: u64,
    length: u64,
    mark: Mark,
}

/// By what a file is known to be what it was: device, inode, length, time of the last change.
type Mark = (u64, u64, u64, (i64, i64));

fn mark(of: &Metadata) -> Mark {
    (of.dev(), of.ino(), of.len(), (of.mtime(), of.mtime_nsec()))
}

impl Source {
    /// A whole file.
    pub(super) fn whole(path: &Path, metadata: &Metadata) -> Result<Self> {
        Self::part(path, metadata, (0, metadata.len()))
    }

    /// Part of a file: where it starts, and its length.
    pub(super) fn part(path: &Path, metadata: &Metadata, (start, length): (u64, u64)) -> Result<Self> {
        let path = path.canonicalize().context_kind(ErrorKind::Usage, || "cannot find it")?;
        // Whether it may be read shows before anything is done.
        File::open(&path).context_kind(ErrorKind::Usage, || "cannot read it")?;
        Ok(Self { path, start, length, mark: mark(metadata) })
    }

    /// The bytes from `offset` on, at most [`PIECE`]; none at the end.
    ///
    /// # Errors
    /// When the file cannot be read, or is not what it was when the run was planned.
    pub fn piece(&self, offset: u64) -> Result<Vec<u8>> {
        let failed = || format!("cannot read {}", self.path.display());
        let file = File::open(&self.path).context(failed)?;
        let changed = || {
            Error::failed(format!("{} was changed while guestseal ran", self.path.display()))
                .hint("run it again when the file is left alone")
        };
        if mark(&file.metadata().context(failed)?) != self.mark {
            return Err(changed());
        }
        let left = self.length.saturating_sub(offset).min(u64::from(PIECE));
        let mut piece = vec![0; usize::try_from(left).context(failed)?];
        file.read_exact_at(&mut piece, self.start.saturating_add(offset)).map_err(|error| {
            if error.kind() == std::io::ErrorKind::UnexpectedEof {
                changed()
            } else {
                Error::failed(failed()).caused_by(error)
            }
        })?;
        Ok(piece)
    }
}
