//! The backing files of a thin image. An image can name any file of the host: they are opened only when the user says so,
//! with the format that the image states and none that is guessed, read-only, locked, and checked as the image is.

#![forbid(unsafe_code)]

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::commit::refuse_interrupted;
use super::format::{Format, HEAD_BYTES};
use super::identity::Identity;
use super::info::{check_qcow2, node};
use super::lock::{LockedImage, Use};
use super::nameless::folder_of;
use super::past::Past;
use super::place::Place;
use super::qcow2::Header;
use super::vmdk;
use crate::error::{Context, Error, ErrorKind, Result};

/// The most files below one another.
const DEPTH: usize = 16;
const CONVERT: &str =
    "write one whole image first, where you trust it: qemu-img convert -O qcow2 OLD NEW.qcow2";

/// The files below an image, the nearest first.
#[derive(Debug, Default)]
pub struct Chain {
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    path: PathBuf,
    format: Format,
    lock: LockedImage,
}

impl Chain {
    /// Opens, locks and checks what lies below an image with this header.
    ///
    /// # Errors
    /// When one is missing, busy, damaged, of a format that is not stated, not a file of this host, or there again.
    pub(super) fn open(image: &Path, lock: &LockedImage, header: &Header) -> Result<Self> {
        let mut chain = Self::default();
        let mut seen = vec![Identity::of(lock.file())?];
        let mut next = named(image, header)?;
        while let Some((path, format)) = next {
            let about =
                |error: Error| error.within(format!("cannot use the backing file {}", path.display()));
            if chain.layers.len() >= DEPTH {
                return Err(about(Error::unsupported(format!(
                    "there are more than {DEPTH} below one another"
                ))));
            }
            let (layer, header) = Layer::open(&path, format, &seen).map_err(about)?;
            seen.push(Identity::of(layer.lock.file())?);
            next = header.map_or(Ok(None), |header| named(&layer.path, &header)).map_err(about)?;
            chain.layers.push(layer);
        }
        Ok(chain)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// qemu's node for all of it; null when there is none.
    pub(super) fn node(&self) -> Value {
        self.layers.iter().rev().fold(Value::Null, |below, layer| {
            let mut node = node(layer.lock.file(), &layer.path, layer.format, true, true);
            if layer.format.may_have_backing() {
                node["backing"] = below;
            }
            node
        })
    }

    /// The names of the files, without the folders of this host.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.layers
            .iter()
            .map(|layer| layer.path.file_name().unwrap_or_default().to_string_lossy().into_owned())
    }
}

/// The backing file that a header names, with its format. Relative names are meant from the image's own folder.
fn named(image: &Path, header: &Header) -> Result<Option<(PathBuf, Format)>> {
    let Some(name) = &header.backing_file else { return Ok(None) };
    let refuse = |what: String| Err(Error::unsupported(what).hint(CONVERT));
    // As qemu tells names of protocols from paths.
    let first = name.split('/').next().unwrap_or_default();
    if first.contains(':') || name.is_empty() || name.contains('\0') {
        return refuse(format!("the backing file {name:?} is no file of this host"));
    }
    let Some(stated) = &header.backing_format else {
        let what = format!("the image does not say what format its backing file {name:?} has");
        return Err(Error::unsupported(what).hint("say it: qemu-img rebase -u -b FILE -F FORMAT IMAGE"));
    };
    let formats = [Format::Qcow2, Format::Raw, Format::Vmdk, Format::Vdi, Format::Vhdx];
    match formats.into_iter().find(|format| format.driver() == stated) {
        Some(format) => Ok(Some((folder_of(image).join(name), format))),
        None => refuse(format!("the backing file {name:?} is of the format {stated:?}")),
    }
}

impl Layer {
    /// Opens and checks one; with its header when that may name another.
    fn open(path: &Path, format: Format, seen: &[Identity]) -> Result<(Self, Option<Header>)> {
        let path = path.canonicalize().context_kind(ErrorKind::Unsupported, || "it is not there")?;
        // Before it is locked: by ourselves it would seem to be in use.
        let identity = Identity::by(&path.metadata().context(|| "it cannot be examined")?)?;
        if seen.iter().any(|other| other.is(&identity)) {
            return Err(Error::unsupported("it lies below itself"));
        }
        let lock = LockedImage::open(&path, Use::Read).map_err(|error| match error.kind() {
            ErrorKind::Usage => Error::unsupported("it is no file of a disk").caused_by(error),
            _ => error,
        })?;
        refuse_interrupted(&Place::find(path.as_path().into())?)?;
        let header = match format {
            // Only read: what snapshots it has is no matter of the image above it.
            Format::Qcow2 => {
                let past = Past { drop_snapshots: true, allow_backing: true, ..Past::default() };
                Some(check_qcow2(lock.file(), false, past)?)
            }
            Format::Vmdk => {
                let mut head = Vec::new();
                lock.file().take(HEAD_BYTES as u64).read_to_end(&mut head).context(|| "it cannot be read")?;
                vmdk::check(lock.file(), &head, false)?;
                None
            }
            Format::Raw | Format::Vdi | Format::Vhdx => None,
        };
        Ok((Self { path, format, lock }, header))
    }
}
