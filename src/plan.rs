//! The frozen decisions of a run: everything that can be decided without privilege, before anything is touched.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::action::Settings;
use crate::action::user_accounts::ADDED;
use crate::attach::Way;
use crate::domain::{Domain, WhileRunning};
use crate::erase::policy::ErasePlan;
use crate::error::{Error, ErrorKind, Result};
use crate::expand::Expand;
use crate::guest::names::{check_hostname, check_timezone};
use crate::guest::password::PasswordChange;
use crate::image::commit::CommitMode;
use crate::image::format::Format;
use crate::image::past::Past;
use crate::image::place::Surroundings;
use crate::isolate::Isolation;
use crate::mount::wanted::Wanted;
use crate::operation::network::Network;
use crate::operation::schema::{Action, ParameterKind, Terms};
use crate::operation::user::User;
use crate::operation::{Catalogue, Given, Operation, Selection};
use crate::payload::Source;
use crate::record::SealedOperation;

/// The operation that takes passwords.
pub const PASSWORDS: (&str, &str) = ("root-password", "passwords");

/// The operations that do the steps of a customisation: before host name, time zone and passwords, and after them.
pub const STEPS: [(&str, &str); 2] = [("customize-steps", "steps"), ("customize-after", "steps")];

/// The operation that adds accounts.
pub const USERS: (&str, &str) = ("add-user", "users");

/// The operation that sets up interfaces.
pub const NETWORKS: (&str, &str) = ("network", "networks");

/// What is done with one guest.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The domain of libvirt whose guest it is, where the user named one.
    pub domain: Option<Domain>,
    /// What is done with it while it runs.
    pub while_running: WhileRunning,
    /// The images of its disks.
    pub images: Vec<PathBuf>,
    /// The format of each, where the user said it.
    pub formats: Vec<Option<Format>>,
    /// What images that are no files need to know of the user.
    pub surroundings: Surroundings,
    /// How to attach them; none to take the first way that works.
    pub attach: Option<Way>,
    /// Whether the guest is mounted in a machine of its own.
    pub isolation: Isolation,
    /// Which volume has the root, where there are several systems.
    pub root: Option<String>,
    /// Mount options beside our own.
    pub mount_options: Vec<Wanted>,
    /// Which size the first disk gets, and what fills it; none to leave it as it is.
    pub expand: Option<Expand>,
    /// Whether the guest's filesystems are checked and repaired first.
    pub repair: bool,
    /// How the result becomes permanent.
    pub commit: CommitMode,
    /// What is erased, and how it is judged.
    pub erase: ErasePlan,
    /// What becomes of what the image holds besides its disk.
    pub past: Past,
    /// What runs, in order.
    pub operations: Vec<Planned>,
    /// Whether the sealed image is hashed for the record.
    pub digest: bool,
}

impl Plan {
    /// Wipes the passwords, which nothing needs any more once they are set.
    pub fn forget_passwords(&mut self) {
        self.operations.iter_mut().for_each(|planned| planned.settings.passwords.clear());
    }
}

/// One operation that runs.
#[derive(Debug, Clone)]
pub struct Planned {
    /// As its file says it.
    pub operation: Operation,
    /// With these parameters.
    pub settings: Settings,
    /// The files of the host that it brings into the guest, by their numbers.
    pub sources: Vec<Source>,
}

impl Planned {
    /// Whether it does steps of the customisation.
    pub fn is_customisation(&self) -> bool {
        STEPS.iter().any(|(name, _)| *name == self.operation.name)
    }
}

/// The parameters that were given, by operation and name.
#[derive(Debug, Default)]
pub struct Parameters {
    /// Plain ones.
    pub values: BTreeMap<(String, String), String>,
    /// Passwords: user and what becomes of theirs.
    pub passwords: Vec<(String, PasswordChange)>,
    /// Steps of the customisation, in their order, for each of [`STEPS`].
    pub steps: [Vec<Action>; 2],
}

impl Parameters {
    /// Sets one.
    pub fn set(&mut self, operation: &str, parameter: &str, value: impl Into<String>) {
        self.values.insert((operation.to_owned(), parameter.to_owned()), value.into());
    }

    /// Their names, for the selection.
    pub fn given(&self) -> Vec<Given<'_>> {
        let plain = self.values.keys().map(|(operation, parameter)| Given { operation, parameter });
        let of = |(operation, parameter): (&'static str, &'static str)| Given { operation, parameter };
        let passwords = (!self.passwords.is_empty()).then_some(of(PASSWORDS));
        let steps =
            self.steps.iter().zip(STEPS).filter(|(steps, _)| !steps.is_empty()).map(|(_, name)| of(name));
        plain.chain(passwords).chain(steps).collect()
    }
}

/// Gives each selected operation its parameters.
///
/// # Errors
/// [`ErrorKind::Usage`] when a value is not of its kind.
pub fn with_parameters(selection: &Selection<'_>, parameters: &Parameters) -> Result<Vec<Planned>> {
    selection.run.iter().map(|operation| planned(operation, parameters)).collect()
}

/// Repeats behind the customisation what removes the traces of programs, when it runs programs of the guest: their logs and
/// caches, and the keys and ids that packages make when they are installed, are no less those of the template.
pub fn with_traces_removed(operations: &mut Vec<Planned>) {
    let runs =
        |planned: &&Planned| planned.operation.actions.iter().any(|action| Terms::of(action).is_some());
    if !operations.iter().filter(|planned| planned.is_customisation()).any(|planned| runs(&planned)) {
        return;
    }
    let Some(last) = operations.iter().rposition(Planned::is_customisation) else { return };
    let again: Vec<Planned> =
        operations[..last].iter().filter(|planned| planned.operation.after_programs).cloned().collect();
    operations.splice(last + 1..last + 1, again);
}

fn planned(operation: &Operation, parameters: &Parameters) -> Result<Planned> {
    let mut settings = Settings::default();
    for (name, parameter) in &operation.parameters {
        if matches!(parameter.kind, ParameterKind::Secret | ParameterKind::Steps) {
            if parameters.values.contains_key(&(operation.name.clone(), name.clone())) {
                let what =
                    format!("the parameter {}.{name} is no text, so --set does not take it", operation.name);
                return Err(Error::usage(what).hint(
                    "passwords are set by --root-password and --password, steps by their own options or a profile",
                ));
            }
            continue;
        }
        let given =
            parameters.values.get(&(operation.name.clone(), name.clone())).or(parameter.default.as_ref());
        if let Some(value) = given {
            check(parameter.kind, value).map_err(|error| {
                Error::usage(format!("the parameter {}.{name} is wrong", operation.name)).caused_by(error)
            })?;
            settings.values.insert(name.clone(), value.clone());
        }
    }
    if operation.actions.iter().any(|action| matches!(action, Action::UserAccounts(_))) {
        keep_added(&mut settings, parameters)?;
    }
    if operation.name == PASSWORDS.0 {
        settings.passwords.clone_from(&parameters.passwords);
    }
    let mut operation = operation.clone();
    if let Some(place) = STEPS.iter().position(|(name, _)| *name == operation.name) {
        operation.actions.clone_from(&parameters.steps[place]);
    }
    Ok(Planned { operation, settings, sources: Vec::new() })
}

/// An account that is added is not among those that go: later it would be found as one that was left.
fn keep_added(settings: &mut Settings, parameters: &Parameters) -> Result<()> {
    let Some(users) = parameters.values.get(&(USERS.0.to_owned(), USERS.1.to_owned())) else { return Ok(()) };
    let users = User::list(users).map_err(Error::usage)?;
    let names: Vec<&str> = users.iter().map(|user| user.name.as_str()).collect();
    let removed = settings.list("remove");
    if let Some(name) = names.iter().find(|name| removed.iter().any(|other| other == *name)) {
        return Err(Error::usage(format!("the account {name} is both added and removed")).hint(
            "leave out one of the two: an account that is there already is changed as --add user: says",
        ));
    }
    settings.values.insert(ADDED.to_owned(), names.join(","));
    Ok(())
}

fn check(kind: ParameterKind, value: &str) -> Result<()> {
    match kind {
        ParameterKind::Users => User::list(value).map(drop).map_err(Error::usage),
        ParameterKind::Networks => Network::list(value).map(drop).map_err(Error::usage),
        ParameterKind::Hostname => check_hostname(value),
        ParameterKind::Timezone => check_timezone(value),
        ParameterKind::Flag if !matches!(value, "true" | "false") => {
            Err(Error::usage(format!("{value:?} is neither true nor false")))
        }
        _ if value.contains(['\n', '\0']) => Err(Error::new(ErrorKind::Usage, "it must be one line")),
        _ => Ok(()),
    }
}

/// The plan by which a recorded sealing is checked: the same operations and parameters, secrets unknown.
///
/// # Errors
/// When an operation of the record is unknown here.
pub fn recorded(catalogue: &Catalogue, operations: Vec<SealedOperation>) -> Result<Vec<Planned>> {
    let plan = |SealedOperation { name, parameters, uuids, .. }: SealedOperation| {
        let operation = catalogue.get(&name).map_err(|error| {
            Error::usage(format!("the record names the operation {name}, which is unknown here"))
                .caused_by(error)
                .hint("give the folder that has it: --operations-dir DIR")
        })?;
        let settings =
            Settings { values: parameters, uuids: Some(uuids), recorded: true, ..Settings::default() };
        Ok(Planned { operation: operation.clone(), settings, sources: Vec::new() })
    };
    operations.into_iter().map(plan).collect()
}
