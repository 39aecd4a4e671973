//! Where a guest is worked on: mounted on this host, or in a virtual machine of its own. The steps are the same.

#![forbid(unsafe_code)]

use std::fmt;

use serde::{Serialize, Serializer};

use crate::apply::Mode;
use crate::attach::{ImageSpec, Way};
use crate::disk::Storage;
use crate::erase::report::Erasure;
use crate::erase::{SwapFile, erase};
use crate::error::{Error, Result, both, both_values};
use crate::expand::{Expanded, NoLayers, Request, expand};
use crate::fault::{self, Point};
use crate::isolate::host::{MachineSession, Prepared};
use crate::isolate::protocol::{Finish, Opened};
use crate::isolate::{Isolation, WAY};
use crate::mount::damage::explain;
use crate::mount::options::Access;
use crate::plan::Planned;
use crate::repair::Repair;
use crate::report::{Event, Observer, Stage};
use crate::session::{Attachment, Handling, Inspection, Session};
use crate::uuids::decide::Volumes;
use crate::uuids::{self, Kind};
use crate::worker::conversation::Edited;
use crate::worker::parent::edit;

/// How a guest's disks were attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// To this host.
    Host(Way),
    /// To a machine of its own.
    Machine,
}

impl Means {
    /// Its name: nbd, fuse, loop or vm.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host(way) => way.name(),
            Self::Machine => WAY,
        }
    }
}

impl fmt::Display for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Means {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The way an image was attached.
#[derive(Debug, Clone, Serialize)]
pub struct Attached {
    /// nbd, fuse, loop or vm.
    #[serde(rename = "way")]
    pub means: Means,
    /// Why this one.
    pub reason: String,
}

/// A guest that is mounted somewhere.
#[derive(Debug)]
pub struct Site {
    place: Place,
    /// How it was attached.
    pub attached: Attached,
    /// What grew, or would, where that was asked for.
    pub expanded: Option<Expanded>,
}

#[derive(Debug)]
enum Place {
    Host(Session),
    Machine(MachineSession),
}

/// What was asked for, and how and why this host would attach an image.
pub type How<'a> = (&'a Isolation, Option<Way>, (Way, &'a str));

/// Where a guest's disks are, of which nothing is mounted yet.
#[derive(Debug)]
pub enum Where {
    /// On this host.
    Host {
        /// The disks.
        attachment: Attachment,
        /// What is on them.
        storage: Storage,
    },
    /// In a machine of their own.
    Machine {
        /// It.
        machine: Prepared,
        /// Why there.
        reason: String,
    },
}

impl Where {
    /// Attaches disks where they can be worked on.
    ///
    /// # Errors
    /// When neither the host nor a machine can.
    pub fn of(
        specs: &[ImageSpec],
        (isolation, attach, (way, reason)): How<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        if let Some(reason) = isolation.from_the_start(attach.is_some()) {
            return Self::machine(specs, isolation, reason.to_owned(), observer);
        }
        observer.event(Event::Stage(Stage::Attaching));
        let attachment = Attachment::open(specs, way)?;
        observer.event(Event::Attached { way: way.name(), reason });
        let storage = match attachment.storage() {
            Ok(storage) => storage,
            Err(error) => return attachment.close_after(Err(error)),
        };
        match isolation.for_storage(&storage).filter(|_| attach.is_none()) {
            None => Ok(Self::Host { attachment, storage }),
            Some(reason) => {
                attachment.close_after(Ok(()))?;
                Self::machine(specs, isolation, reason, observer)
            }
        }
    }

    /// Has the guest take more room, or only says what would grow.
    ///
    /// # Errors
    /// Unsupported for what cannot grow.
    fn expanded(
        self,
        request: Request,
        isolation: &Isolation,
        observer: &mut dyn Observer,
    ) -> Result<(Self, Expanded)> {
        match self {
            Self::Host { attachment, .. } => {
                let grown = expand(&attachment, &request, &mut NoLayers, observer)
                    .and_then(|(expanded, _)| Ok((expanded, attachment.storage()?)));
                match grown {
                    Ok((expanded, storage)) => Ok((Self::Host { attachment, storage }, expanded)),
                    Err(error) => attachment.close_after(Err(explain(error))),
                }
            }
            Self::Machine { machine, reason } => {
                let again = isolation.prepare(false, Vec::new());
                let (machine, expanded) = machine.expanded(request, again, observer)?;
                Ok((Self::Machine { machine, reason }, expanded))
            }
        }
    }

    fn machine(
        specs: &[ImageSpec],
        isolation: &Isolation,
        reason: String,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let machine = isolation.start(specs, &reason, observer)?;
        Ok(Self::Machine { machine, reason })
    }
}

/// What is left of a guest that was worked on.
#[derive(Debug)]
pub struct Finished {
    /// What was found out.
    pub inspection: Inspection,
    /// Filesystems that were repaired.
    pub repairs: Vec<Repair>,
    /// What was erased, and what the proof found where it was made.
    pub erasure: Erasure,
    /// Where the guest's swap files are, as far as they are to be proven on this host.
    pub swap_files: Vec<SwapFile>,
    /// Whether the proof that was asked for is made already.
    pub proven: bool,
}

impl Site {
    /// Attaches and mounts a guest, which has grown before where that is asked for.
    ///
    /// # Errors
    /// When the host, or the machine, cannot, or the guest is not one that guestseal understands.
    pub fn open(
        specs: &[ImageSpec],
        how: How<'_>,
        (handling, grows): (Handling, Option<Request>),
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let (isolation, _, (way, reason)) = how;
        let mut place = Where::of(specs, how, observer)?;
        let mut expanded = None;
        if let Some(request) = grows {
            let (grown, told) = place.expanded(request, isolation, observer)?;
            (place, expanded) = (grown, Some(told));
        }
        match place {
            Where::Host { attachment, storage } => {
                let session = Session::open(attachment, storage, &handling, observer)?;
                let attached = Attached { means: Means::Host(way), reason: reason.to_owned() };
                Ok(Self { place: Place::Host(session), attached, expanded })
            }
            Where::Machine { machine, reason } => {
                let session = MachineSession::open(machine, handling, observer)?;
                let attached = Attached { means: Means::Machine, reason };
                Ok(Self { place: Place::Machine(session), attached, expanded })
            }
        }
    }

    fn inspection(&self) -> &Inspection {
        match &self.place {
            Place::Host(session) => &session.inspection,
            Place::Machine(session) => &session.opened.inspection,
        }
    }

    /// Decides which UUIDs the operations replace, if any does; volumes below others get them now.
    ///
    /// # Errors
    /// When the guest would not boot with others, or this host lacks a tool: before anything is changed.
    pub fn with_new_uuids(
        self,
        operations: &mut [Planned],
        (isolation, handling): (&Isolation, Handling),
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let wanted = uuids::wanted(operations);
        if wanted.is_empty() {
            return Ok(self);
        }
        if let Err(error) = self.check_new_uuids(&wanted, &handling) {
            return both(Err(error), self.abandon());
        }
        let below: Vec<Kind> = wanted.into_iter().filter(|kind| kind.is_below()).collect();
        let looks = handling.access == Access::Look;
        let several = handling.root.is_some();
        let Self { place, attached, expanded } = self;
        let (place, given) = match place {
            Place::Machine(session) if !looks && !below.is_empty() => {
                let prepare = isolation.prepare(false, below);
                let (session, given) = session.reopened(prepare, handling, observer)?;
                (Place::Machine(session), given)
            }
            place => (place, Vec::new()),
        };
        let site = Self { place, attached, expanded };
        let Inspection { storage, layout, .. } = site.inspection();
        let volumes = Volumes { storage, layout, several };
        let given = (!looks).then_some(given.as_slice());
        let decided = volumes.decide(operations, given, observer).and_then(|()| {
            let all = operations.iter().flat_map(|planned| planned.settings.uuids.iter().flatten());
            uuids::device::check_tools(storage, &all.cloned().collect::<Vec<_>>())
        });
        match decided {
            Ok(()) => Ok(site),
            Err(error) => both(Err(error), site.abandon()),
        }
    }

    fn check_new_uuids(&self, wanted: &[Kind], handling: &Handling) -> Result<()> {
        let Inspection { storage, layout, .. } = self.inspection();
        let volumes = Volumes { storage, layout, several: handling.root.is_some() };
        let here = matches!(self.place, Place::Host(_));
        if here && wanted.iter().any(|kind| kind.is_below() && volumes.has(*kind)) {
            return Err(Error::unsupported("UUIDs of LVM and RAID are replaced in a virtual machine only")
                .hint("seal with --isolate auto or vm, and without --attach"));
        }
        if here && wanted.contains(&Kind::Filesystems) && volumes.has_several_devices() {
            return Err(Error::unsupported(
                "a btrfs on several devices gets a new UUID in a virtual machine only",
            )
            .hint("seal with --isolate auto or vm, and without --attach"));
        }
        volumes.check(wanted)
    }

    /// Has the operations done, or only looks what they would do.
    ///
    /// # Errors
    /// Those of the operations.
    pub fn edit(
        &mut self,
        operations: &[Planned],
        how: (Mode, bool),
        observer: &mut dyn Observer,
    ) -> Result<Edited> {
        match &mut self.place {
            Place::Host(session) => {
                edit(operations, session.guest(), how, observer).map_err(|error| session.blame(error))
            }
            Place::Machine(session) => session.edit(operations, how, observer),
        }
    }

    /// Gives up after a failure.
    ///
    /// # Errors
    /// What cannot be taken apart.
    pub fn abandon(self) -> Result<()> {
        match self.place {
            Place::Host(session) => session.close().map(drop),
            // Dropping it pulls the plug: what it has is an overlay that is thrown away, or half edited in place anyhow.
            Place::Machine(_) => Ok(()),
        }
    }

    /// Unmounts, erases, and detaches. The proof is made here only where a second attachment would be another machine.
    ///
    /// # Errors
    /// When something could not be written or taken apart; then what is below may not be whole.
    pub fn finish(self, finish: Finish, observer: &mut dyn Observer) -> Result<Finished> {
        match self.place {
            Place::Machine(session) => {
                let (Opened { inspection, repairs, .. }, erasure) = session.finish(finish, observer)?;
                let swap_files = Vec::new();
                Ok(Finished { inspection, repairs, erasure, swap_files, proven: true })
            }
            Place::Host(session) => {
                let policy = finish.policy();
                let swap_files = match session.swap_files(policy).map_err(|error| session.blame(error)) {
                    Ok(files) => files,
                    Err(error) => return both_values(Err(error), session.close()).map(|(never, _)| never),
                };
                let repairs = session.repairs.clone();
                let (inspection, erasure) = session.close_after(|attachment| {
                    uuids::device::change(attachment.disks(), &finish.uuids, observer)?;
                    let Some(how) = finish.erase else { return Ok(Erasure::default()) };
                    let probe = attachment.probe()?;
                    let erased = erase(attachment.disks(), &probe, how, &swap_files, observer)?;
                    fault::point(Point::Erased).map(|()| erased)
                })?;
                let proven = finish.prove.is_none();
                Ok(Finished { inspection, repairs, erasure, swap_files, proven })
            }
        }
    }
}
