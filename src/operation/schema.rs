//! The form of an operation file. One operation is one TOML file: what it is called, whether it runs by default and
//! why, for which guests, with which parameters, and the actions it takes in order.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::form;
use super::network::Network;
use super::seed::RandomSeed;
use super::step::{
    AppendLine, Bring, Chmod, Chown, Delete, Empty, Firstboot, FromTo, OnePath, SshInject, Substitute,
};
use super::user::User;
pub use super::when::{Init, Lines, PackageManager, When};
use crate::uuids::Kind;

/// One operation, as its file says it.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Operation {
    /// Unique name: lower case letters, digits and dashes.
    #[serde(deserialize_with = "form::name")]
    pub name: String,
    /// One line for `--list-operations`.
    #[serde(deserialize_with = "form::one_line")]
    pub summary: String,
    /// Why it is on or off by default, and on whose authority.
    #[serde(deserialize_with = "form::one_line")]
    pub reason: String,
    /// Whether it runs when nothing is selected.
    pub default: bool,
    /// Operations run by rising order, then by name. The machine id and whatever must stay last is at 99.
    #[serde(default)]
    pub order: i32,
    /// The short groups of `--remove` that select it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// Whether it removes what programs of the guest leave whenever they run, a package manager above all: it runs once more
    /// when a customisation has run some.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub after_programs: bool,
    /// Other operations that this one stands for; such an operation has no actions of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub includes: Vec<String>,
    /// For which guests it does anything.
    #[serde(default, skip_serializing_if = "When::is_empty")]
    pub when: When,
    /// What the user may set, by name. An operation with a required parameter runs only when that is given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, Parameter>,
    /// What it does, in this order.
    #[serde(default, rename = "action", skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<Action>,
}

/// The short groups of `--remove`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// SSH host keys, users' keys and known hosts.
    Ssh,
    /// Logs, journals, login records, crash dumps.
    Logs,
    /// What people left: histories, mail, credentials.
    User,
    /// What names this machine: ids, leases, hardware addresses, enrolments.
    Device,
}

impl Group {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::Logs => "logs",
            Self::User => "user",
            Self::Device => "device",
        }
    }
}

/// Something the user may set for an operation.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Parameter {
    /// One line about its meaning.
    #[serde(deserialize_with = "form::one_line")]
    pub summary: String,
    /// What values it takes.
    pub kind: ParameterKind,
    /// Whether the operation makes no sense without it.
    #[serde(default)]
    pub required: bool,
    /// The value when none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

/// What values a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ParameterKind {
    /// Any text without line breaks.
    Text,
    /// `true` or `false`.
    Flag,
    /// A list of words, separated by commas.
    List,
    /// A host name by RFC 1123.
    Hostname,
    /// A zone name of the guest's zoneinfo, such as Europe/Berlin.
    Timezone,
    /// Something that never reaches a log, an error or the record.
    Secret,
    /// Steps of a customisation, from the command line or a profile.
    Steps,
    /// A JSON list of accounts, each with the keys of the verb `user`.
    Users,
    /// A JSON list of networks, each with the keys of the verb `network`.
    Networks,
}

/// One thing to do. Exactly one verb a table: `[[action]]`, then `[action.VERB]`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Unlink what the globs match.
    Remove(Remove),
    /// Set the length of regular files to 0 in place; owner, mode, attributes and label stay.
    Truncate(Truncate),
    /// Give a file this content.
    Write(Write),
    /// Change lines of text files.
    Edit(Edit),
    /// Make a symbolic link.
    Link(Link),
    /// Report what the globs match, and change nothing.
    Detect(Detect),
    /// Reset the machine id so that every clone makes its own.
    MachineId(MachineId),
    /// Give the guest a random seed of its own, or a place for those of its clones.
    RandomSeed(RandomSeed),
    /// Remove the files that sshd's configuration names as host keys.
    SshdHostKeys(Bare),
    /// Make sure that something in the guest makes SSH host keys at the next boot.
    RegenerateSshHostKeys(Bare),
    /// Set the host name the way the guest's distribution keeps it.
    Hostname(Bare),
    /// Set the time zone, checked against the guest's own zoneinfo.
    Timezone(Bare),
    /// Set the passwords that were given.
    Passwords(Bare),
    /// Remove user accounts with all that belongs to them.
    UserAccounts(Bare),
    /// Have an account.
    User(User),
    /// Have the accounts that were given.
    Users(Bare),
    /// Set up an interface.
    Network(Network),
    /// Set up the interfaces that were given.
    Networks(Bare),
    /// Run the host's scripts that were given, in the guest's root folder.
    Script(Bare),
    /// Run a script of the guest's own programs.
    Run(Run),
    /// Install, remove and update packages with the guest's own package manager.
    Packages(Packages),
    /// Give volumes new UUIDs, and put them in place of the old ones wherever the guest names those.
    NewUuids(NewUuids),
    /// Do the steps that were given.
    Steps(Bare),
    /// Append a line to a file.
    AppendLine(AppendLine),
    /// Set permission bits.
    Chmod(Chmod),
    /// Set the owner.
    Chown(Chown),
    /// Copy inside the guest.
    Copy(FromTo),
    /// Copy a file or folder of the host into a folder of the guest; owner, mode and times are those of the host.
    CopyIn(Bring),
    /// Remove what a glob of the shell matches.
    Delete(Delete),
    /// Empty a file, or all files below a folder.
    Empty(Empty),
    /// Run something once at the first boot.
    Firstboot(Firstboot),
    /// Make a folder with all above it.
    Mkdir(OnePath),
    /// Move inside the guest.
    Move(FromTo),
    /// Remove one regular file; the erasure makes it final.
    Scrub(OnePath),
    /// Have the guest label all its files at the next boot, where it has SELinux.
    SelinuxRelabel(Bare),
    /// Let a user log in with an SSH key.
    SshInject(SshInject),
    /// Edit lines by an expression of perl.
    Substitute(Substitute),
    /// Unpack a tar file of the host into a folder of the guest.
    TarIn(Bring),
    /// Make an empty file, or set the times of one to now.
    Touch(OnePath),
    /// Put a file of the host at a place, or into a folder, of the guest; owner and mode are those of the host.
    Upload(Bring),
}

/// A verb without settings.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bare {}

/// See [`Action::Remove`].
///
/// Globs are absolute paths in the guest; `~/` stands for every home folder of its passwd; `*`, `?`, `[a-z]` and
/// `{a,b}` do not cross `/`, `**` does, and all of them match a leading dot. Links in the folders on the way are
/// followed inside the guest, except below `**`; a link that is matched is itself what is removed. A folder that
/// `keep` matches stays with everything below it.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Remove {
    /// What to remove.
    #[serde(deserialize_with = "form::some_globs")]
    pub paths: Vec<String>,
    /// Globs of what stays all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "form::globs")]
    pub keep: Vec<String>,
    /// Whether matching folders go too, with all below; otherwise folders stay.
    #[serde(default)]
    pub recursive: bool,
    /// Whether matching symbolic links go too.
    #[serde(default = "yes")]
    pub links: bool,
    /// Only for these guests.
    #[serde(default, skip_serializing_if = "When::is_empty")]
    pub when: When,
}

/// See [`Action::Truncate`].
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Truncate {
    /// Globs of the files to empty; whatever is not a regular file stays as it is.
    #[serde(deserialize_with = "form::some_globs")]
    pub paths: Vec<String>,
    /// Globs of what stays all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "form::globs")]
    pub keep: Vec<String>,
    /// Only for these guests.
    #[serde(default, skip_serializing_if = "When::is_empty")]
    pub when: When,
}

/// See [`Action::Write`].
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Write {
    /// The file; a link is followed inside the guest.
    #[serde(deserialize_with = "form::path")]
    pub path: String,
    /// Its whole content; `{{name}}` stands for a parameter.
    pub content: String,
    /// Mode of a new file in octal; an existing file keeps its own.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "form::mode")]
    pub mode: Option<String>,
    /// Whether to make the file when it is missing.
    #[serde(default)]
    pub create: bool,
    /// Only for these guests.
    #[serde(default, skip_serializing_if = "When::is_empty")]
    pub when: When,
}

/// See [`Action::Edit`]. Expressions are those of the crate `regex`, one line at a time without its line end.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Edit {
    /// Globs of the files to edit; a missing file is no error.
    #[serde(deserialize_with = "form::some_globs")]
    pub paths: Vec<String>,
    /// Globs of what stays all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "form::globs")]
    pub keep: Vec<String>,
    /// Lines that match one of these go.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "form::regexes")]
    pub delete: Vec<String>,
    /// Replacements within lines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replace: Vec<Replace>,
    /// Character that fills the end of a file which got shorter up to the size it had, for files of fixed size.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "form::pad")]
    pub pad: Option<char>,
    /// Only for these guests.
    #[serde(default, skip_serializing_if = "When::is_empty")]
    pub when: When,
}

/// One replacement within a line.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Replace {
    /// The expression; each match in a line is replaced.
    #[serde(rename = "match", deserialize_with = "form::regex")]
    pub pattern: String,
    /// What comes instead; `$1` or `${name}` stands for a group, `{{name}}` for a parameter.
    pub with: String,
}

/// See [`Action::Link`].
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Link {
    /// Where the link is made; a file or link there is replaced, a folder is an error unless `into`.
    #[serde(deserialize_with = "form::path")]
    pub path: String,
    /// What it points to.
    #[serde(deserialize_with = "form::one_line")]
    pub target: String,
    /// Whether the link is made in a folder that is there, under the last name of its target, as ln(1) does.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub into: bool,
    /// Only for these guests.
    #[serde(default, skip_serializing_if = "When::is_empty")]
    pub when: When,
}

/// See [`Action::Detect`].
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Detect {
    /// What to look for: files, folders and links alike.
    #[serde(deserialize_with = "form::some_globs")]
    pub paths: Vec<String>,
    /// Globs of what is no finding.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "form::globs")]
    pub keep: Vec<String>,
    /// Only files of which a line matches this expression.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "form::some_regex")]
    pub containing: Option<String>,
    /// What it means and what to do about it.
    #[serde(deserialize_with = "form::one_line")]
    pub message: String,
    /// Only for these guests.
    #[serde(default, skip_serializing_if = "When::is_empty")]
    pub when: When,
}

/// See [`Action::MachineId`].
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MachineId {
    /// What is left in /etc/machine-id.
    pub policy: MachineIdPolicy,
    /// Only for these guests.
    #[serde(default, skip_serializing_if = "When::is_empty")]
    pub when: When,
}

/// What is left in /etc/machine-id; see machine-id(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MachineIdPolicy {
    /// An empty file: a new id is made at boot, which does not count as a first boot.
    Empty,
    /// The word `uninitialized`: a new id is made and first-boot units run (systemd 247 or newer).
    FirstBoot,
    /// No file: the same with any systemd, but not on a read-only /etc.
    Absent,
}

/// How programs of the guest run: shut in by bubblewrap, with none of this host's powers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct Terms {
    /// Whether they reach this host's network. In a virtual machine there is none.
    pub network: bool,
    /// How long they may take, in seconds.
    pub seconds: u32,
}

impl Default for Terms {
    fn default() -> Self {
        Self { network: false, seconds: 1800 }
    }
}

impl Terms {
    /// The same, to change them.
    pub fn of_mut(action: &mut Action) -> Option<&mut Self> {
        match action {
            Action::Run(run) => Some(&mut run.terms),
            Action::Packages(packages) => Some(&mut packages.terms),
            _ => None,
        }
    }

    /// Those of an action that runs programs; none when it runs none.
    pub fn of(action: &Action) -> Option<&Self> {
        match action {
            Action::Run(run) => Some(&run.terms),
            Action::Packages(packages) => Some(&packages.terms),
            _ => None,
        }
    }
}

/// See [`Action::Run`].
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Run {
    /// The script; `/bin/sh` runs it unless its first line names another interpreter of the guest.
    #[serde(deserialize_with = "form::some_text")]
    pub script: String,
    /// How it runs.
    #[serde(default)]
    pub terms: Terms,
    /// Only for these guests.
    #[serde(default, skip_serializing_if = "When::is_empty")]
    pub when: When,
}

/// See [`Action::Packages`].
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Packages {
    /// Whether all packages are brought up to date first.
    #[serde(default)]
    pub update: bool,
    /// Packages to install.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "form::packages")]
    pub install: Vec<String>,
    /// Packages to remove.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "form::packages")]
    pub remove: Vec<String>,
    /// How the package manager runs.
    #[serde(default)]
    pub terms: Terms,
    /// Only for these guests.
    #[serde(default, skip_serializing_if = "When::is_empty")]
    pub when: When,
}

/// See [`Action::NewUuids`]. Whole UUIDs are replaced, in text files only.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NewUuids {
    /// Of what.
    pub of: Kind,
    /// Globs of the text files that may name old UUIDs; a missing file is no error.
    #[serde(deserialize_with = "form::some_globs")]
    pub paths: Vec<String>,
    /// Globs of programs that find the guest by UUIDs that are built in: with an old one in it the operation is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "form::globs")]
    pub programs: Vec<String>,
    /// Globs of archives that the guest starts with, which may name old UUIDs.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "form::globs")]
    pub initramfs: Vec<String>,
}

impl Action {
    /// Whether it is a step of a customisation: done each time, after those before it.
    pub fn is_step(&self) -> bool {
        use Action as A;
        matches!(
            self,
            A::Steps(_)
                | A::AppendLine(_)
                | A::Chmod(_)
                | A::Chown(_)
                | A::Copy(_)
                | A::CopyIn(_)
                | A::Delete(_)
                | A::Empty(_)
                | A::Firstboot(_)
                | A::Mkdir(_)
                | A::Move(_)
                | A::Packages(_)
                | A::Run(_)
                | A::Scrub(_)
                | A::SelinuxRelabel(_)
                | A::SshInject(_)
                | A::Substitute(_)
                | A::TarIn(_)
                | A::Touch(_)
                | A::Upload(_)
        )
    }
}

fn yes() -> bool {
    true
}
