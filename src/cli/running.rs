//! What the command line says of a domain that has not ended.

use std::time::Duration;

use clap::Args;

use super::args::SealArgs;
use super::virt::Called;
use crate::domain::WhileRunning;
use crate::error::{Error, Result};

/// The options.
#[derive(Debug, Clone, Default, Args)]
pub struct RunningArgs {
    /// Ask the domain to shut down when it runs, and wait for it; its plug is never pulled.
    #[arg(long)]
    pub shutdown: bool,
    /// How long to wait for that.
    #[arg(long, value_name = "SECONDS", requires = "shutdown", default_value = "300",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub shutdown_timeout: u32,
    /// Leave the domain running, and seal a copy of its disk, taken at one point in time, to --output.
    #[arg(long, conflicts_with_all = ["shutdown", "rehearse"])]
    pub no_shutdown: bool,
    /// Whether it is known already where the copy goes.
    #[arg(skip)]
    pub has_place: bool,
}

impl RunningArgs {
    /// What is done with a domain that runs.
    ///
    /// # Errors
    /// Usage errors.
    pub(super) fn decide(&self, args: &SealArgs) -> Result<WhileRunning> {
        let named = !args.domain.domain.is_empty();
        for (given, option) in [(self.shutdown, "--shutdown"), (self.no_shutdown, "--no-shutdown")] {
            if given && !named {
                return Err(Error::usage(format!(
                    "{option} is about a domain of libvirt, and none is named"
                ))
                .hint("name it: -d NAME, in place of its images"));
            }
        }
        if self.no_shutdown && args.output.is_none() && !args.dry_run && !self.has_place {
            return Err(Error::usage("--no-shutdown seals a copy, and nothing says where that is to be")
                .hint("name the new file: --output NEW"));
        }
        // virt-sysprep takes it without -d too, where it means nothing.
        if args.domain.connect.is_some() && !named && args.called == Called::Guestseal {
            return Err(Error::usage("-c says where a domain is, and none is named").hint("name it: -d NAME"));
        }
        Ok(match self {
            Self { shutdown: true, shutdown_timeout, .. } => {
                WhileRunning::ShutDown(Duration::from_secs((*shutdown_timeout).into()))
            }
            Self { no_shutdown: true, .. } => WhileRunning::Copy,
            _ => WhileRunning::Refuse,
        })
    }
}
