//! Runs the selected operations on a mounted guest, or only looks what they would do, and gathers what came of it.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::action::{Findings, Note, View, look, meets};
use crate::error::{Error, Result};
use crate::guest::GuestRoot;
use crate::guest::change::{Change, Verb};
use crate::inspect::guest::Guest;
use crate::plan::Planned;
use crate::report::{Event, Observer};
use crate::sys::tool;

/// What came of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It changed the guest, or would.
    Changed,
    /// Everything was already as it should be.
    Unchanged,
    /// It is not for guests like this one.
    NotApplicable,
    /// It cannot be judged without a secret.
    Unsure,
}

/// How much of one kind an operation did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Tally {
    /// Files, links and folders removed.
    pub removed: u64,
    /// Files emptied.
    pub truncated: u64,
    /// Files written, links and folders made.
    pub written: u64,
    /// Bytes of content that went.
    pub bytes: u64,
}

impl Tally {
    fn add(&mut self, change: &Change) {
        match change.verb() {
            Verb::Remove => self.removed += change.entries(),
            Verb::Truncate => self.truncated += 1,
            Verb::Write | Verb::Link | Verb::Create => self.written += 1,
        }
        // Sparse files of a hostile guest may add up to more than there are numbers.
        self.bytes = self.bytes.saturating_add(change.bytes());
    }
}

/// One file that an operation is about.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FileReport {
    /// What happens to it.
    pub action: Verb,
    /// Where it is in the guest.
    pub path: PathBuf,
    /// How many bytes go.
    pub bytes: u64,
}

/// What one operation did, or would do.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct OperationReport {
    /// Its name.
    pub name: String,
    /// What came of it.
    pub outcome: Outcome,
    /// How much.
    #[serde(flatten)]
    pub tally: Tally,
    /// Each file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileReport>,
    /// What people should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
    /// Time taken in milliseconds.
    pub milliseconds: u64,
}

/// Whether to change the guest or only to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Say what would change.
    Look,
    /// Change it.
    Change,
}

/// Runs the operations in order. Each action looks at the guest as those before it left it.
///
/// # Errors
/// When an action cannot be done; the sentence names the operation. What was changed so far stays on the overlay.
pub fn apply(
    operations: &[Planned],
    (root, guest, folder): (&GuestRoot, &Guest, &Path),
    mode: Mode,
    observer: &mut dyn Observer,
) -> Result<Vec<OperationReport>> {
    let mut run = Run { folder, mode, gone: BTreeSet::new(), observer };
    let mut reports = Vec::with_capacity(operations.len());
    for planned in operations {
        let view = View { root, guest, settings: &planned.settings };
        reports.push(run.operation(planned, view).map_err(|error| in_operation(planned, error))?);
    }
    Ok(reports)
}

fn in_operation(planned: &Planned, error: Error) -> Error {
    let hint = error.what_to_do().map(str::to_owned);
    let outer =
        Error::new(error.kind(), format!("the operation {} failed", planned.operation.name)).caused_by(error);
    hint.into_iter().fold(outer, Error::hint)
}

struct Run<'a> {
    folder: &'a Path,
    mode: Mode,
    /// When only looking: what would be gone by now, and is not found once more by a later action.
    gone: BTreeSet<PathBuf>,
    observer: &'a mut dyn Observer,
}

impl Run<'_> {
    fn operation(&mut self, planned: &Planned, view: View<'_>) -> Result<OperationReport> {
        let started = Instant::now();
        let operation = &planned.operation;
        let mut report = OperationReport {
            name: operation.name.clone(),
            outcome: Outcome::Unchanged,
            tally: Tally::default(),
            files: Vec::new(),
            notes: Vec::new(),
            milliseconds: 0,
        };
        if meets(&operation.when, view)? {
            for action in &operation.actions {
                self.carry_out(look(action, view)?, view, &mut report)?;
            }
        } else {
            report.outcome = Outcome::NotApplicable;
        }
        report.milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if self.mode == Mode::Change {
            self.observer.event(Event::Operation(&report));
        }
        Ok(report)
    }

    fn carry_out(&mut self, findings: Findings, view: View<'_>, report: &mut OperationReport) -> Result<()> {
        let Findings { mut changes, notes, scripts, unsure } = findings;
        if self.mode == Mode::Look {
            changes.retain(|change| !self.is_gone(change.path()));
        }
        for change in &changes {
            if self.mode == Mode::Change {
                change.make(view.root)?;
                self.observer.event(Event::Change { operation: &report.name, change });
            } else if change.verb() == Verb::Remove {
                self.gone.insert(change.path().to_path_buf());
            }
            report.tally.add(change);
            let (action, path) = (change.verb(), change.path().to_path_buf());
            report.files.push(FileReport { action, path, bytes: change.bytes() });
        }
        for script in scripts.iter().filter(|_| self.mode == Mode::Change) {
            tool::run_script(script, self.folder)?;
        }
        report.notes.extend(notes);
        if !changes.is_empty() || !scripts.is_empty() {
            report.outcome = Outcome::Changed;
        } else if unsure && report.outcome == Outcome::Unchanged {
            report.outcome = Outcome::Unsure;
        }
        Ok(())
    }

    fn is_gone(&self, path: &Path) -> bool {
        !self.gone.is_empty() && path.ancestors().any(|path| self.gone.contains(path))
    }
}
