//! The definitions that machines are deployed by: the copy of a domain's definition that is a template, and that of a clone.
//! Pure over text. What is not said here to change stays as it was, byte for byte. Facts from
//! <https://libvirt.org/formatdomain.html>.

#![forbid(unsafe_code)]

mod clone;
mod mac;
mod shared;
mod template;

use std::path::PathBuf;

use super::definition::{self, Source};
use super::disks::is_own;
use super::xml::{NODES, children, document, domain};
use crate::error::Result;
pub use clone::{CloneDisk, CloneOf, for_clone};
pub use mac::fresh_macs;
pub use shared::shared;
pub use template::{nvram, template};

/// The names (`vda`) of the disks that a clone must have images for, in the definition's order, each with its path where it
/// has one: CDs and disks that are only read or shared are not among them.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`] when it is no definition.
pub fn own_disks(xml: &str) -> Result<Vec<(String, Option<PathBuf>)>> {
    let document = document(xml, NODES)?;
    let devices = definition::devices(domain(&document)?)?;
    let disks = devices.into_iter().flat_map(|devices| children(devices, "disk")).map(definition::disk);
    let disks = disks.collect::<Result<Vec<_>>>()?;
    let path = |source| match source {
        Source::File(path) | Source::Block(path) => Some(path),
        _ => None,
    };
    Ok(disks.into_iter().filter(is_own).map(|disk| (disk.target, path(disk.source))).collect())
}

#[cfg(test)]
mod tests;
