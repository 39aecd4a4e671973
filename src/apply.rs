//! Runs the selected operations on a mounted guest, or only looks what they would do, and gathers what came of it.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::ops::Bound::{Included, Unbounded};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::action::{Findings, Note, Settings, View, look, meets};
use crate::error::{Error, ErrorKind, Result};
use crate::guest::GuestRoot;
use crate::guest::change::{Change, Supply, Verb};
use crate::guest::path_serde;
use crate::inspect::guest::Guest;
use crate::operation::schema::Action;
use crate::plan::Planned;
use crate::report::{Event, FileReport, Observer, OperationReport, Outcome, Silent, Tally};

/// Whether to change the guest or only to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Say what would change.
    Look,
    /// Change it.
    Change,
}

/// What operations need besides the guest: somebody who listens, and who runs the host's scripts.
pub trait Host: Observer {
    /// Called just before each change is made: what it destroys is still there.
    fn before(&mut self, _root: &GuestRoot, _change: &Change) {}

    /// Runs a script of the host in the guest's root folder.
    ///
    /// # Errors
    /// When it cannot be run or fails.
    fn run_script(&mut self, script: &Path) -> Result<()> {
        Err(Error::unsupported(format!("the script {} cannot be run here", script.display())))
    }

    /// Has the guest's own programs run this script, for the action of this number in the operation that runs.
    ///
    /// # Errors
    /// When it cannot be run or fails.
    fn run_program(&mut self, _action: usize, _script: String) -> Result<()> {
        Err(Error::unsupported("the guest's programs cannot be run here"))
    }

    /// Gives a piece of a file of the host; see [`Supply`].
    ///
    /// # Errors
    /// When it cannot be had.
    fn piece(&mut self, _source: u32, _offset: u64) -> Result<Vec<u8>> {
        Err(Error::unsupported("files of the host cannot be had here"))
    }

    /// Something that an operation would remove or change, and that the customisation made after it ran.
    fn left(&mut self, _left: Left) {}
}

/// The files of the host, as changes see them.
struct Files<'a>(&'a mut dyn Host);

impl Supply for Files<'_> {
    fn piece(&mut self, source: u32, offset: u64) -> Result<Vec<u8>> {
        self.0.piece(source, offset)
    }
}

/// The most of what is left that is told of.
pub const MOST_LEFT: usize = 1000;

/// Something in the guest that an operation finds, and that is to be there: the customisation made it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Left {
    /// The operation.
    pub operation: String,
    /// Where it is.
    #[serde(with = "path_serde")]
    pub path: PathBuf,
}

impl Host for Silent {}

/// Runs the operations in order. Each action looks at the guest as those before it left it.
///
/// # Errors
/// When an action cannot be done; the sentence names the operation. What was changed so far stays on the overlay.
pub fn apply(
    operations: &[Planned],
    (root, guest): (&GuestRoot, &Guest),
    mode: Mode,
    host: &mut dyn Host,
) -> Result<Vec<OperationReport>> {
    let mut run = Run { mode, gone: BTreeSet::new(), host };
    let mut reports: Vec<OperationReport> = Vec::with_capacity(operations.len());
    for planned in operations {
        let view = View { root, guest, settings: &planned.settings };
        let again = reports.iter().any(|report| report.name == planned.operation.name);
        reports.push(run.operation(planned, view, again).map_err(|error| in_operation(planned, error))?);
    }
    let mut done = operations.iter().zip(&reports);
    let is_customised =
        done.any(|(planned, report)| planned.is_customisation() && report.outcome == Outcome::Changed);
    if mode == Mode::Change && is_customised {
        tell_what_is_left(operations, (root, guest), host)?;
    }
    Ok(reports)
}

/// Looks once more, when all is done, as `verify` will: what an operation finds now is what the customisation has brought.
fn tell_what_is_left(
    operations: &[Planned],
    (root, guest): (&GuestRoot, &Guest),
    host: &mut dyn Host,
) -> Result<()> {
    let mut left = BTreeSet::new();
    // Those with a secret or with volumes to write do the same once more whenever they look.
    let looks = |planned: &&Planned| {
        let Settings { passwords, uuids, .. } = &planned.settings;
        passwords.is_empty() && uuids.is_none() && !planned.operation.actions.iter().any(Action::is_step)
    };
    for planned in operations.iter().filter(looks) {
        let settings = Settings { recorded: true, ..planned.settings.clone() };
        let view = View { root, guest, settings: &settings };
        if !meets(&planned.operation.when, view)? {
            continue;
        }
        for action in &planned.operation.actions {
            let findings = look(action, view).map_err(|error| in_operation(planned, error))?;
            let paths = findings.changes.iter().map(|change| change.path().to_path_buf());
            left.extend(paths.map(|path| Left { operation: planned.operation.name.clone(), path }));
        }
    }
    left.into_iter().take(MOST_LEFT).for_each(|left| host.left(left));
    Ok(())
}

/// An error as that of this operation.
pub(crate) fn in_operation(planned: &Planned, error: Error) -> Error {
    let came = if error.kind() == ErrorKind::Stopped { "was left" } else { "failed" };
    error.within(format!("the operation {} {came}", planned.operation.name))
}

/// A file that is written gets a new body; under its other names the old one stays, with whatever was in it.
fn other_names(change: &Change, view: View<'_>) -> Result<Option<Note>> {
    let Change::Replace { path, .. } = change else { return Ok(None) };
    let names = view.root.lookup(path)?.map_or(0, |entry| entry.names);
    let message = || format!("the file has {names} names: the others keep its old content");
    Ok((names > 1).then(|| Note { path: Some(path.clone()), message: message() }))
}

struct Run<'a> {
    mode: Mode,
    /// When only looking: what would be gone by now, and is not found once more by a later action.
    gone: BTreeSet<PathBuf>,
    host: &'a mut dyn Host,
}

impl Run<'_> {
    /// `again`: it ran before, for which there is nothing to look at when nothing is changed.
    fn operation(&mut self, planned: &Planned, view: View<'_>, again: bool) -> Result<OperationReport> {
        let started = Instant::now();
        let operation = &planned.operation;
        let mut report = OperationReport {
            name: operation.name.clone(),
            outcome: Outcome::Unchanged,
            tally: Tally::default(),
            files: Vec::new(),
            notes: Vec::new(),
            programs: None,
            milliseconds: 0,
        };
        let nothing = again && self.mode == Mode::Look;
        if !nothing && meets(&operation.when, view)? {
            for (number, action) in operation.actions.iter().enumerate() {
                match look(action, view) {
                    Ok(findings) => self.carry_out((number, action), findings, view, &mut report)?,
                    // Looking makes no change, so a step may not find what those before it would have made.
                    Err(error) if self.mode == Mode::Look && action.is_step() && !report.files.is_empty() => {
                        let message = format!("a step that depends on others was not looked at: {error}");
                        report.notes.push(Note { path: None, message });
                    }
                    Err(error) => return Err(error),
                }
            }
        } else if !nothing {
            report.outcome = Outcome::NotApplicable;
        }
        report.milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.host.event(Event::Operation(&report));
        Ok(report)
    }

    fn carry_out(
        &mut self,
        (number, action): (usize, &Action),
        findings: Findings,
        view: View<'_>,
        report: &mut OperationReport,
    ) -> Result<()> {
        let Findings { mut changes, notes, scripts, program, later, unsure } = findings;
        if self.mode == Mode::Look && !action.is_step() {
            changes.retain(|change| !self.is_gone(change.path()));
        }
        for change in &changes {
            let (verb, path) = (change.verb(), change.path().to_path_buf());
            let file = FileReport { action: verb, path, bytes: change.bytes() };
            report.notes.extend(other_names(change, view)?);
            if self.mode == Mode::Change {
                self.host.before(view.root, change);
                change.make_with(view.root, &mut Files(self.host))?;
                self.host.event(Event::Change { operation: &report.name, file: &file });
            } else if change.verb() == Verb::Remove {
                self.gone.insert(change.path().to_path_buf());
            }
            report.tally.add(change);
            report.files.push(file);
        }
        for script in scripts.iter().filter(|_| self.mode == Mode::Change) {
            self.host.run_script(script)?;
        }
        report.notes.extend(notes);
        let acts = !changes.is_empty() || !scripts.is_empty() || program.is_some() || later;
        if let Some(script) = program.filter(|_| self.mode == Mode::Change) {
            self.host.run_program(number, script)?;
        }
        if acts {
            report.outcome = Outcome::Changed;
        } else if unsure && report.outcome == Outcome::Unchanged {
            report.outcome = Outcome::Unsure;
        }
        Ok(())
    }

    /// Whether the path or a folder above it is gone. Of what sorts before a path, the last is that folder or below it.
    fn is_gone(&self, path: &Path) -> bool {
        let mut up_to = path.to_path_buf();
        while let Some(last) = self.gone.range::<Path, _>((Unbounded, Included(&*up_to))).next_back() {
            if path.starts_with(last) {
                return true;
            }
            let both = up_to.components().zip(last.components());
            up_to = both.take_while(|(one, other)| one == other).map(|(one, _)| one).collect();
        }
        false
    }
}
