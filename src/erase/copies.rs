//! The search of what a run leaves for fingerprints of what it deleted. What is free is proven to be zero, so what is
//! found is a copy in a living file.

#![forbid(unsafe_code)]

use std::fs::File;
use std::thread::available_parallelism;

use serde::{Deserialize, Serialize};

use super::extent::Extents;
use super::fingerprint::finder::Finder;
use super::fingerprint::search::search_file;
use super::fingerprint::{Coverage, Fingerprints};
use crate::error::Result;
use crate::report::Silent;

/// What the search found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Copies {
    /// The files that were removed or emptied, by what could be taken of them.
    pub files: Coverage,
    /// How many windows were searched for.
    pub windows: u64,
    /// How many bytes were searched; holes are not.
    pub bytes_searched: u64,
    /// In how many places a window was found: in files that live.
    pub found: u64,
}

/// Searches these parts of files.
///
/// # Errors
/// When one cannot be read, or a signal came.
pub fn search(prints: &Fingerprints, places: &[(&File, &Extents)]) -> Result<Copies> {
    let mut copies = Copies { files: prints.coverage(), ..Copies::default() };
    if prints.count() == 0 {
        return Ok(copies);
    }
    let finder = Finder::new(prints);
    let threads = available_parallelism().map_or(1, usize::from);
    for (file, ranges) in places {
        let found = search_file(file, ranges, &finder, &|_| 0, threads, &mut Silent)?;
        copies.windows = found.windows;
        copies.bytes_searched = copies.bytes_searched.saturating_add(found.bytes);
        copies.found = copies.found.saturating_add(found.count());
    }
    Ok(copies)
}
