//! `--work-dir`: where guestseal keeps what belongs to an image that is no file.

use std::path::PathBuf;

use clap::Args;

/// Where what belongs to images is kept.
#[derive(Debug, Clone, Default, Args)]
pub struct PlaceArgs {
    /// Keep overlay, journal and record of a block device in a folder of its own in this one; /var/lib/guestseal/devices
    /// when left out.
    #[arg(long, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
}

/// The options of `recover`.
#[derive(Debug, Clone, Args)]
pub struct RecoverArgs {
    /// The images.
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// Where what belongs to them is kept.
    #[command(flatten)]
    pub place: PlaceArgs,
}
