//! The work inside a machine: what the host asks for, done with the machine's own disks by the same code as on a host.

#![forbid(unsafe_code)]

use std::fs::File;
use std::path::{Path, PathBuf};

use super::protocol::{Finish, FromMachine, Opened, Prepare, ToMachine};
use crate::attach::{AttachedDisk, DataSource};
use crate::disk::Made;
use crate::erase::extent::Extents;
use crate::erase::policy::ErasePlan;
use crate::erase::report::Erasure;
use crate::erase::{SwapFile, erase};
use crate::error::{Context, Error, Result};
use crate::expand::{Request, expand};
use crate::mount::options::Access;
use crate::operation::unchecked;
use crate::report::{Event, Observer};
use crate::session::{Attachment, Handling, Session};
use crate::stack::grow::Grower;
use crate::stack::key::Key;
use crate::stack::{Opening, Stack};
use crate::uuids;
use crate::vm::init::{Disk, Inside, Loader};
use crate::worker::parent::relay;
use crate::worker::protocol::{Broken, FromWorker, Start, read_data, read_message, write_message};

/// Does what the host asks until it closes the channel.
///
/// # Errors
/// When the host is not understood. That the work failed is told to the host.
pub fn serve(inside: Inside) -> Result<()> {
    let Inside { mut channel, disks, modules, .. } = inside;
    let own = channel.try_clone().context(|| "cannot keep the channel")?;
    let (made, stack) = (Vec::new(), Stack::default());
    let mut agent = Agent { channel: own, disks, session: None, made, stack, modules };
    loop {
        let ask = match unchecked(|| read_message(&mut channel)) {
            Ok(ask) => ask,
            Err(Broken::Ended) => return Ok(()),
            Err(broken) => return Err(Error::failed("the host is not understood").caused_by(broken)),
        };
        let mut host = Host { channel: &mut channel, trouble: None };
        let answer =
            agent.answer(ask, &mut host).unwrap_or_else(|error| FromMachine::Failed((&error).into()));
        host.say(&answer);
        host.trouble.map_or(Ok(()), Err)?;
    }
}

/// The host, as one who is told.
struct Host<'a> {
    channel: &'a mut File,
    trouble: Option<Error>,
}

impl Host<'_> {
    fn say(&mut self, message: &FromMachine) {
        if self.trouble.is_none() {
            self.trouble = write_message(self.channel, message).err();
        }
    }
}

impl Observer for Host<'_> {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Stage(stage) => self.say(&FromMachine::Stage(stage)),
            Event::Warning(text) => self.say(&FromMachine::Warning(text.to_owned())),
            // The worker's words go to the host as they are.
            _ => {}
        }
    }
}

/// Asks the host where a disk has data.
#[derive(Debug)]
struct AskHost {
    channel: File,
    disk: usize,
}

impl DataSource for AskHost {
    fn data(&self) -> Result<Option<Extents>> {
        let mut channel = &self.channel;
        write_message(&mut channel, &FromMachine::WhereIsData(self.disk))?;
        match read_message(&mut channel) {
            Ok(ToMachine::Data(data)) => data.map(Extents::new).transpose(),
            Ok(_) => Err(Error::failed("the host does not say where the disk has data")),
            Err(broken) => Err(Error::failed("the host is not understood").caused_by(broken)),
        }
    }
}

struct Agent {
    channel: File,
    disks: Vec<Disk>,
    session: Option<Session>,
    /// What was made of the disks, in their order.
    made: Vec<(PathBuf, Made)>,
    stack: Stack,
    modules: Loader,
}

impl Agent {
    fn answer(&mut self, ask: ToMachine<'_>, host: &mut Host<'_>) -> Result<FromMachine> {
        match ask {
            ToMachine::Prepare(prepare) => self.prepare(prepare, host),
            ToMachine::Expand(request) => self.expand(&request, host),
            ToMachine::Open(handling) => self.open(&handling, host),
            ToMachine::Edit(start) => self.edit(*start, host),
            ToMachine::Data(_) => Err(Error::failed("nobody asked where a disk has data")),
            ToMachine::Finish(finish) => self.finish(&finish, host).map(Box::new).map(FromMachine::Finished),
        }
    }

    fn prepare(&mut self, prepare: Prepare, host: &mut Host<'_>) -> Result<FromMachine> {
        let Prepare { keys, degraded, read_only, new_uuids } = prepare;
        let keys: Vec<Key> = keys.into_iter().map(Into::into).collect();
        if let Some(session) = self.session.take() {
            session.close()?;
        }
        std::mem::take(&mut self.stack).close()?;
        self.made.clear();
        let mut disks = self.devices(read_only)?;
        self.stack = Stack::open(
            &mut disks,
            &Opening { keys: &keys, degraded, read_only, new_uuids: &new_uuids, drivers: &self.modules },
            host,
        )?;
        let made = |disk: &AttachedDisk| Some((disk.path().to_path_buf(), disk.made()?.clone()));
        self.made = disks.iter().filter_map(made).collect();
        if !new_uuids.is_empty() {
            // They were written through other devices.
            disks.iter().try_for_each(AttachedDisk::read_anew)?;
        }
        Ok(FromMachine::Prepared(std::mem::take(&mut self.stack.given)))
    }

    /// The disks, and what was made of them.
    fn devices(&self, read_only: bool) -> Result<Vec<AttachedDisk>> {
        let device = |(index, disk): (usize, &Disk)| {
            let channel = self.channel.try_clone().context(|| "cannot keep the channel")?;
            let device = AttachedDisk::device(disk.path.clone(), None, read_only || disk.read_only);
            Ok(device.with_data_from(Box::new(AskHost { channel, disk: index })))
        };
        let made = |(path, made): &(PathBuf, Made)| {
            Ok(AttachedDisk::device(path.clone(), Some(made.clone()), read_only))
        };
        self.disks.iter().enumerate().map(device).chain(self.made.iter().map(made)).collect()
    }

    fn expand(&mut self, request: &Request, host: &mut Host<'_>) -> Result<FromMachine> {
        let attachment = Attachment::of(self.devices(request.access == Access::Look)?)?;
        let grown = expand(&attachment, request, &mut Grower, host);
        let (expanded, layered) = attachment.close_after(grown)?;
        Ok(FromMachine::Expanded(Box::new(expanded), layered))
    }

    fn open(&mut self, handling: &Handling, host: &mut Host<'_>) -> Result<FromMachine> {
        let attachment = Attachment::of(self.devices(handling.access == Access::Look)?)?;
        let storage = attachment.storage()?;
        let session = Session::open(attachment, storage, handling, host)?;
        let (_, _, mount_points) = session.guest();
        let (inspection, repairs) = (session.inspection.clone(), session.repairs.clone());
        self.session = Some(session);
        Ok(FromMachine::Opened(Box::new(Opened { inspection, repairs, mount_points })))
    }

    fn edit(&mut self, start: Start<'_>, host: &mut Host<'_>) -> Result<FromMachine> {
        let session = self.session.as_ref().ok_or_else(|| Error::failed("no guest is open"))?;
        let folder: &Path = session.guest().1;
        relay(start, folder, &mut |message| {
            let asks = matches!(message, FromWorker::Piece { .. });
            host.say(&FromMachine::Worker(message));
            host.trouble.take().map_or(Ok(()), Err)?;
            let piece = asks.then(|| read_data(host.channel)).transpose();
            piece.map_err(|broken| Error::failed("the host gives no piece of its file").caused_by(broken))
        })?;
        Ok(FromMachine::Edited)
    }

    fn finish(&mut self, finish: &Finish, host: &mut Host<'_>) -> Result<Erasure> {
        let mut erasure = Erasure::default();
        let mut swap_files: Vec<SwapFile> = Vec::new();
        if let Some(session) = self.session.take() {
            swap_files = session.swap_files(finish.policy())?;
            erasure = session
                .close_after(|attachment| {
                    uuids::device::change(attachment.disks(), &finish.uuids, host)?;
                    let Some(how) = finish.erase else { return Ok(Erasure::default()) };
                    erase(attachment.disks(), &attachment.probe()?, how, &swap_files, host)
                })?
                .1;
        }
        if let Some(plan) = finish.prove {
            erasure = self.prove(plan, &swap_files, erasure, host)?;
        }
        std::mem::take(&mut self.stack).close().map(|()| erasure)
    }

    /// Everything is read from the disks again, and nothing is written.
    fn prove(
        &self,
        plan: ErasePlan,
        swap_files: &[SwapFile],
        mut erasure: Erasure,
        host: &mut Host<'_>,
    ) -> Result<Erasure> {
        erasure.policy = plan.policy;
        let attachment = Attachment::of(self.devices(true)?)?;
        for disk in attachment.disks() {
            disk.read_anew()?;
        }
        attachment.prove(plan, swap_files, erasure, host)
    }
}
