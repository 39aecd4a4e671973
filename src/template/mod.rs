//! Templates: sealed images, read-only, with the definition of their machine and a record that tells whether they are still
//! what was sealed.

#![forbid(unsafe_code)]

pub mod create;
pub mod seed_place;
pub mod store;
pub mod thin_clones;
pub mod verify;

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Context, Error, ErrorKind, Result};
use crate::image::format::Format;
use crate::record::template::{FileStamp, TemplateFacts};
use crate::record::{self, SealRecord, digest};
use crate::report::{Event, Observer, Stage};

/// The most that is read of a machine's definition.
const DEFINITION_LIMIT: u64 = 16 << 20;

/// A sealed image, or a guest with several, that clones are made of.
#[derive(Debug)]
pub struct Template {
    /// What it is called.
    pub name: String,
    /// The images of its disks.
    pub images: Vec<PathBuf>,
    /// The record beside the first; none of an image that is not sealed.
    pub record: Option<TemplateRecord>,
}

/// The record of a template.
#[derive(Debug)]
pub struct TemplateRecord {
    /// What it says.
    pub record: SealRecord,
    /// The sha256 of its file, by which clones name their template.
    pub digest: [u8; 32],
}

impl TemplateRecord {
    /// Reads that of an image.
    ///
    /// # Errors
    /// As [`record::load`].
    pub fn load(image: &Path) -> Result<Self> {
        let (record, text) = record::load_with_text(image)?;
        Ok(Self { record, digest: Sha256::digest(text).into() })
    }
}

impl Template {
    /// A sealed image by itself, wherever it lies. A guest with several disks is a template only in a store.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn of_image(image: &Path) -> Result<Self> {
        let image = image.canonicalize().context(|| format!("cannot find the image {}", image.display()))?;
        let record = exists(&record::path_of(&image)).then(|| TemplateRecord::load(&image)).transpose()?;
        Ok(match record {
            Some(record) => Self::with_record(&image, record),
            None => Self { name: stem(&image), images: vec![image], record: None },
        })
    }

    /// The same with the record that stands beside the image.
    pub fn with_record(image: &Path, record: TemplateRecord) -> Self {
        let others = record.record.subject.iter().skip(1).map(|subject| image.with_file_name(&subject.name));
        let images = std::iter::once(image.to_path_buf()).chain(others).collect();
        Self { name: stem(image), images, record: Some(record) }
    }

    /// What its record says of it as a template.
    pub fn facts(&self) -> Option<&TemplateFacts> {
        self.record.as_ref()?.record.predicate.template.as_ref()
    }

    /// The format of a disk, where the record says it.
    pub fn format(&self, disk: usize) -> Option<Format> {
        Some(self.facts()?.disks.get(disk)?.format)
    }

    /// The sha256 of its record.
    pub fn digest(&self) -> Option<[u8; 32]> {
        self.record.as_ref().map(|record| record.digest)
    }

    /// The definition of its machine; none when it has none.
    ///
    /// # Errors
    /// [`ErrorKind::Found`] when it is not the one that was recorded; failed when it cannot be read.
    pub fn definition(&self) -> Result<Option<String>> {
        let Some(recorded) = self.facts().and_then(|facts| facts.definition.as_ref()) else {
            return Ok(None);
        };
        let path = self.images[0].with_file_name(&recorded.name);
        let mut text = Vec::new();
        File::open(&path)
            .and_then(|file| file.take(DEFINITION_LIMIT).read_to_end(&mut text))
            .context(|| format!("cannot read the definition {}", path.display()))?;
        if recorded.digest.get("sha256") != Some(&digest::of_bytes(&text)) {
            let what = format!("the definition {} was changed", path.display());
            return Err(Error::new(ErrorKind::Found, what)
                .hint("it is a part of the template: make the template again with the one that is right"));
        }
        String::from_utf8(text).map(Some).context(|| format!("{} is no UTF-8", path.display()))
    }

    /// Whether nobody wrote to a disk, by its file's stamp. None when the record has no stamp of it.
    ///
    /// # Errors
    /// When the file cannot be examined.
    pub fn is_untouched(&self, disk: usize, file: &File) -> Result<Option<bool>> {
        let Some(known) = self.facts().and_then(|facts| facts.disks.get(disk)) else { return Ok(None) };
        let now =
            FileStamp::of(file).context(|| format!("cannot examine {}", self.images[disk].display()))?;
        Ok(Some(now == known.stamp))
    }

    /// Whether nobody wrote to any of its files, by their stamps; none when the record has no stamps.
    ///
    /// # Errors
    /// When a file cannot be opened.
    pub fn is_whole_untouched(&self) -> Result<Option<bool>> {
        let mut untouched = None;
        for (disk, path) in self.images.iter().enumerate() {
            let file = File::open(path).context(|| format!("cannot open {}", path.display()))?;
            let this = self.is_untouched(disk, &file)?;
            untouched = this.map(|this| this && untouched != Some(false));
        }
        Ok(untouched)
    }

    /// Refuses a template that is not what was sealed: by the stamps of its files, and where these tell nothing, as of a
    /// copy, by their digests.
    ///
    /// # Errors
    /// [`ErrorKind::Found`] when it is not, or that cannot be told.
    pub fn must_be_sealed(&self, files: &[&File], observer: &mut dyn Observer) -> Result<()> {
        let Some(TemplateRecord { record, .. }) = &self.record else {
            let what = format!("{} is not sealed: it has no record", self.images[0].display());
            return Err(Error::new(ErrorKind::Found, what)
                .hint("seal it first (guestseal template create makes a template of it), or say --force"));
        };
        for (disk, (file, path)) in files.iter().zip(&self.images).enumerate() {
            if self.is_untouched(disk, file)? == Some(true) {
                continue;
            }
            let wanted = record.subject.get(disk).and_then(|subject| subject.digest.get("sha256"));
            let Some(wanted) = wanted else {
                let what = format!("it cannot be told quickly whether {} is still sealed", path.display());
                return Err(Error::new(ErrorKind::Found, what).hint(
                    "its record has no digest: check it by guestseal verify, then say --force, or seal it with --digest sha256",
                ));
            };
            observer.event(Event::Stage(Stage::Hashing));
            if digest::sha256(file, path, observer)? != *wanted {
                return Err(self.changed(path));
            }
        }
        Ok(())
    }

    /// What to say of a template that was changed.
    fn changed(&self, path: &Path) -> Error {
        let what = format!("the template {} was changed after it was sealed: {}", self.name, path.display());
        Error::new(ErrorKind::Found, what).hint(
            "was a machine started on it? its thin clones are broken, and guestseal template verify tells more; seal it again, \
            or say --force for a clone that is not clean",
        )
    }
}

/// The image of a disk of a guest whose first has this path: NAME.qcow2, NAME-1.qcow2, and so on.
pub fn disk_path(first: &Path, disk: usize) -> PathBuf {
    let end = first.extension().map_or_else(String::new, |end| format!(".{}", end.to_string_lossy()));
    match disk {
        0 => first.to_path_buf(),
        _ => first.with_file_name(format!("{}-{disk}{end}", stem(first))),
    }
}

/// The name of an image without its folders and the end of its kind.
fn stem(image: &Path) -> String {
    image.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether something has this name.
fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}
