//! Printing: results to stdout, progress and warnings to stderr. The only place of the program that writes to either.
#![expect(clippy::print_stderr, reason = "this is the room that prints")]

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::signal::Signal;
use serde::Serialize;
use serde_json::{Value, json};

use super::args::{ColorChoice, OutputArgs};
use super::exit::Exit;
use crate::error::{Context, Error, Result};
use crate::phases::Phase;
use crate::report::{Event, Observer, OperationReport, Outcome, Stage};

/// How often a spinner turns.
const SPIN: Duration = Duration::from_millis(120);

/// How to talk, decided once.
#[derive(Debug)]
pub struct Printer {
    json: bool,
    quiet: bool,
    verbose: bool,
    trace: bool,
    color: bool,
    bar: Option<ProgressBar>,
}

impl Printer {
    /// `no_color` is whether the environment has NO_COLOR (no-color.org).
    pub fn new(args: &OutputArgs, no_color: bool) -> Self {
        let color = match args.color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => !no_color && std::io::stdout().is_terminal(),
        };
        Self {
            json: args.json,
            quiet: args.quiet,
            verbose: args.verbose,
            trace: args.trace,
            color,
            bar: None,
        }
    }

    /// For errors of the command line itself, before it is known how to talk.
    pub fn plain(json: bool) -> Self {
        Self { json, quiet: false, verbose: false, trace: false, color: false, bar: None }
    }

    /// Whether results are one JSON document.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// A line for people; nothing with --json or --quiet.
    pub fn line(&self, text: &str) {
        if !self.json && !self.quiet {
            out(text);
        }
    }

    /// A result that was asked for: text that --quiet does not hold back.
    pub fn result(&self, text: &str) {
        out(text);
    }

    /// The one JSON document of a command.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn document(&self, value: &impl Serialize) -> Result<()> {
        out(&escaped(&serde_json::to_string_pretty(value).context(|| "cannot write the result as JSON")?));
        Ok(())
    }

    /// An error with its causes, what else failed, and what to do.
    pub fn error(&mut self, error: &Error) {
        self.end_progress();
        let label = self.paint("error:", "31;1");
        eprintln!("{label} {}", clean(&error.chain()));
        and_then(error);
        if let Some(hint) = error.what_to_do() {
            eprintln!("  {} {}", self.paint("what to do:", "1"), clean(hint));
        }
    }

    /// A warning.
    pub fn warning(&self, text: &str) {
        if !self.quiet {
            eprintln!("{} {}", self.paint("warning:", "33;1"), clean(text));
        }
    }

    /// Text in a colour, where colours are on.
    pub fn paint(&self, text: &str, code: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn progress(&mut self, what: &str, done: u64, total: u64) {
        // Short work needs no bar; 64 MiB are hashed before one could be read.
        if self.quiet || total < 64 << 20 || !std::io::stderr().is_terminal() {
            return;
        }
        if self.bar.as_ref().is_some_and(|bar| bar.length() != Some(total)) {
            self.end_progress();
        }
        let bar = self.bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{msg} [{bar:40}] {bytes}/{total_bytes} {eta}");
            let bar = ProgressBar::new(total);
            if let Ok(style) = style {
                bar.set_style(style.progress_chars("=> "));
            }
            bar
        });
        bar.set_message(what.to_owned());
        bar.set_position(done);
        if done == total {
            self.end_progress();
        }
    }

    /// A line about what goes on, above the spinner where there is one.
    fn told(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| self.line(&clean(text))),
            None => self.line(&clean(text)),
        }
    }

    /// Some stages may take long and have no count to show: there a spinner says that it goes on.
    fn stage(&mut self, stage: Stage) {
        self.end_progress();
        if self.verbose {
            eprintln!("  … {stage}");
        } else if matches!(stage, Stage::Writing | Stage::ShuttingDown)
            && !self.quiet
            && std::io::stderr().is_terminal()
        {
            let spinner = ProgressBar::new_spinner().with_message(stage.to_string());
            spinner.enable_steady_tick(SPIN);
            self.bar = Some(spinner);
        }
    }

    /// Takes a progress bar or spinner off the terminal.
    pub fn end_progress(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }

    fn operation(&self, report: &OperationReport) {
        let silent =
            matches!(report.outcome, Outcome::Unchanged | Outcome::NotApplicable) && report.notes.is_empty();
        if self.json || self.quiet || (silent && !self.verbose) {
            return;
        }
        out(&format!("  {:<24} {}", self.paint(&report.name, "1"), describe(report)));
        self.notes(report);
    }

    /// How long each stage took, for those who want to know more.
    pub fn phases(&self, phases: &[Phase]) {
        for Phase { name, seconds } in phases.iter().filter(|_| self.verbose) {
            self.line(&format!("  {seconds:>8.3} s  {name}"));
        }
    }

    /// What an operation wants people to know.
    pub fn notes(&self, report: &OperationReport) {
        for note in &report.notes {
            let path = note.path.as_ref().map(|path| format!("{}: ", path.display())).unwrap_or_default();
            self.line(&format!("    note: {}", clean(&format!("{path}{}", note.message))));
        }
    }
}

impl Observer for Printer {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Image(path) if self.verbose => eprintln!("{}", clean(&path.display().to_string())),
            Event::Stage(stage) | Event::StageBegan { stage, .. } => self.stage(stage),
            Event::Attached { way, reason } if self.verbose => eprintln!("  attached by {way}: {reason}"),
            Event::Change { operation, file } if self.trace => {
                let verb = format!("{:?}", file.action).to_lowercase();
                eprintln!("  {operation}: {verb} {}", clean(&file.path.display().to_string()));
            }
            Event::Output(line) if self.verbose => eprintln!("  | {line}"),
            Event::Operation(report) => self.operation(report),
            Event::Progress { what, done, total } => self.progress(what, done, total),
            Event::Told(text) => self.told(text),
            Event::Warning(text) => self.warning(text),
            _ => {}
        }
    }

    fn wants_changes(&self) -> bool {
        self.trace
    }
}

/// Says once that a signal has to wait.
pub fn finishing(signal: Signal) {
    eprintln!(
        "{signal} came while the result is made permanent: finishing that first; a second one kills at once"
    );
}

fn and_then(error: &Error) {
    for other in error.also() {
        eprintln!("  and then: {}", clean(&other.chain()));
        and_then(other);
    }
}

/// An error for machines.
pub fn error_document(error: &Error) -> Value {
    let exit = Exit::from(error.kind());
    json!({ "error": {
        "kind": exit.name(),
        "exit-code": exit.code(),
        "message": error.chain(),
        "what-to-do": error.what_to_do(),
        "also": error.also().iter().map(Error::chain).collect::<Vec<_>>(),
    } })
}

/// "removed 3, truncated 2 (1.5 MiB) in 4 ms"
pub fn describe(report: &OperationReport) -> String {
    match report.outcome {
        Outcome::Changed => format!("{} in {} ms", amount(report), report.milliseconds),
        _ => intention(report),
    }
}

/// "would have removed 3, truncated 2 (1.5 MiB)"
pub fn intention(report: &OperationReport) -> String {
    match report.outcome {
        Outcome::NotApplicable => "not for this guest".into(),
        Outcome::Unsure => "cannot be checked any more".into(),
        Outcome::Unchanged => "nothing to do".into(),
        Outcome::Changed => format!("would have {}", amount(report)),
    }
}

fn amount(report: &OperationReport) -> String {
    let tally = report.tally;
    let text = counts(tally.removed, tally.truncated, tally.written);
    let bytes = if tally.bytes > 0 { format!(" ({})", bytes(tally.bytes)) } else { String::new() };
    text + &bytes
}

/// "removed 3, truncated 2, written 1"
pub fn counts(removed: u64, truncated: u64, written: u64) -> String {
    let parts = [("removed", removed), ("truncated", truncated), ("written", written)];
    let parts: Vec<String> =
        parts.iter().filter(|(_, count)| *count > 0).map(|(word, count)| format!("{word} {count}")).collect();
    if parts.is_empty() { "ran".into() } else { parts.join(", ") }
}

/// A length for people: bytes, KiB, MiB, …
pub fn bytes(count: u64) -> String {
    indicatif::HumanBytes(count).to_string()
}

/// Whether a terminal would do something else than show it: control characters, and those that turn the writing round.
fn harms(letter: char) -> bool {
    let turns = matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (letter.is_control() && letter != '\n') || turns
}

/// JSON that a terminal can show: what would harm stands in strings only, where an escape means the same.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for letter in json.chars() {
        if harms(letter) {
            text += &format!("\\u{:04x}", u32::from(letter));
        } else {
            text.push(letter);
        }
    }
    text
}

/// A guest chooses its file names: control characters must not reach the terminal.
pub fn clean(text: &str) -> String {
    let harmless = |letter: char| if harms(letter) { '\u{fffd}' } else { letter };
    // A second line is indented, so that no name can look like a line of ours.
    text.chars().map(harmless).collect::<String>().replace('\n', "\n    ")
}

/// A reader that went away (`| head`) is no failure.
fn out(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_guest_cannot_steer_the_terminal() {
        let name = "a\u{1b}[2J\u{9b}2J\u{202e}gpj\nerror: forged";
        assert_eq!(clean(name), "a\u{fffd}[2J\u{fffd}2J\u{fffd}gpj\n    error: forged");
        let json = escaped(&serde_json::to_string_pretty(&[name]).unwrap());
        assert!(json.chars().all(|letter| !harms(letter)), "{json}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), [name]);
    }
}
