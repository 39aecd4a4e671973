//! The options of the customisation. clap keeps the values of each option together; their order on the command line, in
//! which they are done, is found by their indices.
//!
//! Host name, time zone and passwords are operations of their own, which a record is held against, so they are done at one
//! time: what is given behind the last of them comes after it, and all else before.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};

use super::selection::SelectionArgs;
use super::virt::{REFUSED, Refused};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::operation::schema::{Action, Group, Terms};
use crate::operation::step_text::{OPTIONS, StepOption, commands, script};

/// The option that brings others from a file.
const FROM_FILE: &str = "commands-from-file";
/// The option that older notes write without its value.
const DELETE: &str = "delete";
/// What it means then: no path of a guest, which all begin with a slash.
const DEVICE: &str = "device";
/// The option that names a script of the host for the guest's programs.
const RUN: &str = "run";
/// The longest such script in bytes: it goes to the worker in one message.
const SCRIPT_LIMIT: u64 = 1 << 20;
const HEADING: &str = "Customisation, in the order given";

/// The options that are operations of their own.
const SETTINGS: [&str; 4] = ["hostname", "timezone", "root_password", "password"];

/// The options of the customisation as they were typed, in their order: name and value.
#[derive(Debug, Clone, Default)]
pub struct StepArgs(Vec<(&'static str, String)>);

impl StepArgs {
    /// Adds one that has no value.
    pub(super) fn add(&mut self, name: &'static str) {
        self.0.push((name, String::new()));
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names of those that are given.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(name, _)| *name).filter(|name| !SETTINGS.contains(name))
    }

    /// Whether `--delete` stands there without a path.
    pub(super) fn removes_group(&self) -> bool {
        self.0.iter().any(|(name, value)| *name == DELETE && value == DEVICE)
    }

    /// Refuses what cannot be done whatever its value is.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`], with the reason.
    pub(super) fn refuse(&self) -> Result<()> {
        let refused = |name: &str| REFUSED.iter().find(|refused| refused.name == name);
        self.names().find_map(refused).map_or(Ok(()), |refused| Err(refuse(refused)))
    }
}

fn option(name: &'static str, form: &'static str, help: &'static str) -> Arg {
    let arg = Arg::new(name).long(name).help(help).help_heading(HEADING);
    if form.is_empty() {
        return arg.action(ArgAction::SetTrue).overrides_with(name);
    }
    let arg = arg.action(ArgAction::Append).value_name(form);
    if name == DELETE {
        return arg.num_args(0..=1).default_missing_value(DEVICE);
    }
    arg.allow_hyphen_values(true)
}

fn all() -> impl Iterator<Item = Arg> {
    let steps = OPTIONS.iter().map(|step| option(step.name, step.form, step.help));
    let file =
        option(FROM_FILE, "FILENAME", "Read further options of this kind from a file, one in each line");
    let refused = REFUSED.iter().filter(|refused| !refused.elsewhere).map(|refused| {
        let form = if refused.takes_value { "VALUE" } else { "" };
        option(refused.name, form, refused.reason).hide(true)
    });
    let run =
        option(RUN, "SCRIPT", "Run a script of this host in the guest, by the guest's programs, shut in");
    steps.chain([file, run]).chain(refused)
}

impl clap::Args for StepArgs {
    fn augment_args(command: Command) -> Command {
        command.args(all())
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for StepArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let names = OPTIONS.iter().map(|step| (step.name, !step.form.is_empty()));
        let refused = REFUSED.iter().filter(|refused| !refused.elsewhere);
        let names = names
            .chain([(FROM_FILE, true), (RUN, true)])
            .chain(refused.map(|one| (one.name, one.takes_value)));
        let mut typed = Vec::new();
        for (name, takes_value) in names {
            if takes_value {
                let values = matches.get_many::<String>(name).into_iter().flatten().cloned();
                let places = matches.indices_of(name).into_iter().flatten();
                typed.extend(places.zip(values).map(|(place, value)| (place, name, value)));
            } else if matches.get_flag(name) {
                typed.extend(matches.index_of(name).map(|place| (place, name, String::new())));
            }
        }
        for name in SETTINGS {
            // `inspect` has no passwords to set.
            let places = matches.try_contains_id(name).is_ok().then(|| matches.indices_of(name)).flatten();
            typed.extend(places.into_iter().flatten().map(|place| (place, name, String::new())));
        }
        typed.sort_by_key(|(place, ..)| *place);
        Ok(Self(typed.into_iter().map(|(_, name, value)| (name, value)).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The steps that were asked for, in their order: those before host name, time zone and passwords, and those after. What a
/// file of commands says of these is put with the other options of these.
///
/// # Errors
/// Usage errors of values, and [`ErrorKind::Unsupported`] for options that cannot be done.
pub(super) fn steps(args: &mut SelectionArgs) -> Result<[Vec<Action>; 2]> {
    let mut steps = Steps::default();
    for (name, value) in std::mem::take(&mut args.steps.0) {
        if name == FROM_FILE {
            from_file(&value, args, &mut steps)?;
        } else if SETTINGS.contains(&name) {
            steps.setting();
        } else if name == DELETE && value == DEVICE {
            args.remove.push(Group::Device);
        } else {
            steps.after.extend(of(name, &value)?);
        }
    }
    Ok(if steps.has_settings { [steps.before, steps.after] } else { [steps.after, Vec::new()] })
}

#[derive(Default)]
struct Steps {
    before: Vec<Action>,
    /// Behind the last setting, or all when there is none.
    after: Vec<Action>,
    has_settings: bool,
}

impl Steps {
    fn setting(&mut self) {
        self.has_settings = true;
        self.before.append(&mut self.after);
    }
}

fn of(name: &str, value: &str) -> Result<Vec<Action>> {
    if name == RUN {
        return run(value).map(|action| vec![action]);
    }
    match (StepOption::named(name), REFUSED.iter().find(|refused| refused.name == name)) {
        (Some(option), _) => option.actions(value),
        (None, Some(refused)) => Err(refuse(refused)),
        (None, None) => Err(Error::usage(format!("{name} is no command of a customisation"))
            .hint("each line has an option of virt-customize without its dashes, such as: mkdir /srv/site")),
    }
}

/// The script in a file of the host.
fn run(name: &str) -> Result<Action> {
    let failed = || format!("--{RUN} cannot read {name}");
    let file = fs::File::open(name).context_kind(ErrorKind::Usage, failed)?;
    let mut text = String::new();
    file.take(SCRIPT_LIMIT + 1).read_to_string(&mut text).context_kind(ErrorKind::Usage, failed)?;
    if text.len() as u64 > SCRIPT_LIMIT {
        return Err(Error::usage(format!("--{RUN} {name}: a script has at most {SCRIPT_LIMIT} bytes"))
            .hint("bring it with --upload, and run it by --run-command"));
    }
    script(&text).map(Action::Run).map_err(|what| Error::usage(format!("--{RUN} {name}: {what}")))
}

/// Gives programs of the customisation the network, or takes it from them.
pub(super) fn set_network(actions: &mut [Action], network: bool) {
    actions.iter_mut().filter_map(Terms::of_mut).for_each(|terms| terms.network = network);
}

fn refuse(refused: &Refused) -> Error {
    let dashes = if refused.name.len() == 1 { "-" } else { "--" };
    let error = Error::unsupported(format!("{dashes}{} is not done: {}", refused.name, refused.reason));
    error.hint(refused.instead)
}

fn from_file(name: &str, args: &mut SelectionArgs, steps: &mut Steps) -> Result<()> {
    let failed = || format!("--{FROM_FILE} cannot read {name}");
    let text = fs::read_to_string(PathBuf::from(name)).context_kind(ErrorKind::Usage, failed)?;
    for (line, command, value) in commands(&text) {
        if SETTINGS.contains(&command.replace('-', "_").as_str()) {
            steps.setting();
        }
        let done = match command.as_str() {
            "hostname" => {
                args.hostname = Some(value);
                Ok(())
            }
            "timezone" => {
                args.timezone = Some(value);
                Ok(())
            }
            "password-crypto" => {
                args.password_crypto = Some(value);
                Ok(())
            }
            "root-password" => {
                args.root_password = Some(value.into());
                Ok(())
            }
            "password" => {
                args.password.push(value.into());
                Ok(())
            }
            FROM_FILE => Err(Error::usage(format!("a file of commands cannot name another by {FROM_FILE}"))),
            command => of(command, &value).map(|new| steps.after.extend(new)),
        };
        done.map_err(|error| error.within(format!("line {line} of {name}")))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::Cli;

    fn order(words: &[&str]) -> String {
        let cli = Cli::try_parse_from([&["guestseal"], words].concat()).expect("a good command line");
        let mut selection = cli.seal.selection;
        let actions = steps(&mut selection).expect("good steps");
        let told = |action: &Action| {
            let json = serde_json::to_value(action).expect("an action");
            json.as_object().and_then(|verb| verb.keys().next().cloned()).unwrap_or_default()
        };
        let told = |actions: &Vec<Action>| actions.iter().map(told).collect::<Vec<_>>().join(" ");
        actions.iter().map(told).collect::<Vec<_>>().join(" | ").trim_end_matches([' ', '|']).to_owned()
    }

    #[test]
    fn steps_are_in_the_order_of_the_command_line() {
        let words = [
            "--mkdir=/a",
            "--write",
            "/a/x:1",
            "--hostname",
            "web",
            "--mkdir",
            "/b",
            "--no-logfile",
            "--touch",
            "/c",
        ];
        assert_eq!(order(&words), "mkdir write | mkdir remove touch");
        let words =
            ["--run-command", "useradd bob", "--password", "bob:random", "--run-command", "chage -d 0 bob"];
        assert_eq!(order(&words), "run | run");
        let words = [
            "--timezone",
            "UTC",
            "--touch",
            "/a",
            "--root-password",
            "locked",
            "--mkdir",
            "/b",
            "--hostname",
            "web",
        ];
        assert_eq!(order(&words), "touch mkdir");
        assert_eq!(order(&["--hostname", "web", "--touch", "/a"]), " | touch");
        assert_eq!(order(&["--touch", "/c", "x.img", "--mkdir", "/a", "--touch", "/d"]), "touch mkdir touch");
        assert_eq!(
            order(&["--delete", "--touch", "/c", "--delete", "/a", "--mkdir", "/b"]),
            "touch delete mkdir"
        );
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), "copy /a:/b\nhostname db\n\nmove /a:/b\n").expect("a file");
        let name = file.path().to_string_lossy();
        assert_eq!(
            order(&["--touch", "/c", "--commands-from-file", &name, "--mkdir", "/a"]),
            "touch copy | move mkdir"
        );
    }
}
