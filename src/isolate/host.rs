//! The host's side of the work in a machine: the same steps as with a guest that is mounted here.

#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use super::protocol::{Finish, FromMachine, Opened, Prepare, ToMachine};
use crate::apply::Mode;
use crate::erase::report::Erasure;
use crate::error::{Error, Result};
use crate::expand::{self, Expanded};
use crate::image::live::DiskFiles;
use crate::mount::options::Access;
use crate::operation::schema::Terms;
use crate::plan::Planned;
use crate::report::{Event, Observer, Stage};
use crate::session::Handling;
use crate::uuids::NewUuid;
use crate::vm::Machine;
use crate::worker::conversation::Edited;
use crate::worker::parent::{hear_out, start};

/// How long the machine may be silent at work. What takes longest without a word is a disk full of data that is read
/// under emulation.
const PATIENCE: Duration = Duration::from_secs(1800);

/// How long it may be silent while it opens what lies below filesystems. What takes longest is one key.
const OPENING: Duration = Duration::from_secs(600);

/// The most pieces of data that the machine is told of: they are to fit in a message.
const MOST_PIECES: u64 = 1 << 18;

/// The files behind one disk of the machine; none when only qemu knows what they hold.
pub type Files = Option<Arc<DiskFiles>>;

/// A machine whose disks are opened, down to the filesystems.
#[derive(Debug)]
pub struct Prepared {
    machine: Machine,
    files: Vec<Files>,
}

impl Prepared {
    /// Has a machine open what lies below filesystems.
    ///
    /// # Errors
    /// When the machine fails, or something that should be whole is not.
    pub fn new(
        mut machine: Machine,
        files: Vec<Files>,
        prepare: Prepare,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        match ask_within(OPENING, &mut machine, &files, &ToMachine::Prepare(prepare), observer)? {
            FromMachine::Prepared(_) => Ok(Self { machine, files }),
            _ => Err(wrong(&mut machine)),
        }
    }

    /// Has the guest take more room; what was opened is opened anew where that lies in between, as `again` says.
    ///
    /// # Errors
    /// When something cannot grow, and those of the machine.
    pub fn expanded(
        self,
        request: expand::Request,
        again: Prepare,
        observer: &mut dyn Observer,
    ) -> Result<(Self, Expanded)> {
        let Self { mut machine, files } = self;
        let looks = request.access == Access::Look;
        match ask(&mut machine, &files, &ToMachine::Expand(request), observer)? {
            FromMachine::Expanded(expanded, layered) if layered && !looks => {
                observer.event(Event::Stage(Stage::OpeningVolumes));
                Ok((Self::new(machine, files, again, observer)?, *expanded))
            }
            FromMachine::Expanded(expanded, _) => Ok((Self { machine, files }, *expanded)),
            _ => Err(wrong(&mut machine)),
        }
    }
}

/// A guest that is mounted in a machine.
#[derive(Debug)]
pub struct MachineSession {
    machine: Machine,
    files: Vec<Files>,
    /// What is known of it.
    pub opened: Opened,
}

impl MachineSession {
    /// Has a machine find and mount the guest on its disks.
    ///
    /// # Errors
    /// When the machine fails or the guest is not one that guestseal understands.
    pub fn open(prepared: Prepared, handling: Handling, observer: &mut dyn Observer) -> Result<Self> {
        let Prepared { mut machine, files } = prepared;
        match ask(&mut machine, &files, &ToMachine::Open(handling), observer)? {
            FromMachine::Opened(opened) => Ok(Self { machine, files, opened: *opened }),
            _ => Err(wrong(&mut machine)),
        }
    }

    /// Has everything opened anew, with new UUIDs for what is below filesystems; which these are.
    ///
    /// # Errors
    /// When the machine fails, or says something that is no UUID.
    pub fn reopened(
        self,
        prepare: Prepare,
        handling: Handling,
        observer: &mut dyn Observer,
    ) -> Result<(Self, Vec<NewUuid>)> {
        let Self { mut machine, files, .. } = self;
        let given = match ask(&mut machine, &files, &ToMachine::Prepare(prepare), observer)? {
            FromMachine::Prepared(given) => given.into_iter().map(NewUuid::checked).collect::<Result<_>>()?,
            _ => return Err(wrong(&mut machine)),
        };
        Ok((Self::open(Prepared { machine, files }, handling, observer)?, given))
    }

    /// Has the operations done, or only looks what they would do.
    ///
    /// # Errors
    /// Those of the operations, and of the machine.
    pub fn edit(
        &mut self,
        operations: &[Planned],
        (mode, fingerprints): (Mode, bool),
        observer: &mut dyn Observer,
    ) -> Result<Edited> {
        let Self { machine, opened, .. } = self;
        let about = (&opened.inspection.guest, opened.mount_points.clone());
        let first = start(operations, about, (mode, fingerprints), observer.wants_changes());
        // While a program of the guest works, nothing is heard of the machine.
        let terms =
            operations.iter().flat_map(|planned| planned.operation.actions.iter().filter_map(Terms::of));
        let longest = terms.map(|terms| Duration::from_secs(terms.seconds.into())).max();
        let patience = PATIENCE + longest.unwrap_or_default();
        machine.say(&ToMachine::Edit(Box::new(first)), PATIENCE)?;
        let edited = hear_out(operations, (mode, fingerprints), observer, &mut |piece| {
            if let Some(piece) = piece {
                machine.say_data(&piece, patience)?;
            }
            match machine.hear(patience)? {
                FromMachine::Worker(message) => Ok(message),
                FromMachine::Failed(error) => Err(error.into_error()),
                _ => Err(wrong(machine)),
            }
        })?;
        match machine.hear(PATIENCE)? {
            FromMachine::Edited => Ok(edited),
            FromMachine::Failed(error) => Err(error.into_error()),
            _ => Err(wrong(machine)),
        }
    }

    /// Has the guest unmounted, erased and proven, and the machine powered off.
    ///
    /// # Errors
    /// When something could not be written, and those of the machine.
    pub fn finish(self, finish: Finish, observer: &mut dyn Observer) -> Result<(Opened, Erasure)> {
        let Self { machine, files, opened } = self;
        finished(Prepared { machine, files }, finish, observer).map(|erasure| (opened, erasure))
    }
}

/// Has what is on a machine's disks proven without looking for a guest, and the machine powered off.
///
/// # Errors
/// Those of the machine.
pub fn finished(prepared: Prepared, finish: Finish, observer: &mut dyn Observer) -> Result<Erasure> {
    let Prepared { mut machine, files } = prepared;
    match ask(&mut machine, &files, &ToMachine::Finish(finish), observer)? {
        FromMachine::Finished(erasure) => {
            observer.event(Event::Stage(Stage::EndingMachine));
            machine.close().map(|()| *erasure)
        }
        _ => Err(wrong(&mut machine)),
    }
}

/// Asks, passes on what is reported meanwhile, and gives the answer.
fn ask(
    machine: &mut Machine,
    files: &[Files],
    what: &ToMachine<'_>,
    observer: &mut dyn Observer,
) -> Result<FromMachine> {
    ask_within(PATIENCE, machine, files, what, observer)
}

fn ask_within(
    patience: Duration,
    machine: &mut Machine,
    files: &[Files],
    what: &ToMachine<'_>,
    observer: &mut dyn Observer,
) -> Result<FromMachine> {
    machine.say(what, patience)?;
    loop {
        match machine.hear(patience)? {
            FromMachine::Stage(stage) => observer.event(Event::Stage(stage)),
            FromMachine::Warning(text) => observer.event(Event::Warning(&text)),
            FromMachine::WhereIsData(disk) => {
                let files = files.get(disk).and_then(Option::as_ref);
                let data = files.map(|files| files.data()).transpose()?;
                let data = data.filter(|data| data.count() <= MOST_PIECES).map(|data| data.iter().collect());
                machine.say(&ToMachine::Data(data), PATIENCE)?;
            }
            FromMachine::Failed(error) => return Err(error.into_error()),
            answer => return Ok(answer),
        }
    }
}

fn wrong(machine: &mut Machine) -> Error {
    machine.blame(Error::failed("the virtual machine answers something else than what it was asked"))
}
