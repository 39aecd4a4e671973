//! The worker: a process of its own that edits the guest, shut in before it touches the first file. [`serve`] is its
//! side, [`parent`] the other; they speak the messages of [`protocol`]. The worker is guestseal itself, started with
//! [`ARGUMENT`] and nothing else: what it shall do, secrets included, comes by its standard input.

#![forbid(unsafe_code)]

pub mod conversation;
pub mod parent;
mod pipe;
pub mod programs;
pub mod protocol;
mod wire;

use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

pub use wire::{WireError, WireKey, WirePassword, WirePrints};

use crate::apply::{Host, Left, Mode, apply};
use crate::erase::fingerprint::sample::Sampler;
use crate::erase::fingerprint::{Coverage, Window};
use crate::error::{Error, Result};
use crate::guest::GuestRoot;
use crate::guest::change::Change;
use crate::mount::damage::explain;
use crate::operation::unchecked;
use crate::plan::Planned;
use crate::report::{Event, Observer};
use crate::sys::confine::{Reach, confine};
use pipe::WipedWriter;
use protocol::{Ending, FromWorker, Start, ToWorker, VERSION, read_data, read_message, write_message};

/// The one argument of a worker. No command and no image can have this name.
pub const ARGUMENT: &str = "--guestseal-worker";

/// How long the end of an operation may wait to be told: each telling wakes the parent.
const HEAP: Duration = Duration::from_millis(50);

/// Works: reads what to do, shuts this process in, and edits the guest at which the working directory is.
///
/// # Errors
/// When the parent does not make itself understood or has gone. That the work itself failed is told to the parent.
pub fn serve(mut input: impl Read, output: impl Write) -> Result<()> {
    let output = WipedWriter::new(output);
    let mut wire = Wire { output, trouble: None, at_once: false, flushed: Instant::now() };
    let last = match hear(&mut input).and_then(|start| work(*start, &mut input, &mut wire)) {
        Ok(()) => FromWorker::Done,
        Err(error) => FromWorker::Failed((&error).into()),
    };
    if let Some(error) = wire.trouble.take() {
        return Err(error);
    }
    wire.say(&last);
    wire.flush()
}

fn hear(input: &mut dyn Read) -> Result<Box<Start<'static>>> {
    match unchecked(|| read_message(input)) {
        Ok(ToWorker::Start(start)) if start.version == VERSION => Ok(start),
        Ok(_) => Err(Error::failed(format!("the parent does not speak version {VERSION} of the protocol"))),
        Err(broken) => Err(Error::failed("the parent is not understood").caused_by(broken)),
    }
}

fn work(start: Start<'_>, input: &mut dyn Read, wire: &mut Wire<impl Write>) -> Result<()> {
    let mut root = GuestRoot::open(Path::new("."))?;
    start.mount_points.into_iter().for_each(|point| root.add_mount_point(point));
    let reach = if start.mode == Mode::Change { Reach::Write } else { Reach::Read };
    let confinement = confine(root.as_fd(), reach)?;
    wire.at_once = start.at_once;
    wire.say(&FromWorker::Ready { version: VERSION, confinement });
    wire.flush()?;
    let operations: Vec<Planned> = start.operations.into_iter().map(Into::into).collect();
    let sampler = start.fingerprints.then(Sampler::default);
    let mut worker = Worker { wire, input, root: &root, mode: start.mode, sampler };
    let done = apply(&operations, (&root, &start.guest), start.mode, &mut worker);
    // Here, where the kernel's own error is known: the parent gets its words.
    done.map(drop).map_err(explain)
}

/// The way out. The first failure is kept, and nothing is said after it.
struct Wire<W: Write> {
    output: WipedWriter<W>,
    trouble: Option<Error>,
    at_once: bool,
    flushed: Instant,
}

impl<W: Write> Wire<W> {
    fn say(&mut self, message: &FromWorker) {
        if self.trouble.is_none() {
            self.trouble = write_message(&mut self.output, message).err();
        }
    }

    fn say_prints(&mut self, windows: &[Window], coverage: Coverage) {
        self.say(&FromWorker::Fingerprints(WirePrints::new(windows, coverage)));
    }

    fn flush(&mut self) -> Result<()> {
        self.flushed = Instant::now();
        let flushed =
            self.output.flush().map_err(|error| Error::failed("the parent is gone").caused_by(error));
        self.trouble.take().map_or(flushed, Err)
    }
}

/// What the operations are given as their host.
struct Worker<'a, W: Write> {
    wire: &'a mut Wire<W>,
    input: &'a mut dyn Read,
    root: &'a GuestRoot,
    mode: Mode,
    /// None when no fingerprints are wanted.
    sampler: Option<Sampler>,
}

impl<W: Write> Observer for Worker<'_, W> {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Change { file, .. } => {
                self.wire.say(&FromWorker::File(file.clone()));
            }
            Event::Operation(report) => {
                for link in self.root.take_links_to_label() {
                    self.wire.say(&FromWorker::Label(link));
                }
                if self.mode == Mode::Look {
                    report.files.iter().for_each(|file| self.wire.say(&FromWorker::File(file.clone())));
                }
                if let Some(sampler) = &mut self.sampler {
                    sampler.flush(&mut |windows, coverage| self.wire.say_prints(windows, coverage));
                }
                report.notes.iter().for_each(|note| self.wire.say(&FromWorker::Note(note.clone())));
                self.wire.say(&FromWorker::Operation(Ending {
                    name: report.name.clone(),
                    outcome: report.outcome,
                    tally: report.tally,
                    milliseconds: report.milliseconds,
                }));
            }
            _ => return,
        }
        if self.wire.at_once || self.wire.flushed.elapsed() > HEAP {
            self.wire.trouble = self.wire.flush().err();
        }
    }
}

impl<W: Write> Host for Worker<'_, W> {
    fn before(&mut self, root: &GuestRoot, change: &Change) {
        if let Some(sampler) = &mut self.sampler {
            sampler.before(root, change, &mut |windows, coverage| self.wire.say_prints(windows, coverage));
        }
    }

    fn left(&mut self, left: Left) {
        self.wire.say(&FromWorker::Left(left));
    }

    fn run_script(&mut self, script: &Path) -> Result<()> {
        self.ask(&FromWorker::Script(script.to_path_buf()))
    }

    fn run_program(&mut self, action: usize, script: String) -> Result<()> {
        self.ask(&FromWorker::Program { action, script })
    }

    fn piece(&mut self, source: u32, offset: u64) -> Result<Vec<u8>> {
        self.wire.say(&FromWorker::Piece { source, offset });
        self.wire.flush()?;
        read_data(self.input).map_err(|broken| Error::failed("the parent does not answer").caused_by(broken))
    }
}

impl<W: Write> Worker<'_, W> {
    /// Asks the parent to do something, and waits until it is done.
    fn ask(&mut self, what: &FromWorker) -> Result<()> {
        self.wire.say(what);
        self.wire.flush()?;
        match read_message(self.input) {
            Ok(ToWorker::ScriptDone) => Ok(()),
            Ok(_) => Err(Error::failed("the parent answers out of turn")),
            Err(broken) => Err(Error::failed("the parent does not answer").caused_by(broken)),
        }
    }
}
