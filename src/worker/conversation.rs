//! What the parent makes of a worker's words. The worker has read a hostile guest: nothing that it says is trusted beyond
//! its form. Reports come for the planned operations in their order, and scripts are those of the plan, once each.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::protocol::{Broken, Ending, FromWorker, VERSION};
use crate::action::Note;
use crate::apply::{Left, MOST_LEFT, Mode};
use crate::erase::fingerprint::Fingerprints;
use crate::error::Error;
use crate::guest::labels::LinkLabel;
use crate::operation::schema::{Action, Terms};
use crate::payload::Source;
use crate::plan::Planned;
use crate::report::{FileReport, OperationReport, ProgramsRun};
use crate::sys::confine::Confinement;

/// What was done to a guest, or would be.
#[derive(Debug)]
pub struct Edited {
    /// What each operation did.
    pub operations: Vec<OperationReport>,
    /// How the worker was confined.
    pub confinement: Confinement,
    /// Of what was destroyed, where they were wanted.
    pub fingerprints: Fingerprints,
    /// What the customisation made that operations would have removed.
    pub left: Vec<Left>,
}

/// What to do about a message.
#[derive(Debug)]
pub enum Heard<'a> {
    /// The worker is confined like this.
    Ready(&'a Confinement),
    /// A file was changed, or would be, in the operation of this name.
    File(&'a str, &'a FileReport),
    /// This link is to be labelled.
    Label(LinkLabel),
    /// An operation is done; whether it is the first.
    Operation(&'a OperationReport, bool),
    /// The worker waits until this script has run; it is one of the plan.
    Script(&'a Planned, PathBuf),
    /// The worker waits until the guest's programs have run this script on these terms.
    Program(&'a Planned, Terms, String),
    /// A program of the guest printed this.
    Output(String),
    /// The customisation made this, and an operation would have removed it.
    Left(&'a Left),
    /// The worker waits for a piece of this file of the plan.
    Piece(&'a Planned, &'a Source, u64),
    /// There is nothing to do.
    Nothing,
    /// The worker has done all.
    Done,
    /// The worker failed.
    Failed(Error),
}

/// A conversation with one worker.
#[derive(Debug)]
pub struct Conversation<'a> {
    planned: &'a [Planned],
    mode: Mode,
    confinement: Option<Confinement>,
    reports: Vec<OperationReport>,
    files: Vec<FileReport>,
    notes: Vec<Note>,
    /// Scripts of the operation that runs, which the worker may still ask for.
    scripts: Vec<PathBuf>,
    /// The terms of the programs of the operation that runs, which the worker may still ask for.
    programs: BTreeMap<usize, Terms>,
    ran: Option<ProgramsRun>,
    /// Where the guest is mounted: `host` or `vm`.
    place: &'static str,
    /// None when they are not wanted.
    fingerprints: Option<Fingerprints>,
    left: Vec<Left>,
    over: bool,
}

impl<'a> Conversation<'a> {
    /// Begins one about this plan.
    pub fn new(planned: &'a [Planned], mode: Mode) -> Self {
        let mut new = Self {
            planned,
            mode,
            confinement: None,
            reports: Vec::with_capacity(planned.len()),
            files: Vec::new(),
            notes: Vec::new(),
            scripts: Vec::new(),
            programs: BTreeMap::new(),
            ran: None,
            place: "host",
            fingerprints: None,
            left: Vec::new(),
            over: false,
        };
        new.expect_scripts();
        new
    }

    /// The same, with a worker in a virtual machine, where others run the programs.
    #[must_use]
    pub fn in_machine(self) -> Self {
        Self { place: "vm", ..self }
    }

    /// Listens to fingerprints too, when it is about changes.
    #[must_use]
    pub fn with_fingerprints(self) -> Self {
        Self { fingerprints: (self.mode == Mode::Change).then(Fingerprints::new), ..self }
    }

    /// Takes one message.
    ///
    /// # Errors
    /// [`Broken::Protocol`] when the worker may not say this now.
    pub fn hear(&mut self, message: FromWorker) -> Result<Heard<'_>, Broken> {
        if self.over {
            return Err(wrong("speaks after its end"));
        }
        match (message, self.confinement.is_some()) {
            (FromWorker::Failed(error), _) => {
                self.over = true;
                Ok(Heard::Failed(error.into_error()))
            }
            (FromWorker::Ready { version: VERSION, confinement }, false) => {
                Ok(Heard::Ready(self.confinement.insert(confinement)))
            }
            (FromWorker::Ready { .. }, false) => Err(wrong("speaks another version of the protocol")),
            (_, false) => Err(wrong("works before it is ready")),
            (FromWorker::Done, true) if self.reports.len() == self.planned.len() => {
                self.over = true;
                Ok(Heard::Done)
            }
            (FromWorker::Done, true) => Err(wrong("is done before all operations are")),
            (FromWorker::Left(left), true) if self.may_be_left(&left) => {
                self.left.push(left);
                Ok(self.left.last().map_or(Heard::Nothing, Heard::Left))
            }
            (message, true) => self.hear_work(message),
        }
    }

    /// What came of it, once the worker was done.
    ///
    /// # Errors
    /// When it was not.
    pub fn end(self) -> Result<Edited, Broken> {
        match self.confinement {
            Some(confinement) if self.over && self.reports.len() == self.planned.len() => {
                let fingerprints = self.fingerprints.unwrap_or_default();
                Ok(Edited { operations: self.reports, confinement, fingerprints, left: self.left })
            }
            _ => Err(Broken::Ended),
        }
    }

    fn hear_work(&mut self, message: FromWorker) -> Result<Heard<'_>, Broken> {
        let Some(planned) = self.planned.get(self.reports.len()) else {
            return Err(wrong("works on after the last operation"));
        };
        match message {
            FromWorker::File(file) => {
                self.files.push(file);
                Ok(self
                    .files
                    .last()
                    .map_or(Heard::Nothing, |file| Heard::File(&planned.operation.name, file)))
            }
            FromWorker::Note(note) => {
                self.notes.push(note);
                Ok(Heard::Nothing)
            }
            FromWorker::Label(link) if self.mode == Mode::Change => Ok(Heard::Label(link)),
            FromWorker::Label(_) => Err(wrong("labels a link where nothing is to change")),
            FromWorker::Fingerprints(prints) => {
                match self.fingerprints.as_mut().map(|all| prints.add_to(all)) {
                    Some(true) => Ok(Heard::Nothing),
                    Some(false) => Err(wrong("takes too many fingerprints, or such as are none")),
                    None => Err(wrong("takes fingerprints that nobody wants")),
                }
            }
            FromWorker::Script(path) => {
                let Some(place) = self.scripts.iter().position(|script| *script == path) else {
                    return Err(wrong("asks for a script that is not planned"));
                };
                Ok(Heard::Script(planned, self.scripts.swap_remove(place)))
            }
            FromWorker::Program { action, script } => {
                let Some(terms) = self.programs.remove(&action) else {
                    return Err(wrong("asks for a program that is not planned"));
                };
                let place = self.place.to_owned();
                let ran = self.ran.get_or_insert(ProgramsRun { scripts: 0, place, network: false });
                ran.scripts += 1;
                ran.network |= terms.network;
                Ok(Heard::Program(planned, terms, script))
            }
            FromWorker::Output(line) if self.ran.is_some() && self.place == "vm" => Ok(Heard::Output(line)),
            FromWorker::Output(_) => Err(wrong("prints for a program that does not run")),
            FromWorker::Piece { source, offset } => {
                let known = usize::try_from(source).ok().and_then(|number| planned.sources.get(number));
                match known.filter(|_| self.mode == Mode::Change) {
                    Some(source) => Ok(Heard::Piece(planned, source, offset)),
                    None => Err(wrong("asks for a file that is not planned")),
                }
            }
            FromWorker::Operation(ending) if ending.name == planned.operation.name => {
                self.end_operation(ending);
                let first = self.reports.len() == 1;
                Ok(self.reports.last().map_or(Heard::Nothing, |report| Heard::Operation(report, first)))
            }
            FromWorker::Operation(_) => Err(wrong("reports an operation that it was not to do now")),
            FromWorker::Ready { .. } | FromWorker::Done | FromWorker::Left(_) | FromWorker::Failed(_) => {
                Err(wrong("repeats itself"))
            }
        }
    }

    /// What is left is told when all is done, of operations of the plan, and not without end.
    fn may_be_left(&self, left: &Left) -> bool {
        let mut names = self.planned.iter().map(|planned| &planned.operation.name);
        self.mode == Mode::Change
            && self.reports.len() == self.planned.len()
            && self.left.len() < MOST_LEFT
            && names.any(|name| *name == left.operation)
    }

    fn end_operation(&mut self, ending: Ending) {
        let Ending { name, outcome, tally, milliseconds } = ending;
        let (files, notes) = (std::mem::take(&mut self.files), std::mem::take(&mut self.notes));
        let programs = self.ran.take();
        self.reports.push(OperationReport { name, outcome, tally, files, notes, programs, milliseconds });
        self.expect_scripts();
    }

    /// The scripts and programs of the operation that comes now.
    fn expect_scripts(&mut self) {
        self.scripts.clear();
        self.programs.clear();
        let Some(planned) = self.planned.get(self.reports.len()) else { return };
        if self.mode == Mode::Look || planned.settings.recorded {
            return;
        }
        for (number, action) in planned.operation.actions.iter().enumerate() {
            self.programs.extend(Terms::of(action).map(|terms| (number, terms.clone())));
            if matches!(action, Action::Script(_)) {
                self.scripts.extend(planned.settings.list("scripts").into_iter().map(PathBuf::from));
            }
        }
    }
}

fn wrong(what: &str) -> Broken {
    Broken::Protocol(format!("it {what}"))
}
