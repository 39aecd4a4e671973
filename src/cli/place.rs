//! `--work-dir`: where guestseal keeps what belongs to an image that is no file.

use std::path::PathBuf;

use clap::Args;

use crate::image::place::Surroundings;

/// Where what belongs to images is kept.
#[derive(Debug, Clone, Default, Args)]
pub struct PlaceArgs {
    /// Keep overlay, journal and record of a block device in a folder of its own in this one; /var/lib/guestseal/devices
    /// when left out.
    #[arg(long, value_name = "DIR")]
    pub work_dir: Option<PathBuf>,
}

/// Where the agent with the user's keys for ssh is.
const AGENT: &str = "SSH_AUTH_SOCK";

impl PlaceArgs {
    /// With what is known of the user besides.
    pub fn surroundings(&self) -> Surroundings {
        #[expect(clippy::disallowed_methods, reason = "the environment is read in cli and nowhere else")]
        let agent = std::env::var(AGENT).ok();
        let environment = agent.into_iter().map(|agent| (AGENT.to_owned(), agent)).collect();
        Surroundings { work_dir: self.work_dir.clone(), environment }
    }
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
