//! `--tree`: the commands on a folder.

use std::path::Path;
use std::time::Instant;

use serde_json::Value;

use super::args::{DigestChoice, InspectArgs, SealArgs, VerifyArgs};
use super::describe::{Totals, describe_found, describe_operations, guest_line};
use super::exit::Exit;
use super::print::{Printer, bytes};
use super::request::{Chosen, catalogue, choose, refuse_scrub};
use super::run::{about, each, show_passwords, terminal, to_json};
use super::selection::SelectionArgs;
use crate::error::{ErrorKind, Result};
use crate::plan::Planned;
use crate::tree::{TreePlan, TreeReport, seal_tree, survey_tree, verify_tree};

/// `seal --tree`.
///
/// # Errors
/// Those of the command line; what failed in the folder is told and is the exit code.
pub(super) fn seal(folder: &Path, args: &mut SealArgs, printer: &mut Printer) -> Result<Exit> {
    let Chosen { operations, warnings, generated } =
        refuse_scrub(args).and_then(|()| choose_from(&mut args.selection))?;
    args.selection.forget_passwords();
    let mut terminal = if generated.is_empty() || args.dry_run { None } else { Some(terminal()?) };
    warnings.iter().for_each(|warning| printer.warning(warning));
    if args.dry_run {
        return each([folder], printer, |folder, printer| look(folder, &operations, printer));
    }
    let digest = args.digest == DigestChoice::Sha256;
    let mut plan = TreePlan { folder: folder.to_path_buf(), operations, digest };
    let mut sealed = false;
    let exit = each([folder], printer, |_, printer| {
        let started = Instant::now();
        let report = seal_tree(&mut plan, printer)?;
        sealed = true;
        printer.end_progress();
        printer.line(&summary(&report, started, printer));
        to_json(&report)
    })?;
    if let Some(terminal) = terminal.as_mut().filter(|_| sealed) {
        show_passwords(terminal, &generated)?;
    }
    Ok(exit)
}

fn choose_from(args: &mut SelectionArgs) -> Result<Chosen> {
    let catalogue = catalogue(&args.catalogue)?;
    choose(args, &catalogue)
}

fn summary(report: &TreeReport, started: Instant, printer: &Printer) -> String {
    let Totals { counts, content } = Totals::of(&report.operations);
    format!(
        "{} {} ({}): {counts}, {} of content; nothing erased; record {}; {:.2} s",
        printer.paint("sealed", "32;1"),
        report.tree.display(),
        report.guest.os.pretty_name,
        bytes(content),
        report.record.display(),
        started.elapsed().as_secs_f64()
    ) + if report.digest.is_some() { "" } else { " (no digest)" }
}

/// `inspect --tree`.
///
/// # Errors
/// As [`seal`].
pub(super) fn inspect(folder: &Path, args: &mut InspectArgs, printer: &mut Printer) -> Result<Exit> {
    let chosen = choose_from(&mut args.selection)?;
    each([folder], printer, |folder, printer| look(folder, &chosen.operations, printer))
}

fn look(folder: &Path, operations: &[Planned], printer: &mut Printer) -> Result<(Exit, Value)> {
    printer.line(&format!("{} (nothing is changed)", folder.display()));
    let seen = survey_tree(folder, operations, printer).map_err(|error| about(folder, error))?;
    printer.line(&guest_line(&seen.guest));
    describe_operations(&seen.operations, printer);
    to_json(&seen)
}

/// `verify --tree`.
///
/// # Errors
/// As [`seal`].
pub(super) fn verify(folder: &Path, args: &VerifyArgs, printer: &mut Printer) -> Result<Exit> {
    let catalogue = catalogue(&args.catalogue)?;
    each([folder], printer, |folder, printer| {
        let verdict = verify_tree(folder, &catalogue, printer).map_err(|error| about(folder, error))?;
        printer.end_progress();
        if verdict.digest_matches == Some(false) {
            printer.warning(&format!("{} is not as it was sealed: its digest differs", folder.display()));
        }
        describe_found(&verdict.found, &verdict.unsure, printer);
        let (word, exit) = if verdict.sealed {
            (printer.paint("sealed", "32;1"), Exit::Done)
        } else {
            (printer.paint("not sealed any more", "31;1"), Exit::from(ErrorKind::Found))
        };
        printer.line(&format!("{}: {word}", folder.display()));
        to_json(&verdict).map(|(_, value)| (exit, value))
    })
}
