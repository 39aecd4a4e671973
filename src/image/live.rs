//! Which bytes of a run's files make up the disk that it leaves: those of the image that the overlay does not replace,
//! and those of the overlay.

#![forbid(unsafe_code)]

use std::fs::File;

use super::format::Format;
use super::info::Image;
use super::overlay::Overlay;
use super::qcow2_geometry::{Geometry, Place};
use crate::attach::data::gather;
use crate::erase::extent::{Extent, Extents};
use crate::error::{Context, Result};
use crate::sys::holes::next_data;

/// The disk's bytes in the files themselves.
#[derive(Debug, Default)]
pub struct Live {
    /// In the image file.
    pub image: Extents,
    /// In the overlay's.
    pub overlay: Extents,
}

/// Where the disk's bytes are in the files of a run. None where only qemu can tell, where they are compressed,
/// and where some are in backing files.
///
/// # Errors
/// When a file cannot be read.
pub fn live(image: &Image, overlay: Option<&Overlay>) -> Result<Option<Live>> {
    if !image.chain.is_empty() || overlay.is_some_and(Overlay::is_copy) {
        return Ok(None);
    }
    let (overlay, replaced) = match overlay {
        None => (Extents::default(), Extents::default()),
        Some(overlay) => in_overlay(overlay.file())?,
    };
    let image = match image.format {
        Format::Raw => Some(replaced.gaps(0, image.virtual_bytes)),
        Format::Qcow2 => in_qcow2(image.lock.file(), &replaced)?,
        Format::Vmdk | Format::Vdi | Format::Vhdx => None,
    };
    Ok(image.map(|image| Live { image, overlay }))
}

/// The files behind a disk while it is worked on elsewhere.
#[derive(Debug)]
pub struct DiskFiles {
    image: File,
    format: Format,
    bytes: u64,
    overlay: Option<File>,
}

impl DiskFiles {
    /// Those of an image and its overlay. None where qemu alone knows what they hold.
    ///
    /// # Errors
    /// When a file cannot be kept open.
    pub fn of(image: &Image, overlay: Option<&Overlay>) -> Result<Option<Self>> {
        let elsewhere = !image.chain.is_empty() || overlay.is_some_and(Overlay::is_copy);
        if elsewhere || !matches!(image.format, Format::Raw | Format::Qcow2) {
            return Ok(None);
        }
        let keep = |file: &File| file.try_clone().context(|| "cannot keep the image open");
        let overlay = overlay.map(|overlay| keep(overlay.file())).transpose()?;
        let image_file = keep(image.lock.file())?;
        Ok(Some(Self { image: image_file, format: image.format, bytes: image.virtual_bytes, overlay }))
    }

    /// What of the disk may hold data other than zeros, as far as it was flushed.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn data(&self) -> Result<Extents> {
        let (own, replaced) = self.overlay.as_ref().map(with_clusters).transpose()?.unwrap_or_default();
        let base = match self.format {
            Format::Qcow2 => with_clusters(&self.image)?.0,
            _ => raw_data(&self.image, self.bytes)?,
        };
        Extents::new(own.iter().chain(base.without(&replaced).iter()))
    }
}

fn raw_data(file: &File, bytes: u64) -> Result<Extents> {
    let cannot = || "cannot tell where the image has data";
    gather(Extent { start: 0, length: bytes }, |from, end| next_data(file, from, end).context(cannot))
}

/// The clusters of the disk that a qcow2 file has data for, and all that it says something about.
fn with_clusters(mut file: &File) -> Result<(Extents, Extents)> {
    let geometry = Geometry::read(&mut file)?;
    let (mut own, mut named) = (Vec::new(), Vec::new());
    geometry.visit(&mut file, |disk, place| {
        let cluster = Extent { start: disk, length: geometry.cluster() };
        match place {
            Place::Table { .. } => return Ok(()),
            Place::Cluster { live: 0, .. } | Place::Zeros => {}
            Place::Cluster { .. } | Place::Compressed { .. } => own.push(cluster),
        }
        named.push(cluster);
        Ok(())
    })?;
    Ok((Extents::new(own)?, Extents::new(named)?))
}

/// The bytes of the overlay's file, and those of the disk that it has its own for.
fn in_overlay(mut file: &File) -> Result<(Extents, Extents)> {
    let geometry = Geometry::read(&mut file)?;
    let (mut own, mut replaced) = (Vec::new(), Vec::new());
    geometry.visit(&mut file, |disk, place| {
        if let Place::Cluster { at, .. } = place {
            own.push(Extent { start: at, length: geometry.cluster() });
        }
        if !matches!(place, Place::Table { .. }) {
            replaced.push(Extent { start: disk, length: geometry.cluster() });
        }
        Ok(())
    })?;
    Ok((Extents::new(own)?, Extents::new(replaced)?))
}

/// None when some of it is compressed.
fn in_qcow2(mut file: &File, replaced: &Extents) -> Result<Option<Extents>> {
    let geometry = Geometry::read(&mut file)?;
    let (mut own, mut compressed) = (Vec::new(), false);
    geometry.visit(&mut file, |disk, place| {
        match place {
            Place::Cluster { at, live } if live != 0 => {
                let kept = replaced.gaps(disk, disk.saturating_add(geometry.cluster()));
                own.extend(kept.iter().map(|kept| Extent { start: at + (kept.start - disk), ..kept }));
            }
            Place::Compressed { .. } => compressed = true,
            _ => {}
        }
        Ok(())
    })?;
    Ok(if compressed { None } else { Some(Extents::new(own)?) })
}
