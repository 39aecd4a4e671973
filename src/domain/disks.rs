//! Which of a domain's disks belong to the guest, and which formats they have: pure.

#![forbid(unsafe_code)]

use std::path::PathBuf;

use super::definition::{Definition, Disk, Source, Traits};
use crate::error::{Error, Result};
use crate::image::format::Format;

/// A disk of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Its name in the guest, such as `vda`.
    pub target: String,
    /// Its format, as libvirt has it.
    pub format: Format,
    /// Where its image is.
    pub place: Place,
}

/// Where the image of a disk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At this path of the host.
    Path(PathBuf),
    /// In a volume of one of libvirt's pools, which knows the path.
    Volume {
        /// The pool.
        pool: String,
        /// The volume.
        volume: String,
    },
}

/// The disks that are the guest's own, in libvirt's order, and a note on each of the others.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`] for a disk of the guest that cannot be worked on, and when there is none.
pub fn choose(definition: &Definition) -> Result<(Vec<Chosen>, Vec<String>)> {
    let (mut chosen, mut notes) = (Vec::new(), Vec::new());
    for disk in &definition.disks {
        match skipped(disk) {
            Some(reason) => notes.push(format!("the disk {} is left alone: {reason}", disk.target)),
            None => chosen.push(usable(disk)?),
        }
    }
    if chosen.is_empty() {
        let what = format!("the domain {} has no disk of its own that it can write to", definition.name);
        let hint = notes.first().map_or_else(
            || "virsh dumpxml shows its definition; a guest without a disk cannot be sealed".to_owned(),
            |note| format!("{note}; name an image by -a"),
        );
        return Err(Error::unsupported(what).hint(hint));
    }
    Ok((chosen, notes))
}

/// Whether a disk is one of the guest's own, which a clone gets its own copy of.
pub(super) fn is_own(disk: &Disk) -> bool {
    skipped(disk).is_none()
}

/// Why a disk is none that sealing is about.
fn skipped(disk: &Disk) -> Option<&'static str> {
    let Traits { read_only, shareable, removable, .. } = disk.traits;
    match disk.device.as_str() {
        "cdrom" => Some("it is a CD"),
        "floppy" => Some("it is a floppy disk"),
        _ if read_only => Some("the guest can only read it"),
        _ if shareable => Some("it is shared with other guests"),
        _ if removable => Some("it is removable"),
        _ => None,
    }
}

fn usable(disk: &Disk) -> Result<Chosen> {
    let Traits { transient, encrypted, sliced, .. } = disk.traits;
    let refuse = |why: String, hint: &str| {
        Err(Error::unsupported(format!("the disk {} of the domain {why}", disk.target)).hint(hint))
    };
    if encrypted {
        let hint = "guestseal does not open qemu's own encryption: make a plain image of it first";
        return refuse("is encrypted by libvirt".into(), hint);
    }
    if transient {
        let hint = "nothing that is written to it stays: take <transient/> out of its definition";
        return refuse("is transient".into(), hint);
    }
    if sliced {
        let hint = "copy the part into an image of its own, and name that by -a";
        return refuse("is a part (<slices>) of its source".into(), hint);
    }
    let place = match &disk.source {
        Source::File(path) | Source::Block(path) if path.is_absolute() => Place::Path(path.clone()),
        Source::File(path) | Source::Block(path) => {
            let why = format!("has the path {}, which is not absolute", path.display());
            return refuse(why, "name the image by -a");
        }
        Source::Volume { pool, volume } => Place::Volume { pool: pool.clone(), volume: volume.clone() },
        Source::Network { protocol } => {
            let hint = "copy the disk into an image of this host, or attach it as a block device, and name that by -a";
            return refuse(format!("is on a network ({protocol}), which cannot be opened yet"), hint);
        }
        Source::Nothing => return refuse("has no source".into(), "virsh dumpxml shows its definition"),
        Source::Other(kind) => {
            let hint = "copy the disk into an image of this host, and name that by -a";
            return refuse(format!("is of the type {kind}, which guestseal cannot open"), hint);
        }
    };
    Ok(Chosen { target: disk.target.clone(), format: format(disk)?, place })
}

/// libvirt never guesses either: an image whose format it does not say is raw to the guest.
fn format(disk: &Disk) -> Result<Format> {
    let stated = disk.format.as_deref().unwrap_or("raw");
    let formats = [Format::Raw, Format::Qcow2, Format::Vmdk, Format::Vdi, Format::Vhdx];
    formats.into_iter().find(|format| format.driver() == stated).ok_or_else(|| {
        let what = format!(
            "the disk {} of the domain has the format {stated}, which guestseal does not work on",
            disk.target
        );
        Error::unsupported(what).hint(
            "convert it first: qemu-img convert -O qcow2 OLD NEW.qcow2, and change the domain's definition",
        )
    })
}
