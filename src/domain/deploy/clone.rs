//! The definition of a clone.

use std::path::PathBuf;

use roxmltree::Node;

use super::super::definition::{self, devices, is_uuid};
use super::super::disks::is_own;
use super::super::xml::{Edits, NODES, attribute, child, children, document, domain, escaped};
use super::template::{empty_nvram, template};
use crate::error::{Error, Result};
use crate::image::format::Format;

/// What a clone has of its own.
#[derive(Debug, Clone)]
pub struct CloneOf {
    /// Its name.
    pub name: String,
    /// Its UUID, such as [`crate::uuids::random`] makes.
    pub uuid: String,
    /// An address for each interface, see [`super::fresh_macs`].
    pub macs: Vec<String>,
    /// The images of its disks: one for each of [`super::own_disks`], in any order.
    pub disks: Vec<CloneDisk>,
    /// Its copy of the firmware's variables; without one libvirt makes the file, from the firmware's own template.
    pub nvram: Option<PathBuf>,
}

/// The image of one disk.
#[derive(Debug, Clone)]
pub struct CloneDisk {
    /// The disk's name in the guest, such as `vda`.
    pub target: String,
    /// Its file.
    pub path: PathBuf,
    /// The file's format.
    pub format: Format,
}

/// The definition of a clone of a template. Its disks are files, whatever the template has; CDs and shared disks stay, and
/// files that a serial console is written to get the clone's name before theirs.
///
/// # Errors
/// A usage error for a name, path or UUID that libvirt does not take; failed when addresses or disks are not those that the
/// template has; [`crate::ErrorKind::Unsupported`] when that is no definition.
pub fn for_clone(template_xml: &str, clone: &CloneOf) -> Result<String> {
    // A template that people have written, or changed, is cleaned as well.
    let text = template(template_xml)?;
    let document = document(&text, NODES)?;
    let domain = domain(&document)?;
    let mut edits = Edits::new(&text);
    identity(domain, clone, &mut edits)?;
    if let (Some(path), Some(os)) = (&clone.nvram, child(domain, "os")?) {
        let nvram = child(os, "nvram")?.ok_or_else(|| {
            Error::failed("the template's firmware keeps no variables, and a file for them is given")
        })?;
        let path = format!(">{}</nvram>", escaped(text_of(path)?)?);
        edits.replace(nvram, empty_nvram(nvram, &path)?);
    }
    let devices = devices(domain)?;
    let of_type = |name| devices.into_iter().flat_map(move |devices| children(devices, name));
    let interfaces: Vec<_> = of_type("interface").collect();
    if interfaces.len() != clone.macs.len() {
        let (there, given) = (interfaces.len(), clone.macs.len());
        return Err(Error::failed(format!(
            "the template has {there} interfaces, and {given} addresses are given"
        )));
    }
    for (interface, mac) in interfaces.into_iter().zip(&clone.macs) {
        let mac = format!("<mac address='{}'/>", escaped(mac)?);
        edits.first_in(interface, &mac);
    }
    let mut left: Vec<&CloneDisk> = clone.disks.iter().collect();
    for disk in of_type("disk") {
        let known = definition::disk(disk)?;
        if !is_own(&known) {
            continue;
        }
        let place = left.iter().position(|image| image.target == known.target).ok_or_else(|| {
            Error::failed(format!("there is no image for the disk {} of the template", known.target))
        })?;
        with_image(disk, left.remove(place), &mut edits)?;
    }
    if let Some(image) = left.first() {
        return Err(Error::failed(format!("the template has no disk {}", image.target)));
    }
    for device in ["serial", "console", "parallel"].into_iter().flat_map(of_type) {
        written_files(device, &clone.name, &mut edits)?;
    }
    Ok(edits.apply())
}

fn identity(domain: Node<'_, '_>, clone: &CloneOf, edits: &mut Edits<'_>) -> Result<()> {
    let CloneOf { name, uuid, .. } = clone;
    // libvirt's rules: files are named after it.
    if name.trim().is_empty() || name.contains('/') || matches!(name.as_str(), "." | "..") {
        return Err(Error::usage(format!("{name:?} cannot be the name of a domain"))
            .hint("a name is not empty, and has no slash"));
    }
    if !is_uuid(uuid) {
        return Err(Error::usage(format!("{uuid:?} is no UUID")));
    }
    let named = child(domain, "name")?.ok_or_else(|| super::super::xml::malformed("it has no name"))?;
    edits.before(named, &format!("<name>{}</name>", escaped(name)?));
    edits.replace(named, format!("<uuid>{uuid}</uuid>"));
    Ok(())
}

/// Gives a disk of the guest another image.
fn with_image(disk: Node<'_, '_>, image: &CloneDisk, edits: &mut Edits<'_>) -> Result<()> {
    if !image.path.is_absolute() {
        return Err(Error::failed(format!("the path {} is not absolute", image.path.display())));
    }
    edits.set(disk, "type", "file");
    // Only a block device passes SCSI commands on.
    if attribute(disk, "device") == Some("lun") {
        edits.set(disk, "device", "disk");
    }
    ["sgio", "rawio"].iter().for_each(|of_lun| edits.without(disk, of_lun));
    let format = image.format.driver();
    match child(disk, "driver")? {
        Some(driver) => {
            edits.set(driver, "type", format);
            // Of Xen's drivers this one alone knows files of all formats.
            if attribute(driver, "name").is_some_and(|name| name != "qemu") {
                edits.set(driver, "name", "qemu");
            }
            if image.format != Format::Qcow2 {
                children(driver, "metadata_cache").for_each(|of_qcow2| edits.remove(of_qcow2));
            }
        }
        None => edits.first_in(disk, &format!("<driver name='qemu' type='{format}'/>")),
    }
    // What opened the old source.
    ["auth", "encryption"]
        .into_iter()
        .flat_map(|name| children(disk, name))
        .for_each(|node| edits.remove(node));
    let source = format!("<source file='{}'/>", escaped(text_of(&image.path)?)?);
    match child(disk, "source")? {
        Some(old) => edits.replace(old, source),
        None => edits.first_in(disk, &source),
    }
    Ok(())
}

/// No two machines write into one file.
fn written_files(device: Node<'_, '_>, name: &str, edits: &mut Edits<'_>) -> Result<()> {
    if attribute(device, "type") != Some("file") {
        return Ok(());
    }
    let Some(source) = child(device, "source")? else { return Ok(()) };
    let path = attribute(source, "path").unwrap_or_default();
    let (folder, file) =
        path.rsplit_once('/').map_or(("", path), |(folder, file)| (&path[..=folder.len()], file));
    edits.set(source, "path", &escaped(&format!("{folder}{name}-{file}"))?);
    Ok(())
}

fn text_of(path: &std::path::Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::usage(format!("the path {} is no UTF-8, which libvirt's XML is", path.display()))
    })
}
