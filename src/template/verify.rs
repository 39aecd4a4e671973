//! Whether a template is what was sealed, and whether what lies over it still fits.

#![forbid(unsafe_code)]

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::thin_clones::{ThinClone, made_of};
use super::{Template, TemplateRecord};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::guest::path_serde;
use crate::operation::Catalogue;
use crate::report::Observer;
use crate::survey::{Target, Verdict, verify as verify_image};

/// What `template verify` found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TemplateVerdict {
    /// Its name.
    pub name: String,
    /// Whether all is as it was sealed.
    pub sealed: bool,
    /// Whether nobody wrote to its files, by their stamps.
    pub untouched: bool,
    /// What is wrong with the definition of its machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// What was found in its images.
    pub images: Verdict,
    /// Thin clones that are broken, since what lies below them is not what they were made of.
    pub broken_clones: Vec<BrokenClone>,
    /// How many thin clones were found.
    pub thin_clones: usize,
}

/// A thin clone that is broken.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct BrokenClone {
    /// Its image.
    #[serde(with = "path_serde")]
    pub path: PathBuf,
}

/// Holds a template against its record, and what lies over it against it.
///
/// # Errors
/// When the check cannot be made; what it finds is in the verdict.
pub fn verify(
    template: &Template,
    clones: &[ThinClone],
    target: &Target,
    catalogue: &Catalogue,
    observer: &mut dyn Observer,
) -> Result<TemplateVerdict> {
    let untouched = template.is_whole_untouched()?.unwrap_or(true);
    let definition = match template.definition() {
        Err(error) if error.kind() == ErrorKind::Found => Some(error.to_string()),
        Err(error) => return Err(error),
        Ok(_) => None,
    };
    let images = verify_image(target, catalogue, observer)?;
    let changed = images.digest_matches == Some(false) || (images.digest_matches.is_none() && !untouched);
    let is_broken = |clone: &&ThinClone| changed || clone.made_of_it == Some(false);
    let broken = clones.iter().filter(is_broken).map(|clone| BrokenClone { path: clone.path.clone() });
    Ok(TemplateVerdict {
        name: template.name.clone(),
        sealed: images.sealed && definition.is_none(),
        untouched,
        definition,
        broken_clones: broken.collect(),
        thin_clones: clones.len(),
        images,
    })
}

/// Whether what lies below a thin clone is the template it was made of, unchanged; returns the template's image. None when
/// the image is no thin clone that guestseal made.
///
/// # Errors
/// [`ErrorKind::Found`] when it is not.
pub fn check_clone(image: &Path, observer: &mut dyn Observer) -> Result<Option<PathBuf>> {
    let Some((digest, below, _)) = made_of(image) else { return Ok(None) };
    let broken = |why: String| {
        Error::new(ErrorKind::Found, format!("the thin clone {} is broken: {why}", image.display()))
            .hint("do not start it: what it reads is not what it was made of; make it anew, or put the template back")
    };
    if !below.exists() {
        return Err(broken(format!("its template {} is not there", below.display())));
    }
    // A clone of a guest with several disks names the record beside the first.
    let record = record_beside(&below, digest);
    let Some((first, record)) = record else {
        return Err(broken(format!("{} is not the template that it was made of", below.display())));
    };
    let template = Template::with_record(&first, record);
    let open = |path: &PathBuf| File::open(path).context(|| format!("cannot open {}", path.display()));
    let files = template.images.iter().map(open).collect::<Result<Vec<_>>>()?;
    match template.must_be_sealed(&files.iter().collect::<Vec<_>>(), observer) {
        Err(error) if error.kind() == ErrorKind::Found => Err(broken(error.to_string())),
        Err(error) => Err(error),
        Ok(()) => Ok(Some(below)),
    }
}

/// The record of this digest among those beside an image, and the image that it stands beside.
fn record_beside(image: &Path, digest: [u8; 32]) -> Option<(PathBuf, TemplateRecord)> {
    let entries = image.parent()?.read_dir().ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let images = entries.filter_map(|path| Some(PathBuf::from(path.to_str()?.strip_suffix(".seal.json")?)));
    let own = std::iter::once(image.to_path_buf()).chain(images);
    own.filter_map(|image| TemplateRecord::load(&image).ok().map(|record| (image, record)))
        .find(|(_, record)| record.digest == digest)
}
