//! Which thin images lie over a template: it may neither go nor change while there are any.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::Template;
use crate::error::{Context, Result};
use crate::image::format::Format;
use crate::image::qcow2::{Header, read_header};

/// A thin image over a template.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ThinClone {
    /// Its image.
    pub path: PathBuf,
    /// Whether it was made of this very template, and not of another that had its place; none when its image does not say.
    pub made_of_it: Option<bool>,
}

/// Those among the files of some folders, and single files.
///
/// # Errors
/// When a folder cannot be read.
pub fn find(template: &Template, folders: &[PathBuf], files: &[PathBuf]) -> Result<Vec<ThinClone>> {
    let mut all: BTreeSet<PathBuf> = files.iter().filter_map(|file| file.canonicalize().ok()).collect();
    for folder in folders {
        let failed = || format!("cannot look for thin clones in {}", folder.display());
        for entry in fs::read_dir(folder).context(failed)? {
            all.extend(entry.context(failed)?.path().canonicalize());
        }
    }
    let images: Vec<_> = template.images.iter().filter_map(|image| image.canonicalize().ok()).collect();
    let over = |path: PathBuf| {
        let header = header(&path)?;
        let below = backing_file(&path, &header)?.canonicalize().ok()?;
        let made_of_it = header.template.map(|digest| Some(digest) == template.digest());
        images.contains(&below).then_some(ThinClone { path, made_of_it })
    };
    Ok(all.into_iter().filter_map(over).collect())
}

/// The header of a qcow2 image; none of anything else, or of what cannot be read.
fn header(path: &Path) -> Option<Header> {
    // Opening a FIFO would wait, and a device is no image of ours.
    path.metadata().ok().filter(fs::Metadata::is_file)?;
    read_header(&mut File::open(path).ok()?).ok()
}

/// The file below an image, where that is a file of this host. Relative names are meant from its own folder.
fn backing_file(image: &Path, header: &Header) -> Option<PathBuf> {
    let name = header.backing_file.as_deref()?;
    Some(image.parent()?.join(name.strip_prefix("file:").unwrap_or(name)))
}

/// The template that a thin clone of guestseal says it was made of: the sha256 of its record, and the image that lies below.
/// None when the image is no such clone.
pub fn made_of(image: &Path) -> Option<([u8; 32], PathBuf, Format)> {
    let header = header(image)?;
    let below = backing_file(image, &header)?;
    let format = match header.backing_format.as_deref()? {
        "raw" => Format::Raw,
        "qcow2" => Format::Qcow2,
        _ => return None,
    };
    Some((header.template?, below, format))
}
