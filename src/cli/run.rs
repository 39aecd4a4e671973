//! What each command does.

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::CommandFactory;
use serde_json::{Value, json};

use super::added::{disks, refuse_disks, refuse_others};
use super::args::{Cli, Command, ImageArgs, InspectArgs, SealArgs, VerifyArgs};
use super::describe::{Totals, describe_erasure, describe_found, describe_guest, summary};
use super::exit::Exit;
use super::expand::told;
use super::guests::{self, Guests};
use super::operations::{list, operations};
use super::place::PlaceArgs;
use super::print::{Printer, bytes, error_document};
use super::request::{Plans, catalogue, choose, isolation, mount_options, plans};
use super::{clone, template, tree, virt};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::guest::secret::Secret;
use crate::image::commit::CommitMode;
use crate::image::past::Past;
use crate::image::place::Named;
use crate::image::uri;
use crate::plan::{Plan, Planned};
use crate::recover::of_several;
use crate::rehearsal::rehearse;
use crate::seal::seal;
use crate::survey::{Target, residue, survey, verify};
use crate::sys::interrupt;

/// Runs the command.
///
/// # Errors
/// What kept it from being done.
pub(super) fn run(cli: Cli, printer: &mut Printer) -> Result<Exit> {
    match cli.command {
        None => seal_images(cli.seal, printer),
        Some(Command::Seal(args)) => seal_images(args, printer),
        Some(Command::Inspect(args)) => inspect(args, printer),
        Some(Command::Verify(args)) => verify_images(&args, printer),
        Some(Command::Recover(args)) => {
            each(&args.images, printer, |image, printer| recover(image, &args.place, printer))
        }
        Some(Command::Clone(args)) => clone::clone(&args, printer),
        Some(Command::Template(command)) => template::template(command, printer),
        Some(Command::Operations(command)) => operations(command, printer),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "guestseal", &mut script);
            printer.result(String::from_utf8_lossy(&script).trim_end());
            Ok(Exit::Done)
        }
        Some(Command::Man { dir }) => manual(dir.as_deref(), printer),
    }
}

fn seal_images(mut args: SealArgs, printer: &mut Printer) -> Result<Exit> {
    if args.list_operations {
        return list(&args.selection.catalogue, printer);
    }
    args.selection.steps.refuse()?;
    virt::check(&mut args)?;
    if let Some(folder) = args.tree.take() {
        refuse_disks(&args.add)?;
        return tree::seal(&folder, &mut args, printer);
    }
    let Plans { plans, warnings, generated } = plans(&mut args)?;
    args.selection.forget_passwords();
    let shown = !generated.is_empty() && !args.dry_run && !args.rehearse;
    let mut terminal = shown.then(terminal).transpose()?;
    warnings.iter().for_each(|warning| printer.warning(warning));
    for domain in plans.iter().filter_map(|plan| plan.domain.as_ref()) {
        guests::tell_notes(domain, printer);
    }
    let mut sealed = false;
    let exit = each(plans, printer, |mut plan, printer| {
        if args.dry_run {
            plan.domain.as_ref().map_or(Ok(()), |domain| domain.warn_unless_off(printer))?;
            return look(&Target::from(&plan), &plan.operations, printer);
        }
        if args.rehearse {
            return rehearsed(&mut plan, printer);
        }
        let started = Instant::now();
        let report = seal(&mut plan, printer).map_err(|error| match plan.commit {
            CommitMode::InPlace => half_edited(&plan.images, error),
            _ => about_all(&plan.images, error),
        })?;
        sealed = true;
        printer.end_progress();
        printer.line(&summary(&plan, &report, started, printer));
        report.expanded.iter().for_each(|expanded| printer.line(&format!("  {}", told(expanded, true))));
        printer.phases(&report.phases);
        to_json(&report)
    })?;
    if let Some(terminal) = terminal.as_mut().filter(|_| sealed) {
        show_passwords(terminal, &generated)?;
    }
    Ok(exit)
}

fn rehearsed(plan: &mut Plan, printer: &mut Printer) -> Result<(Exit, Value)> {
    let report = rehearse(plan, printer).map_err(|error| about_all(&plan.images, error))?;
    printer.end_progress();
    let Totals { counts, content } = Totals::of(&report.operations);
    let (images, content) = (names(&plan.images), bytes(content));
    printer.line(&format!("{images}: {counts}, {content} of content; all of it was thrown away"));
    report.expanded.iter().for_each(|expanded| printer.line(&format!("  {}", told(expanded, true))));
    printer.phases(&report.phases);
    to_json(&report)
}

/// A made password is shown once, on the terminal itself: never in a pipe, a log or the record.
pub(super) fn terminal() -> Result<fs::File> {
    fs::File::options().write(true).open("/dev/tty").ok().filter(IsTerminal::is_terminal).ok_or_else(|| {
        Error::usage("a random password can only be shown on a terminal, and there is none")
            .hint("use file:FILE instead")
    })
}

pub(super) fn show_passwords(terminal: &mut fs::File, generated: &[(String, Secret)]) -> Result<()> {
    for (user, password) in generated {
        writeln!(terminal, "the new password of {user} is: {}", password.expose())
            .context(|| "cannot show the new password")?;
    }
    Ok(())
}

/// Does the same to several images: each is tried, the first failure decides the exit code. After a signal none is
/// begun, and the program ends by it.
pub(super) fn each<T>(
    images: impl IntoIterator<Item = T>,
    printer: &mut Printer,
    mut work: impl FnMut(T, &mut Printer) -> Result<(Exit, Value)>,
) -> Result<Exit> {
    let (mut exit, mut results) = (Exit::Done, Vec::new());
    for image in images {
        let (this, value) =
            match interrupt::check_before("work on this image").and_then(|()| work(image, printer)) {
                Ok(done) => done,
                Err(error) => {
                    printer.error(&error);
                    (error.kind().into(), error_document(&error))
                }
            };
        exit = if exit == Exit::Done || this == Exit::Stopped { this } else { exit };
        results.push(value);
    }
    if printer.is_json() {
        printer.document(&json!({ "images": results }))?;
    }
    Ok(exit)
}

/// Of several images, the error says which; after a signal it says what became of the image.
pub(super) fn about(image: &Path, error: Error) -> Error {
    about_all(&[image.to_path_buf()], error)
}

/// The same for the disks of one guest.
pub(super) fn about_all(images: &[PathBuf], error: Error) -> Error {
    if error.kind() == ErrorKind::Stopped {
        return error.within(format!("nothing was changed in {}", names(images)));
    }
    let chain = error.chain();
    let name = |image: &PathBuf| image.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if images.iter().any(|image| chain.contains(&name(image))) {
        error
    } else {
        error.within(format!("cannot work on {}", names(images)))
    }
}

/// The disks of one guest, for people.
fn names(images: &[PathBuf]) -> String {
    let names: Vec<_> = images.iter().map(|image| image.display().to_string()).collect();
    names.join(", ")
}

fn half_edited(images: &[PathBuf], error: Error) -> Error {
    match error.kind() {
        ErrorKind::Stopped => error
            .within(format!("{} may be half edited", names(images)))
            .hint("--in-place undoes nothing: seal it again, or take your copy"),
        _ => about_all(images, error),
    }
}

pub(super) fn to_json(value: &impl serde::Serialize) -> Result<(Exit, Value)> {
    serde_json::to_value(value).map(|value| (Exit::Done, value)).context(|| "cannot write the result as JSON")
}

/// How to open guests, for all of them: keys on standard input are there only once.
pub(super) fn target(args: &ImageArgs, guests: &Guests, operations: &[Planned]) -> Result<Target> {
    Ok(Target {
        images: Vec::new(),
        formats: guests.formats.clone(),
        surroundings: args.place.surroundings(),
        attach: args.attach.way(),
        isolation: isolation(args, operations)?,
        root: args.root.clone(),
        mount_options: mount_options(args)?,
        expand: None,
        repair: false,
        past: Past { allow_backing: args.allow_backing, ..Past::default() },
    })
}

fn inspect(mut args: InspectArgs, printer: &mut Printer) -> Result<Exit> {
    args.selection.steps.refuse()?;
    if let Some(folder) = args.tree.take() {
        refuse_disks(&args.add)?;
        return tree::inspect(&folder, &mut args, printer);
    }
    let catalogue = catalogue(&args.selection.catalogue)?;
    let chosen = choose(&mut args.selection, &catalogue)?;
    let guests = guests::to_look_at((&args.images, &disks(&args.add)), &args.domain, &args.image, printer)?;
    let target = target(&args.image, &guests, &chosen.operations)?;
    each(guests.guests, printer, |images, printer| {
        look(&Target { images, ..target.clone() }, &chosen.operations, printer)
    })
}

fn look(target: &Target, operations: &[Planned], printer: &mut Printer) -> Result<(Exit, Value)> {
    printer.line(&format!("{} (nothing is changed)", names(&target.images)));
    let seen = survey(target, operations, printer).map_err(|error| about_all(&target.images, error))?;
    describe_guest(&seen, printer);
    to_json(&seen)
}

fn verify_images(args: &VerifyArgs, printer: &mut Printer) -> Result<Exit> {
    refuse_others(&args.add)?;
    if let Some(folder) = &args.tree {
        refuse_disks(&args.add)?;
        return tree::verify(folder, args, printer);
    }
    let catalogue = catalogue(&args.catalogue)?;
    let guests = guests::to_look_at((&args.images, &disks(&args.add)), &args.domain, &args.image, printer)?;
    let target = target(&args.image, &guests, &[])?;
    each(guests.guests, printer, |images, printer| {
        if let ([image], false) = (images.as_slice(), args.residue)
            && template::is_clone(image)
        {
            return template::verify_clone(image, printer);
        }
        let target = Target { images, ..target.clone() };
        let verdict =
            if args.residue { residue(&target, printer) } else { verify(&target, &catalogue, printer) };
        let verdict = verdict.map_err(|error| about_all(&target.images, error))?;
        printer.end_progress();
        verdict.erasure.iter().for_each(|erasure| describe_erasure(erasure, printer));
        if let Some(container) = verdict.container.as_ref().filter(|container| container.bytes_nonzero > 0) {
            let left = bytes(container.bytes_nonzero);
            printer.line(&format!(
                "    the file       -        {left} not zero in what holds nothing of the disk"
            ));
        }
        let differs = match verdict.disks.as_slice() {
            [] if verdict.digest_matches == Some(false) => vec![&verdict.image],
            disks => disks.iter().filter(|d| d.digest_matches == Some(false)).map(|d| &d.image).collect(),
        };
        for image in differs {
            printer
                .warning(&format!("{} is not the file that was sealed: its digest differs", image.display()));
        }
        verdict.mounted.iter().for_each(|sentence| printer.warning(sentence));
        describe_found(&verdict.found, &verdict.unsure, printer);
        let (good, bad) = if args.residue {
            ("nothing deleted can be read back", "deleted data can be read back")
        } else {
            ("sealed", "not sealed any more")
        };
        let unproven =
            args.residue && verdict.erasure.as_ref().is_some_and(|e| e.unproven().next().is_some());
        let word = match (verdict.sealed, unproven) {
            (false, _) => printer.paint(bad, "31;1"),
            (true, true) => printer.paint("not proven", "31;1"),
            (true, false) => printer.paint(good, "32;1"),
        };
        printer.line(&format!("{}: {word}", names(&target.images)));
        let exit = if verdict.sealed && !unproven { Exit::Done } else { Exit::from(ErrorKind::Found) };
        to_json(&verdict).map(|(_, value)| (exit, value))
    })
}

fn recover(image: &Path, place: &PlaceArgs, printer: &mut Printer) -> Result<(Exit, Value)> {
    if uri::is_remote(image)? {
        return Err(Error::usage(
            "a disk that is not on this host is never written, so nothing of it was interrupted",
        )
        .hint("name the image, or the block device, that was sealed in place"));
    }
    let named = Named { path: image, surroundings: Some(&place.surroundings()) };
    let finished = crate::recover::recover(named, printer).map_err(|error| about(image, error))?;
    printer.end_progress();
    let text = finished.as_ref().map_or_else(
        || "nothing to recover".to_owned(),
        |done| {
            format!(
                "the interrupted commit is finished: {} sealed; record {}",
                match done.disks.as_slice() {
                    [_] => "the image is".to_owned(),
                    disks => format!("all {} disks are", disks.len()),
                },
                done.record.display()
            )
        },
    );
    printer.line(&format!("{}: {text}", image.display()));
    let mut result = json!({ "image": image, "recovered": finished.is_some() });
    if let Some(done) = finished {
        let (disks, sha256) = of_several(done.disks);
        result["record"] = json!(done.record);
        if disks.is_empty() {
            result["sha256"] = json!(sha256);
        } else {
            result["disks"] = json!(disks);
        }
    }
    Ok((Exit::Done, result))
}

fn manual(dir: Option<&Path>, printer: &Printer) -> Result<Exit> {
    if let Some(dir) = dir {
        let written = clap_mangen::generate_to(Cli::command(), dir);
        written.context(|| format!("cannot write manual pages to {}", dir.display()))?;
        return Ok(Exit::Done);
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page).context(|| "cannot make the manual page")?;
    printer.result(String::from_utf8_lossy(&page).trim_end());
    Ok(Exit::Done)
}
