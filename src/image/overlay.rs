//! The working overlay: a qcow2 file over the image that takes all writes of the run. It has no name, so that nothing
//! is left of it when the run is killed; only the commit gives it one.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::identity::Identity;
use super::info::Image;
use super::nameless::NamelessFile;
use super::qcow2;
use crate::error::{Context, Error, Result};

/// The overlay of one run.
#[derive(Debug)]
pub struct Overlay {
    file: NamelessFile,
}

impl Overlay {
    /// Makes an empty overlay over `image` in `folder`.
    ///
    /// # Errors
    /// When the folder cannot be written, or the disk is too large.
    pub fn make(image: &Image, folder: &Path) -> Result<Self> {
        let failed = || format!("cannot make a working overlay in {}", folder.display());
        let name = image.path.to_str().ok_or_else(|| {
            Error::unsupported(format!(
                "the path {} is no UTF-8, which qemu cannot take",
                image.path.display()
            ))
        })?;
        let file = NamelessFile::make(folder, 0o600)?;
        let mut bytes = file.file();
        qcow2::write_overlay(
            &mut bytes,
            image.virtual_bytes.next_multiple_of(512),
            name,
            image.format.driver(),
            Identity::of(image.lock.file())?.inode,
        )
        .and_then(|()| bytes.flush().context(failed))?;
        Ok(Self { file })
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
        node(&self.path(), &image.node(true))
    }
}

/// The same for the file of an overlay and a node of the image below it.
pub(super) fn node(overlay: &str, image: &Value) -> Value {
    json!({
        "driver": "qcow2", "discard": "unmap", "detect-zeroes": "unmap",
        "file": {
            "driver": "file", "filename": overlay, "discard": "unmap", "cache": { "no-flush": true },
        },
        "backing": image,
    })
}
