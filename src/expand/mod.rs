//! `--expand`: the disk that the guest sees gets longer, and the partition, the layers and the filesystem on it with it.
//! The length is that of the working overlay, so all of it is undone on failure; the commit makes the image grow.

#![forbid(unsafe_code)]

mod filesystem;
mod size;
mod steps;
mod target;

use std::os::unix::fs::FileTypeExt;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::image::format::Format;
use crate::image::info::Image;
pub use size::Size;
pub use steps::{Layers, NoLayers, Request, expand};
pub use target::Target;

/// Which size the first disk of a guest is to have, and what is to fill it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expand {
    /// The size.
    pub size: Size,
    /// The volume that grows, as the guest names it or its mount point; none for the root.
    pub volume: Option<String>,
    /// Whether the image itself grows: a new file takes any size.
    pub grows_image: bool,
}

/// The size that a disk has and the one that it gets, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Growth {
    /// Before.
    pub from: u64,
    /// After; never less.
    pub to: u64,
}

/// What grew, or would.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Expanded {
    /// The length of the disk before, in bytes.
    pub from: u64,
    /// And after.
    pub to: u64,
    /// The volume that grew: "partition 2".
    pub volume: String,
    /// The filesystem on it.
    pub filesystem: String,
    /// The length of that before, in bytes; none where it is on several devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem_bytes_before: Option<u64>,
    /// And after; none also where it was only looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem_bytes_after: Option<u64>,
}

impl Expand {
    /// The sizes of an image that is open, before and after.
    ///
    /// # Errors
    /// Usage when it would shrink; unsupported when the image cannot get longer.
    pub fn growth(&self, image: &Image) -> Result<Growth> {
        let from = image.virtual_bytes.next_multiple_of(512);
        let path = image.path.display();
        let to =
            self.size.after(from).ok_or_else(|| Error::usage("--expand names more than a disk can have"))?;
        if to < from {
            return Err(Error::usage(format!("--expand would shrink {path} from {from} bytes to {to}")).hint(
                "name a size that is not less, or what is to be added, such as +5G; guestseal shrinks nothing",
            ));
        }
        let growth = Growth { from, to };
        if to == from || !self.grows_image {
            return Ok(growth);
        }
        let metadata = image.lock.file().metadata().context(|| format!("cannot examine {path}"))?;
        if metadata.file_type().is_block_device() {
            return Err(Error::unsupported(format!(
                "{path} is a block device, which does not grow by itself"
            ))
            .hint("make it longer first, then fill it: --expand +0"));
        }
        match image.format {
            Format::Raw | Format::Qcow2 => Ok(growth),
            format => Err(Error::unsupported(format!(
                "an image of the format {} cannot be made longer, and {path} is one",
                format.driver()
            ))
            .hint("write the result to a new file: --output NEW --output-format qcow2")),
        }
    }
}
