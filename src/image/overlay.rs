//! The file that takes all writes of the run: a qcow2 file over the image, or a copy of it. It has no name, so that nothing
//! is left of it when the run is killed; only the commit gives it one, or who made it of a template.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::format::Format;
use super::identity::Identity;
use super::info::Image;
use super::nameless::NamelessFile;
use super::qcow2_write::Thin;
use crate::error::{Context, Error, Result};

/// The overlay of one run.
#[derive(Debug)]
pub struct Overlay {
    file: NamelessFile,
    /// The format of a file that has nothing below it.
    copy: Option<Format>,
}

impl Overlay {
    /// Makes an empty overlay over `image` in `folder`.
    ///
    /// # Errors
    /// When the folder cannot be written, or the disk is too large.
    pub fn make(image: &Image, folder: &Path) -> Result<Self> {
        let failed = || format!("cannot make a working overlay in {}", folder.display());
        // qcow2 wants the path of a file; over a disk that is not on this host the overlay never has a name of its own.
        let path = if image.path.is_absolute() { &image.path } else { &image.place.seat };
        let name = path.to_str().ok_or_else(|| {
            Error::unsupported(format!(
                "the path {} is no UTF-8, which qemu cannot take",
                image.path.display()
            ))
        })?;
        let file = NamelessFile::make(folder, 0o600)?;
        let mut bytes = file.file();
        let thin = Thin {
            virtual_bytes: image.bytes_after(),
            backing_file: name,
            backing_format: image.format.driver(),
            mark: Some(Identity::of(image.lock.file())?.mark()),
            template: None,
        };
        thin.write(&mut bytes, &BTreeMap::new()).and_then(|()| bytes.flush().context(failed))?;
        Ok(Self { file, copy: None })
    }

    /// A file that is an overlay over an image already.
    pub fn over(file: NamelessFile) -> Self {
        Self { file, copy: None }
    }

    /// A copy of an image, which is not below it.
    pub fn copy(file: NamelessFile, format: Format) -> Self {
        Self { file, copy: Some(format) }
    }

    /// Whether the image is not below it.
    pub fn is_copy(&self) -> bool {
        self.copy.is_some()
    }

    /// Its file, which is what it was all about where it is a clone.
    pub fn into_file(self) -> NamelessFile {
        self.file
    }

    /// The overlay's own file.
    pub fn file(&self) -> &std::fs::File {
        self.file.file()
    }

    /// Flushes it and gives it a name, for the time of a commit.
    ///
    /// # Errors
    /// When the name is taken or something cannot be flushed.
    pub fn name(&mut self, name: &std::ffi::OsStr) -> Result<()> {
        self.file.name(name)
    }

    /// The path by which a child of this process opens it.
    pub fn path(&self) -> String {
        self.file.path()
    }

    /// qemu's node for the overlay over the image. What the guest's zeroes and discards free is given back to the
    /// host's filesystem; flushes wait for the commit, because until then the overlay may be lost without harm.
    pub fn node(&self, image: &Image) -> Value {
        match self.copy {
            None => node(&self.path(), &image.node(true)),
            Some(format) => alone(&self.path(), format),
        }
    }
}

/// The same for the file of an overlay and a node of the image below it.
pub(super) fn node(overlay: &str, image: &Value) -> Value {
    let mut node = alone(overlay, Format::Qcow2);
    node["backing"] = image.clone();
    node
}

/// A file of the run by itself.
fn alone(path: &str, format: Format) -> Value {
    let mut node = json!({
        "driver": format.driver(), "discard": "unmap", "detect-zeroes": "unmap",
        "file": { "driver": "file", "filename": path, "discard": "unmap", "cache": { "no-flush": true } },
    });
    if format.may_have_backing() {
        node["backing"] = Value::Null;
    }
    node
}
