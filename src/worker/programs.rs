//! Runs the guest's own programs while the worker waits: in the sandbox, on the mounts that the worker edits. A worker may
//! ask for those that the plan has, once each; what they are told to do is a hostile guest's word as much as the
//! programs themselves, so all that holds them is the sandbox.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result, both};
use crate::inspect::guest::Guest;
use crate::mount::programs::Executable;
use crate::operation::Operation;
use crate::operation::schema::Terms;
use crate::sys::sandbox::{BWRAP, Network, Sandbox};
use crate::sys::tool::Tool;

/// Where a guest's programs would run.
#[derive(Debug)]
pub struct Programs<'a> {
    folder: &'a Path,
    mount_points: Vec<PathBuf>,
    machine: bool,
}

impl<'a> Programs<'a> {
    /// For the guest mounted at `folder`; `machine` says whether this is a virtual machine of its own.
    pub fn new(folder: &'a Path, mount_points: Vec<PathBuf>, machine: bool) -> Self {
        Self { folder, mount_points, machine }
    }

    /// Looks before anything is changed whether what these operations want run can be.
    ///
    /// # Errors
    /// When bubblewrap is missing, or the guest's programs are for other machines.
    pub fn check<'o>(&self, guest: &Guest, operations: impl Iterator<Item = &'o Operation>) -> Result<()> {
        for operation in operations {
            if !operation.actions.iter().any(|action| Terms::of(action).is_some()) {
                continue;
            }
            Self::can_run(guest)
                .map_err(|error| error.within(format!("the operation {} cannot run", operation.name)))?;
        }
        Ok(())
    }

    fn can_run(guest: &Guest) -> Result<()> {
        Tool::find(BWRAP)?;
        let own = std::env::consts::ARCH;
        match guest.architecture.as_deref() {
            Some(other) if other == own || (other, own) == ("i686", "x86_64") => Ok(()),
            other => {
                let other = other.unwrap_or("an unknown machine");
                let what = format!("the guest's programs are for {other}, and this is {own}");
                Err(Error::new(ErrorKind::Unsupported, what))
            }
        }
    }

    /// Runs one script and hands out what it prints.
    ///
    /// # Errors
    /// When it cannot be run, fails or takes too long.
    pub fn run(&self, script: &str, terms: &Terms, said: &mut dyn FnMut(&str)) -> Result<()> {
        let executable = Executable::allow(self.folder, &self.mount_points)?;
        let patience = Duration::from_secs(terms.seconds.into());
        let network = match (terms.network, self.machine) {
            (false, _) => None,
            (true, false) => Some(Network::of_host()?),
            (true, true) => Some(Network::of_machine()),
        };
        let sandbox = Sandbox { root: self.folder, network: network.as_ref(), patience };
        let ran = sandbox.run(script, said).map_err(|error| {
            let error = error.within("a program of the guest failed");
            if terms.network {
                error
            } else {
                error.hint("if it needs the network, give it that: --network, or `network = true`")
            }
        });
        both(ran, executable.close())
    }
}
