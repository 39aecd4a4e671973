//! Swap space in files of the guest: what was in its memory when it ran.

#![forbid(unsafe_code)]

use std::fs::File;
use std::path::Path;

use super::file_place::innermost;
use crate::disk::fstab::{self, Source};
use crate::disk::{Content, probe};
use crate::erase::SwapFile;
use crate::erase::map::swap;
use crate::error::{Context, ErrorKind, Result};
use crate::guest::GuestRoot;
use crate::mount::place::GuestLayout;

/// Finds the swap files that the guest's fstab names. One that is not swap space by its header is left alone.
///
/// # Errors
/// When the guest's files cannot be read, or a file's place on the disk cannot be told.
pub fn swap_files(root: &GuestRoot, layout: &GuestLayout) -> Result<Vec<SwapFile>> {
    let mut found = Vec::new();
    let fstab = fstab::parse(&root.read(Path::new("/etc/fstab"))?.unwrap_or_default());
    for entry in fstab.entries.iter().filter(|entry| entry.is_swap()) {
        let Source::Other(path) = &entry.source else { continue };
        let Some(real) = root.resolve(Path::new(path))? else { continue };
        let Some(file) = root.open_file(&real.path)?.map(File::from) else { continue };
        let length = file.metadata().context(|| format!("cannot examine {path} in the guest"))?.len();
        let content = probe(&mut &file, 0, length).context(|| format!("cannot read {path} in the guest"))?;
        if content.is_none_or(|content| content.content != Content::Swap) {
            continue;
        }
        let place = innermost(layout, &real.path);
        let extents = match swap::file_extents(&file) {
            Ok(swap::Place::Volume(extents)) => Ok(extents),
            // The filesystem has this one device.
            Ok(swap::Place::Devices(mut devices)) => {
                Ok(devices.pop_first().map(|(_, extents)| extents).unwrap_or_default())
            }
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                Err(format!("what is in the swap file {path} stays: {}", error.chain()))
            }
            Err(error) => return Err(error),
        };
        found.push(SwapFile { volume: place.volume, place: extents });
    }
    Ok(found)
}
