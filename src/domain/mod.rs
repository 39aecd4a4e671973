//! Domains of libvirt: whose disks a guest is made of, and whether it has ended. libvirt is asked through virsh and told
//! little: to ask a guest to shut down, to copy its disk while it runs, and to define, start and forget clones. Everything else is pure over what virsh prints.

#![forbid(unsafe_code)]

pub mod connection;
pub mod copy;
pub mod definition;
pub mod deploy;
pub mod disks;
mod job;
mod shutdown;
pub mod state;
mod users;
pub mod virsh;
mod xml;

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::image::format::Format;
use crate::report::{Event, Observer};
use crate::similar::nearest;
use definition::Definition;
use disks::{Chosen, Place, choose};
use state::State;
use virsh::Libvirt;

/// Which domain, for reports and records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// libvirt's URI of the connection.
    pub uri: String,
}

/// A domain and the disks that its guest works on.
#[derive(Debug, Clone)]
pub struct Domain {
    /// Which it is.
    pub identity: Identity,
    /// The disks that are the guest's own, in libvirt's order.
    pub disks: Vec<DomainDisk>,
    /// A note on each disk that is left alone.
    pub notes: Vec<String>,
    libvirt: Libvirt,
    definition: String,
}

/// What is done with a domain that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhileRunning {
    /// It is refused.
    Refuse,
    /// It is asked to shut down, and waited for this long.
    ShutDown(Duration),
    /// It goes on, and a copy of its disk is taken.
    Copy,
}

/// A disk of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainDisk {
    /// Its name in the guest, such as `vda`.
    pub target: String,
    /// Its image.
    pub path: PathBuf,
    /// The format that the guest sees it in.
    pub format: Format,
}

impl Domain {
    /// Finds a domain by its name, UUID or, while it runs, number.
    ///
    /// # Errors
    /// [`ErrorKind::HostLacks`] without virsh; failed when libvirt does not answer; a usage error when there is no such
    /// domain; [`ErrorKind::Unsupported`] when it is on another host or has disks that cannot be worked on.
    pub fn find(libvirt: Libvirt, wanted: &str) -> Result<Self> {
        libvirt.uri.as_deref().map_or(Ok(()), connection::check)?;
        let uri = libvirt.connect()?;
        // It may have been an alias, or libvirt's own choice.
        connection::check(&uri)?;
        let Some(text) = libvirt.definition(wanted)? else { return Err(unknown(&libvirt, wanted)) };
        let definition = definition::parse(&text)?;
        if definition.name != wanted && libvirt.names()?.iter().any(|name| name == wanted) {
            let what = format!("{wanted} is the name of a domain, and the number or UUID of another");
            return Err(
                Error::usage(what).hint("name the domain by its UUID: virsh list --all --uuid --name")
            );
        }
        let (disks, notes) = located(&libvirt, &definition)?;
        let Definition { name, uuid, .. } = definition;
        Ok(Self { identity: Identity { name, uuid, uri }, disks, notes, libvirt, definition: text })
    }

    /// The definition it has when it is started next, as libvirt prints it: without secrets.
    pub fn definition(&self) -> &str {
        &self.definition
    }

    /// What it is doing.
    ///
    /// # Errors
    /// When libvirt does not answer.
    pub fn state(&self) -> Result<State> {
        state::parse(&self.libvirt.ask(&["dominfo"], &[&self.identity.uuid])?)
    }

    /// Sees to it that the guest has ended: it may be asked to shut down and waited for.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] when it has not, with what to do; [`ErrorKind::Stopped`].
    pub fn must_be_off(&self, running: WhileRunning, observer: &mut dyn Observer) -> Result<()> {
        let state = self.state()?;
        match running {
            WhileRunning::ShutDown(patience) if state.can_shut_down() => {
                self.shut_down(&state, patience, observer)?;
            }
            _ => state.must_be_off(&self.identity.name)?,
        }
        self.must_still_be_off()
    }

    /// Asks once more: whoever started or changed the domain meanwhile may not hold the locks that qemu takes.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] when it is not off any more, or has other disks.
    pub fn must_still_be_off(&self) -> Result<()> {
        let name = &self.identity.name;
        self.state()?.must_be_off(name)?;
        let changed = || {
            Error::new(ErrorKind::Busy, format!("the disks of the domain {name} were changed meanwhile"))
                .hint("nothing of this run was written to them; try again")
        };
        let text = self.libvirt.definition(&self.identity.uuid)?.ok_or_else(changed)?;
        match definition::parse(&text).and_then(|definition| located(&self.libvirt, &definition)) {
            Ok((disks, _)) if disks == self.disks => Ok(()),
            Ok(_) => Err(changed()),
            Err(error) if error.kind() == ErrorKind::Unsupported => Err(changed().caused_by(error)),
            Err(error) => Err(error),
        }
    }

    /// What people should know when it is only looked at: its disks may not be as they seem.
    ///
    /// # Errors
    /// When libvirt does not answer.
    pub fn warn_unless_off(&self, observer: &mut dyn Observer) -> Result<()> {
        let state = self.state()?;
        if !state.is_off() {
            let (name, doing) = (&self.identity.name, state.describe());
            observer
                .event(Event::Warning(&format!("the domain {name} is {doing}: what is seen may be moving")));
        }
        Ok(())
    }
}

/// The disks of the guest, with their paths.
fn located(libvirt: &Libvirt, definition: &Definition) -> Result<(Vec<DomainDisk>, Vec<String>)> {
    let (chosen, notes) = choose(definition)?;
    let disk = |Chosen { target, format, place }: Chosen| {
        let path = match place {
            Place::Path(path) => path,
            Place::Volume { pool, volume } => {
                let path = libvirt.volume(&pool, &volume)?;
                if !path.is_absolute() {
                    let what =
                        format!("the disk {target} is the volume {volume} of {pool}, which is on a network");
                    return Err(Error::unsupported(what)
                        .hint("copy the volume into an image of this host, and name that by -a"));
                }
                path
            }
        };
        Ok(DomainDisk { target, path, format })
    };
    Ok((chosen.into_iter().map(disk).collect::<Result<_>>()?, notes))
}

fn unknown(libvirt: &Libvirt, wanted: &str) -> Error {
    let error = Error::usage(format!("there is no domain {wanted:?}"));
    let names = match libvirt.names() {
        Ok(names) => names,
        Err(other) => return error.and_also(other),
    };
    let near = nearest(wanted, names.iter().map(String::as_str));
    let near = near.map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
    error.hint(format!(
        "{near}`virsh list --all` shows them all; -c names another connection, such as qemu:///system"
    ))
}
