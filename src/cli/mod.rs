//! The command line: the only room that prints, reads the environment and decides how the program ends.

pub mod added;
pub mod args;
pub mod clone;
mod describe;
mod exit;
pub mod expand;
pub mod formats;
mod guests;
pub mod operations;
pub mod place;
pub mod print;
pub mod request;
mod run;
pub mod running;
pub mod selection;
pub mod steps;
pub mod template;
mod tree;
pub mod virt;

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};

use crate::error::{Context, Error};
use crate::sys::{dumps, interrupt};
use args::Cli;
use exit::Exit;
use print::{Printer, error_document, finishing};
use template::TemplateCommand;
use virt::Called;

/// Parses, runs, and turns the result into an exit code.
pub fn main() -> ExitCode {
    if let Some(name) = asked_module() {
        return done(crate::vm::init::modprobe(&name));
    }
    if let Err(error) = dumps::none() {
        return fail(&mut Printer::plain(false), &error).into();
    }
    // Before clap: neither help nor completions shall show it, and it is started for every image.
    if std::env::args_os().skip(1).eq([crate::worker::ARGUMENT]) {
        return serve().unwrap_or_else(|error| fail(&mut Printer::plain(false), &error)).into();
    }
    if std::env::args_os().skip(1).eq([crate::vm::init::ARGUMENT]) {
        return done(be_the_machine());
    }
    let cli = match parse() {
        Ok(cli) => cli,
        Err(exit) => return exit.into(),
    };
    #[expect(clippy::disallowed_methods, reason = "the environment is read here and nowhere else")]
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let mut printer = Printer::new(&cli.output, no_color);
    #[cfg(feature = "fault-points")]
    if let Err(error) = arm_fault_point() {
        return fail(&mut printer, &error).into();
    }
    let tell = if cli.output.quiet { |_| () } else { finishing };
    let result = interrupt::watch(tell).and_then(|()| run::run(cli, &mut printer));
    let trouble = crate::sys::trouble::take();
    let mut exit = match result {
        Ok(exit) => exit,
        Err(error) => fail(&mut printer, &error),
    };
    for error in trouble {
        printer.error(&Error::failed("clean-up failed").caused_by(error));
        exit = if exit == Exit::Done { Exit::Failed } else { exit };
    }
    match exit {
        Exit::Stopped => interrupt::end().map_or(exit.into(), ExitCode::from),
        _ => exit.into(),
    }
}

/// The worker's side of a run: see [`crate::worker`].
fn serve() -> crate::error::Result<Exit> {
    let failed = || "the worker has no pipes";
    // Unbuffered: no secret is left in a buffer of the library's.
    let input = std::io::stdin().as_fd().try_clone_to_owned().context(failed)?;
    let output = std::io::stdout().as_fd().try_clone_to_owned().context(failed)?;
    crate::worker::serve(File::from(input), File::from(output)).map(|()| Exit::Done)
}

/// The name of the module that the kernel of a machine asks for: see [`crate::vm::init::MODPROBE`].
fn asked_module() -> Option<OsString> {
    let mut words = std::env::args_os();
    (words.next()? == crate::vm::init::MODPROBE).then(|| words.last()).flatten()
}

/// The machine's side of a run: see [`crate::vm`]. Returns only where there is no machine to be powered off.
fn be_the_machine() -> crate::error::Result<()> {
    let ran = crate::vm::init::run(serve_in_machine);
    if std::process::id() != 1 {
        return ran;
    }
    if let Err(error) = ran {
        fail(&mut Printer::plain(false), &error);
    }
    crate::vm::init::power_off()
}

fn serve_in_machine(inside: crate::vm::init::Inside) -> crate::error::Result<()> {
    #[cfg(feature = "fault-points")]
    if inside.has_word(crate::vm::trial::WORD) {
        return crate::vm::trial::serve(inside);
    }
    crate::isolate::agent::serve(inside)
}

fn done(result: crate::error::Result<()>) -> ExitCode {
    result.map_or_else(|error| fail(&mut Printer::plain(false), &error), |()| Exit::Done).into()
}

#[cfg(feature = "fault-points")]
fn arm_fault_point() -> crate::error::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "the environment is read here and nowhere else")]
    let armed = std::env::var(crate::fault::VARIABLE);
    armed.map_or(Ok(()), |text| crate::fault::arm(&text))
}

/// An error that ends the program: for people on stderr, with --json for machines on stdout as well.
fn fail(printer: &mut Printer, error: &Error) -> Exit {
    printer.error(error);
    if printer.is_json() {
        // The error has been told; that its document cannot be made changes nothing.
        let _ = printer.document(&error_document(error));
    }
    error.kind().into()
}

fn parse() -> Result<Cli, Exit> {
    let words = || std::env::args_os();
    let wants_json = words().skip(1).take_while(|word| word != "--").any(|word| word == "--json");
    let called = Called::by(words().next().as_deref());
    let mut command = if called == Called::Guestseal { Cli::command() } else { virt::command(called) };
    let matches = command.try_get_matches_from_mut(words()).map_err(|error| refuse(&error, wants_json))?;
    if called != Called::Guestseal {
        return virt::cli(called, &matches).map_err(|error| refuse(&error, wants_json));
    }
    if let Some(error) = misplaced(&command, &matches) {
        return Err(fail(&mut Printer::plain(wants_json), &error));
    }
    let mut cli = Cli::from_arg_matches(&matches).map_err(|error| refuse(&error, wants_json))?;
    match (&mut cli.command, matches.subcommand()) {
        (None, _) => cli.seal.place(&matches),
        (Some(args::Command::Seal(args)), Some((_, matches))) => args.place(matches),
        (Some(args::Command::Inspect(args)), Some((_, matches))) => {
            args.image.place_formats(matches);
            added::sort(&mut args.add, &mut args.selection);
        }
        (Some(args::Command::Verify(args)), Some((_, matches))) => args.image.place_formats(matches),
        (Some(args::Command::Template(TemplateCommand::Create(args))), Some((_, matches))) => {
            matches.subcommand().into_iter().for_each(|(_, matches)| args.seal.place(matches));
        }
        _ => {}
    }
    Ok(cli)
}

/// Options of `seal` before another command, or a command after options of `seal`, mean something else than they
/// say: `guestseal -n inspect IMAGE` must not lose the option, `guestseal IMAGE inspect` must not seal.
fn misplaced(command: &Command, matches: &ArgMatches) -> Option<Error> {
    let Some((name, _)) = matches.subcommand() else {
        let images = matches.get_many::<PathBuf>("images").into_iter().flatten();
        let name =
            images.filter_map(|image| image.to_str()).find(|name| command.find_subcommand(name).is_some())?;
        return Some(
            Error::usage(format!("the command `{name}` stands after other arguments"))
                .hint(format!("write it first: guestseal {name} …; an image of this name is ./{name}")),
        );
    };
    let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let own = command.get_arguments().filter(|argument| !argument.is_global_set());
    let lost = own
        .filter(|argument| matches.ids().any(|id| id == argument.get_id()))
        .find(|argument| given(argument.get_id().as_str()))?;
    Some(
        Error::usage(format!("{lost} stands before the command `{name}`"))
            .hint(format!("write options after the command: guestseal {name} …")),
    )
}

/// clap's own errors: help and version are no failures.
fn refuse(error: &clap::Error, wants_json: bool) -> Exit {
    // Printing can only fail when nobody reads.
    let _ = error.print();
    if !error.use_stderr() {
        return Exit::Done;
    }
    if wants_json {
        let text = error.render().to_string();
        let message = text.trim().strip_prefix("error: ").unwrap_or(&text);
        let _ = Printer::plain(true).document(&error_document(&Error::usage(message)));
    }
    Exit::Usage
}
