//! Runs the selected operations on a mounted guest, or only looks what they would do, and gathers what came of it.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::action::{Findings, View, look, meets};
use crate::error::{Error, ErrorKind, Result};
use crate::fault::{self, Point};
use crate::guest::GuestRoot;
use crate::guest::change::Verb;
use crate::inspect::guest::Guest;
use crate::plan::Planned;
use crate::report::{Event, FileReport, Observer, OperationReport, Outcome, Tally};
use crate::sys::{interrupt, tool};

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
        interrupt::check_before(&format!("the operation {}", planned.operation.name))?;
        let view = View { root, guest, settings: &planned.settings };
        reports.push(run.operation(planned, view).map_err(|error| in_operation(planned, error))?);
        if reports.len() == 1 {
            fault::point(Point::FirstOperation)?;
        }
    }
    Ok(reports)
}

fn in_operation(planned: &Planned, error: Error) -> Error {
    let came = if error.kind() == ErrorKind::Stopped { "was left" } else { "failed" };
    error.within(format!("the operation {} {came}", planned.operation.name))
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
            interrupt::check()?;
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
