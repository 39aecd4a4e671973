//! The verbs of operation files, one a file. Each looks at the guest and says what has to change; nothing here writes.
//! Actions see the guest's files and what was found out about it, never the host.

#![forbid(unsafe_code)]

pub mod brought;
mod data;
mod edit;
mod hostname;
mod machine_id;
mod network;
mod passwords;
mod programs;
pub mod random_seed;
mod ssh_keys;
mod steps;
mod timezone;
pub mod user_accounts;
mod users;
mod uuids;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use regex::bytes::Regex;
use serde::{Deserialize, Serialize};

use brought::Item;

use crate::error::{Context, Error, Result};
use crate::guest::change::Change;
use crate::guest::glob::{KeepSet, Pattern, find_all};
use crate::guest::password::PasswordChange;
use crate::guest::path_serde;
use crate::guest::{Entry, GuestRoot};
use crate::inspect::guest::Guest;
use crate::operation::schema::{Action, Lines, When};
use crate::uuids::NewUuid;

/// What an action may look at.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The guest's files.
    pub root: &'a GuestRoot,
    /// What was found out about it.
    pub guest: &'a Guest,
    /// The operation's parameters.
    pub settings: &'a Settings,
}

/// The parameters of one operation in this run.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// By name, defaults filled in, secrets left out.
    pub values: BTreeMap<String, String>,
    /// What verbs bring from the host, by verb and path: see [`brought::key`].
    pub brought: BTreeMap<String, Vec<Item>>,
    /// Passwords to set, for the operation that takes them.
    pub passwords: Vec<(String, PasswordChange)>,
    /// The UUIDs that the operation replaces; none until they are decided.
    pub uuids: Option<Vec<NewUuid>>,
    /// True when they come from a record and the guest is held against it: an account to remove is gone by then.
    pub recorded: bool,
}

impl Settings {
    /// A parameter's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Whether a parameter is `true`.
    pub fn is_set(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    /// The words of a list.
    pub fn list(&self, name: &str) -> Vec<String> {
        let words = self.get(name).unwrap_or_default().split(',').map(str::trim);
        words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    fn required(&self, name: &str) -> Result<&str> {
        self.get(name).ok_or_else(|| Error::usage(format!("the parameter {name:?} is missing")))
    }

    /// Puts parameters in place of `{{name}}`.
    fn fill(&self, text: &str) -> String {
        self.values
            .iter()
            .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value))
    }
}

/// What looking found.
#[derive(Debug, Default)]
pub struct Findings {
    /// What has to change, in this order.
    pub changes: Vec<Change>,
    /// What people should know.
    pub notes: Vec<Note>,
    /// Scripts of the host to run in the guest's root folder, after the changes.
    pub scripts: Vec<PathBuf>,
    /// A script for the guest's own programs to run, after the changes.
    pub program: Option<String>,
    /// Whether more changes than files, once the guest is no longer mounted.
    pub later: bool,
    /// True when part of it cannot be judged without a secret.
    pub unsure: bool,
}

impl Findings {
    /// Changes and notes of another look come behind these.
    fn add(&mut self, other: Self) {
        self.changes.extend(other.changes);
        self.notes.extend(other.notes);
    }

    fn note(&mut self, path: impl Into<Option<PathBuf>>, message: impl Into<String>) {
        self.notes.push(Note { path: path.into(), message: message.into() });
    }
}

impl From<Vec<Change>> for Findings {
    fn from(changes: Vec<Change>) -> Self {
        Self { changes, ..Self::default() }
    }
}

/// Something that people should know and that changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The file it is about.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "path_serde::option")]
    pub path: Option<PathBuf>,
    /// What it is.
    pub message: String,
}

/// Looks at the guest and says what this action would change. Changing that and looking again finds nothing.
///
/// # Errors
/// When the guest cannot be read, or is such that the action cannot do right by it.
pub fn look(action: &Action, view: View<'_>) -> Result<Findings> {
    match action {
        // What later steps made of an earlier one cannot be told.
        step if step.is_step() && view.settings.recorded => {
            Ok(Findings { unsure: true, ..Findings::default() })
        }
        Action::Remove(remove) => data::remove(remove, view),
        Action::Truncate(truncate) => data::truncate(truncate, view),
        Action::Write(write) => data::write(write, view),
        Action::Link(link) => data::link(link, view),
        Action::Detect(detect) => data::detect(detect, view),
        Action::Edit(edit) => edit::edit(edit, view),
        Action::MachineId(id) => machine_id::reset(id, view),
        Action::RandomSeed(seed) => random_seed::give(seed, view),
        Action::SshdHostKeys(_) => ssh_keys::remove_configured(view),
        Action::RegenerateSshHostKeys(_) => ssh_keys::regenerate(view),
        Action::Hostname(_) => hostname::set(view),
        Action::Timezone(_) => timezone::set(view),
        Action::Passwords(_) => passwords::set(view),
        Action::UserAccounts(_) => user_accounts::remove(view),
        Action::User(user) => users::have(std::slice::from_ref(user), view),
        Action::Users(_) => users::given(view),
        Action::Network(network) => network::set_up(std::slice::from_ref(network), view),
        Action::Networks(_) => network::given(view),
        // What a script did, nobody can tell later.
        Action::Script(_) if view.settings.recorded => Ok(Findings { unsure: true, ..Findings::default() }),
        Action::Script(_) => Ok(Findings {
            scripts: view.settings.list("scripts").into_iter().map(PathBuf::from).collect(),
            ..Findings::default()
        }),
        Action::Run(run) => programs::run(run, view),
        Action::Packages(packages) => programs::packages(packages, view),
        Action::NewUuids(verb) => uuids::mend(verb, view),
        step => steps::look(step, view),
    }
}

/// Everything that the globs match, sorted, once each, less what is kept.
fn find(paths: &[String], keep: &[String], view: View<'_>) -> Result<Vec<Entry>> {
    let homes = &view.guest.homes;
    let keep = KeepSet::new(keep, homes)?;
    let mut found = Vec::new();
    let patterns = paths.iter().map(|text| Pattern::parse(text)).collect::<Result<Vec<_>>>()?;
    find_all(&patterns, view.root, homes, &mut found)?;
    found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    found.dedup_by(|a, b| a.path == b.path);
    let mut keeper = keep.ask();
    found.retain(|entry| !keeper.keeps(&entry.path));
    Ok(found)
}

/// Whether the guest meets the condition.
///
/// # Errors
/// When the guest cannot be read.
pub fn meets(when: &When, view: View<'_>) -> Result<bool> {
    let guest = view.guest;
    let any = |globs: &[String]| -> Result<bool> {
        for glob in globs {
            if !find(std::slice::from_ref(glob), &[], view)?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    };
    Ok((when.distro.is_empty() || when.distro.iter().any(|name| guest.os.is_like(name)))
        && (when.package_manager.is_empty()
            || guest.package_manager.is_some_and(|pm| when.package_manager.contains(&pm)))
        && (when.init.is_empty() || guest.init.is_some_and(|init| when.init.contains(&init)))
        && (when.exists.is_empty() || any(&when.exists)?)
        && (when.missing.is_empty() || !any(&when.missing)?)
        && !has_line(&when.unless_line, view)?)
}

/// Whether one of these lines is in the guest.
fn has_line(wanted: &[Lines], view: View<'_>) -> Result<bool> {
    for lines in wanted {
        let regex = Regex::new(&lines.matches)
            .context(|| format!("the regular expression {:?} is wrong", lines.matches))?;
        for entry in find(&lines.files, &[], view)? {
            if file_has_line(&entry.path, &regex, view)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn file_has_line(path: &Path, regex: &Regex, view: View<'_>) -> Result<bool> {
    let content = view.root.read(path)?.unwrap_or_default();
    Ok(content.split(|byte| *byte == b'\n').any(|line| regex.is_match(line)))
}

/// A change that gives `path` this content, unless it has it. Links at its end are followed inside the guest.
fn put(
    path: &Path,
    content: Vec<u8>,
    new: crate::guest::change::NewFile,
    view: View<'_>,
) -> Result<Option<Change>> {
    let path = view.root.resolve(path)?.map_or_else(|| path.to_path_buf(), |entry| entry.path);
    if view.root.read(&path)?.is_some_and(|old| old == content) {
        return Ok(None);
    }
    Ok(Some(Change::Replace { path, content: crate::guest::change::Content(content), new }))
}
