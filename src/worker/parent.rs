//! The parent's side: starts the worker in the guest's root folder, tells it what to do, hears it out, runs the host's
//! scripts for it, and judges how it ended. The guest stays mounted for as long as the worker lives, and no longer.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::error::Error as _;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use super::ARGUMENT;
use super::conversation::{Conversation, Edited, Heard};
use super::pipe::WipedReader;
use super::programs::Programs;
use super::protocol::{
    Broken, FromWorker, Start, ToWorker, VERSION, WirePlanned, read_message, write_data, write_message,
};
use crate::apply::{Left, Mode, in_operation};
use crate::error::{Error, Result, both};
use crate::fault::{self, Point};
use crate::guest::GuestRoot;
use crate::inspect::guest::Guest;
use crate::operation::Operation;
use crate::operation::schema::Terms;
use crate::plan::Planned;
use crate::report::{Event, Observer};
use crate::sys::child::{Child, Spawn};
use crate::sys::plain::plain;
use crate::sys::{interrupt, tool};

/// How long the worker may take to end when its work is done.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most that is heard from one worker, in bytes: some million files.
const SPEECH_LIMIT: u64 = 1 << 30;
/// The longest line of a program in a machine that is shown, in signs: it was cut to this there.
const LINE: usize = 200;
const NO_LANDLOCK: &str =
    "this host's kernel has no Landlock: the worker that edits the guest is held by fewer locks";
const NO_SECCOMP: &str =
    "this host's kernel filters no system calls: the worker that edits the guest is held by fewer locks";

/// Has a worker run the operations on the guest mounted at `folder`, or only look what they would do; `fingerprints` says
/// whether it shall take some of what each change destroys. The worker is this
/// program itself, so only guestseal may call this.
///
/// # Errors
/// Those of the operations, and when the worker dies or does not keep to the protocol. It is gone in any case.
pub fn edit(
    operations: &[Planned],
    (guest, folder, mount_points): (&Guest, &Path, Vec<PathBuf>),
    (mode, fingerprints): (Mode, bool),
    observer: &mut dyn Observer,
) -> Result<Edited> {
    let programs = Programs::new(folder, mount_points.clone(), false);
    if mode == Mode::Change {
        programs.check(guest, operations.iter().map(|planned| &planned.operation))?;
    }
    let worker = Worker::start(folder)?;
    let at_once = observer.wants_changes();
    let start = start(operations, (guest, mount_points), (mode, fingerprints), at_once);
    let mut listener = Listener::new(operations, (mode, fingerprints), Some((folder, programs)), observer);
    worker.talk(&ToWorker::Start(Box::new(start)), &mut |message| listener.hear(message))?;
    listener.end()
}

/// The first message to a worker.
pub fn start<'a>(
    operations: &'a [Planned],
    (guest, mount_points): (&'a Guest, Vec<PathBuf>),
    (mode, fingerprints): (Mode, bool),
    at_once: bool,
) -> Start<'a> {
    let guest = Cow::Borrowed(guest);
    let operations = operations.iter().map(Into::into).collect();
    Start { version: VERSION, mode, at_once, fingerprints, guest, mount_points, operations }
}

/// Has a worker edit the guest mounted at `folder`, in the machine that this is, for the host, to whom each of its messages
/// is handed and who gives the pieces that it asks for; the last one is that it is done, or why it failed.
///
/// # Errors
/// When the worker dies or is not understood, and what `forward` fails of.
pub fn relay(
    start: Start<'_>,
    folder: &Path,
    forward: &mut dyn FnMut(FromWorker) -> Result<Option<Vec<u8>>>,
) -> Result<()> {
    let programs = Programs::new(folder, start.mount_points.clone(), true);
    if start.mode == Mode::Change {
        programs.check(&start.guest, start.operations.iter().map(WirePlanned::operation))?;
    }
    let terms: Vec<Vec<Option<Terms>>> =
        start.operations.iter().map(|planned| terms(planned.operation())).collect();
    let (mut done, mode) = (0, start.mode);
    let mut hear = |message: FromWorker| {
        let program = match &message {
            FromWorker::Program { action, script } => {
                let terms = terms.get(done).and_then(|terms| terms.get(*action)?.clone());
                let nothing = || Broken::Protocol("it asks for a program that is not planned".into());
                Some((script.clone(), terms.ok_or_else(nothing)?))
            }
            _ => None,
        };
        done += usize::from(matches!(message, FromWorker::Operation(_)));
        let last = matches!(message, FromWorker::Done | FromWorker::Failed(_));
        if let (FromWorker::Label(link), Mode::Change) = (&message, mode) {
            GuestRoot::open(folder).and_then(|root| root.label_link(link)).map_err(Stop::Error)?;
        }
        if let Some(piece) = forward(message).map_err(Stop::Error)? {
            return Ok(Next::Data(piece));
        }
        let Some((script, terms)) = program else {
            return Ok(if last { Next::End(None) } else { Next::Listen });
        };
        let mut trouble = Ok(());
        let ran = programs.run(&script, &terms, &mut |line| {
            if trouble.is_ok() {
                trouble = forward(FromWorker::Output(line.to_owned())).map(drop);
            }
        });
        both(ran, trouble).map_err(Stop::Error)?;
        Ok(Next::Answer)
    };
    Worker::start(folder)?.talk(&ToWorker::Start(Box::new(start)), &mut hear)
}

fn terms(operation: &Operation) -> Vec<Option<Terms>> {
    operation.actions.iter().map(|action| Terms::of(action).cloned()).collect()
}

/// Hears out a worker whose messages come from elsewhere; `next` is handed the piece that the last message asked for.
///
/// # Errors
/// Those of the operations, when the worker does not keep to the protocol, and what `next` fails of.
pub fn hear_out(
    operations: &[Planned],
    how: (Mode, bool),
    observer: &mut dyn Observer,
    next: &mut dyn FnMut(Option<Vec<u8>>) -> Result<FromWorker>,
) -> Result<Edited> {
    let mut listener = Listener::new(operations, how, None, observer);
    let mut answer = None;
    loop {
        match listener.hear(next(answer.take())?) {
            Ok(Next::Listen) => {}
            Ok(Next::Data(piece)) => answer = Some(piece),
            Ok(Next::End(None)) => return listener.end(),
            Ok(Next::End(Some(error))) | Err(Stop::Error(error)) => return Err(error),
            Ok(Next::Answer) => return Err(Error::failed(CUT)),
            Err(Stop::Broken(broken)) => return Err(Error::failed(CUT).caused_by(broken)),
        }
    }
}

const CUT: &str = "the worker that edits the guest failed";

struct Worker {
    child: Child,
    input: ChildStdin,
    output: WipedReader<Speech>,
}

/// What the worker says.
struct Speech {
    pipe: ChildStdout,
    left: u64,
}

impl Speech {
    /// Waits until there is something to read: the one place where the parent waits for its worker.
    fn wait(&self) -> io::Result<()> {
        interrupt::until_readable(self.pipe.as_fd()).map_err(io::Error::other)
    }
}

impl Read for Speech {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.wait()?;
        let length = self.pipe.read(bytes)?;
        self.left =
            self.left.checked_sub(length as u64).ok_or_else(|| io::Error::other("it says too much"))?;
        Ok(length)
    }
}

/// Why the conversation ended before its end.
enum Stop {
    /// The worker's fault.
    Broken(Broken),
    /// Ours, or that of a script of ours.
    Error(Error),
}

impl From<Broken> for Stop {
    fn from(broken: Broken) -> Self {
        match broken {
            // What kept us from waiting comes as it is.
            Broken::Read(error) => match error.downcast::<Error>() {
                Ok(error) => Self::Error(error),
                Err(error) => Self::Broken(Broken::Read(error)),
            },
            broken => Self::Broken(broken),
        }
    }
}

impl Worker {
    fn start(folder: &Path) -> Result<Self> {
        // Its working directory is how it gets the guest's root: it needs no path of the host.
        let worker = Spawn::new("/proc/self/exe").arg(ARGUMENT).folder(folder);
        let mut child = worker.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(input), Some(pipe)) = (child.take_stdin(), child.take_stdout()) else {
            return Err(Error::failed("the worker has no pipes"));
        };
        let output = WipedReader::new(Speech { pipe, left: SPEECH_LIMIT });
        Ok(Self { child, input, output })
    }

    /// Talks until the worker has ended. One that is not heard out is killed.
    fn talk(mut self, start: &ToWorker<'_>, hear: Hear<'_>) -> Result<()> {
        match self.tell(start).and_then(|()| self.listen(hear)) {
            Ok(None) => self.end(),
            Ok(Some(error)) => both(Err(error), self.end()),
            Err(Stop::Error(error)) => Err(error),
            Err(Stop::Broken(Broken::Ended)) => {
                let ended = self.end().err().unwrap_or_else(|| Error::failed(Broken::Ended.to_string()));
                Err(Error::failed(CUT).caused_by(ended))
            }
            Err(Stop::Broken(broken)) => Err(Error::failed(CUT).caused_by(broken)),
        }
    }

    fn tell(&mut self, message: &ToWorker<'_>) -> Result<(), Stop> {
        write_message(&mut self.input, message).map_err(ended)
    }

    /// Ok when the worker came to its end: with the error that it told of, if it did.
    fn listen(&mut self, hear: Hear<'_>) -> Result<Option<Error>, Stop> {
        loop {
            match hear(read_message(&mut self.output)?)? {
                Next::Listen => {}
                Next::Answer => self.tell(&ToWorker::ScriptDone)?,
                Next::Data(piece) => {
                    write_data(&mut self.input, &piece).map_err(ended)?;
                }
                Next::End(error) => return Ok(error),
            }
        }
    }

    fn end(self) -> Result<()> {
        let Self { child, input, output: _output } = self;
        drop(input);
        child.wait_within(PATIENCE)?.success()
    }
}

/// A worker that does not listen any more has ended.
fn ended(error: Error) -> Stop {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    if cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe) {
        Stop::Broken(Broken::Ended)
    } else {
        Stop::Error(error)
    }
}

/// What to do after a message.
enum Next {
    Listen,
    Answer,
    Data(Vec<u8>),
    End(Option<Error>),
}

/// What is done with each message.
type Hear<'a> = &'a mut dyn FnMut(FromWorker) -> Result<Next, Stop>;

struct Listener<'a, 'o> {
    conversation: Conversation<'a>,
    mode: Mode,
    /// Where the guest is mounted on this host; none when it is not.
    here: Option<(&'a Path, Programs<'a>)>,
    observer: &'o mut dyn Observer,
}

impl<'a, 'o> Listener<'a, 'o> {
    fn new(
        operations: &'a [Planned],
        (mode, fingerprints): (Mode, bool),
        here: Option<(&'a Path, Programs<'a>)>,
        observer: &'o mut dyn Observer,
    ) -> Self {
        let conversation = Conversation::new(operations, mode);
        let conversation = if here.is_some() { conversation } else { conversation.in_machine() };
        let conversation = if fingerprints { conversation.with_fingerprints() } else { conversation };
        Self { conversation, mode, here, observer }
    }

    fn end(self) -> Result<Edited> {
        self.conversation.end().map_err(|broken| Error::failed(CUT).caused_by(broken))
    }

    fn hear(&mut self, message: FromWorker) -> Result<Next, Stop> {
        match self.conversation.hear(message)? {
            Heard::Nothing => {}
            Heard::Ready(confinement) => {
                if confinement.landlock.is_none() {
                    self.observer.event(Event::Warning(NO_LANDLOCK));
                }
                if !confinement.seccomp {
                    self.observer.event(Event::Warning(NO_SECCOMP));
                }
            }
            Heard::File(operation, file) => {
                if self.mode == Mode::Change {
                    self.observer.event(Event::Change { operation, file });
                }
            }
            Heard::Label(link) => {
                // In a machine its agent has done it.
                let root = self.here.as_ref().map(|(folder, _)| GuestRoot::open(folder));
                root.map_or(Ok(()), |root| root?.label_link(&link)).map_err(Stop::Error)?;
            }
            Heard::Operation(report, first) => {
                if self.mode == Mode::Change {
                    self.observer.event(Event::Operation(report));
                }
                if first {
                    fault::point(Point::FirstOperation).map_err(Stop::Error)?;
                }
            }
            Heard::Script(planned, script) => {
                let nowhere = || Error::unsupported("the guest is not mounted on this host");
                let here = self.here.as_ref().ok_or_else(nowhere);
                let ran = here.and_then(|(folder, _)| tool::run_script(&script, folder));
                ran.map_err(|error| Stop::Error(in_operation(planned, error)))?;
                return Ok(Next::Answer);
            }
            Heard::Program(planned, terms, script) => {
                // In a machine its agent runs it.
                let Some((_, programs)) = &self.here else { return Ok(Next::Listen) };
                let observer = &mut *self.observer;
                let ran = programs.run(&script, &terms, &mut |line| observer.event(Event::Output(line)));
                ran.map_err(|error| Stop::Error(in_operation(planned, error)))?;
                return Ok(Next::Answer);
            }
            Heard::Left(Left { operation, path }) => {
                let path = path.display().to_string();
                let what = format!(
                    "{} stays as the customisation made it: {operation} would remove or change it",
                    plain(&path, LINE)
                );
                self.observer.event(Event::Warning(&what));
            }
            Heard::Output(line) => self.observer.event(Event::Output(&plain(&line, LINE))),
            Heard::Piece(planned, source, offset) => {
                let piece =
                    source.piece(offset).map_err(|error| Stop::Error(in_operation(planned, error)))?;
                return Ok(Next::Data(piece));
            }
            Heard::Done => return Ok(Next::End(None)),
            Heard::Failed(error) => return Ok(Next::End(Some(error))),
        }
        Ok(Next::Listen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::confine::Confinement;

    struct Warnings(Vec<String>);

    impl Observer for Warnings {
        fn event(&mut self, event: Event<'_>) {
            if let Event::Warning(text) = event {
                self.0.push(text.to_owned());
            }
        }
    }

    #[test]
    fn locks_that_the_kernel_lacks_are_told() {
        for (landlock, seccomp, told) in
            [(Some(1), true, vec![]), (None, true, vec![NO_LANDLOCK]), (Some(7), false, vec![NO_SECCOMP])]
        {
            let mut observer = Warnings(Vec::new());
            let mut listener = Listener {
                conversation: Conversation::new(&[], Mode::Look),
                mode: Mode::Look,
                here: None,
                observer: &mut observer,
            };
            let confinement = Confinement { landlock, seccomp, capabilities: Vec::new() };
            let heard = listener.hear(FromWorker::Ready { version: VERSION, confinement });
            assert!(matches!(heard, Ok(Next::Listen)));
            assert_eq!(observer.0, told);
        }
    }
}
