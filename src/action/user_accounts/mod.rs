//! Removing user accounts: the plan, worked out from the account files alone. Nothing here touches the guest.
//!
//! Every account whose number is a person's by the guest's login.defs(5) goes, unless lists say which. With the account
//! go its lines in all six account files, its memberships, and the group of its own name when nobody else is in it, as
//! userdel(8) does. Whether its home folder may go is for [`KeptHomes::decide`] to say.

mod home;
mod look;
mod sudoers;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::guest::accounts::{Account, Group, GroupFile, LoginDefs, Passwd, Shadow, SubIds};
use crate::guest::names::did_you_mean;

pub(super) use look::remove;

pub use home::{HomeStays, KeptHomes, is_system_folder};

/// The parameter that says which accounts an operation of the same run adds: none of these is to be removed.
pub const ADDED: &str = "added";

/// The account files of a guest, as read; None where the guest has no such file.
#[derive(Clone, Copy, Default)]
pub struct AccountFiles<'a> {
    /// /etc/passwd.
    pub passwd: &'a [u8],
    /// /etc/shadow.
    pub shadow: Option<&'a [u8]>,
    /// /etc/group.
    pub group: Option<&'a [u8]>,
    /// /etc/gshadow.
    pub gshadow: Option<&'a [u8]>,
    /// /etc/subuid.
    pub subuid: Option<&'a [u8]>,
    /// /etc/subgid.
    pub subgid: Option<&'a [u8]>,
}

/// What the user said about who goes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Who<'a> {
    /// Accounts that stay, whatever `remove` says.
    pub keep: &'a [String],
    /// When not empty: only these go.
    pub remove: &'a [String],
}

/// What is to be done.
#[derive(Debug, Default)]
pub struct RemovalPlan {
    /// The accounts that go, in the order of passwd(5).
    pub users: Vec<RemovedUser>,
    /// The files that change, with their new content.
    pub files: Vec<NewFile>,
    /// What stays although one might expect it to go, and why.
    pub warnings: Vec<Warning>,
    /// Homes that must stay. Whoever removes a home resolves its links first, and then asks
    /// [`KeptHomes::resolved`] about the real path once more; only the guest can tell that two names are one folder.
    pub kept_homes: KeptHomes,
    /// Numbers of the accounts that go which no other account has.
    pub free_uids: BTreeSet<u32>,
}

/// An account that goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RemovedUser {
    /// Its name; bytes that are no UTF-8 became replacement characters.
    pub name: String,
    /// Its user number.
    pub uid: u32,
    /// Its home folder, when that goes too. Links are not resolved yet: see [`RemovalPlan::kept_homes`].
    pub home: Option<PathBuf>,
}

/// A file's new content.
pub struct NewFile {
    /// Its path in the guest.
    pub path: &'static str,
    /// All of it. It may hold password hashes.
    pub content: Zeroizing<Vec<u8>>,
}

/// Something that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// An account goes, and its home folder stays.
    Home {
        /// Whose.
        user: String,
        /// Its home folder, as passwd(5) has it.
        home: PathBuf,
        /// Why.
        why: HomeStays,
    },
    /// An account goes, and the group of its name stays.
    Group {
        /// The group's name.
        name: String,
        /// Why.
        why: &'static str,
    },
    /// Lines of passwd(5) that are no account: whoever they stand for stays.
    BrokenLines {
        /// How many.
        count: usize,
        /// The number of the first, from 1.
        first: usize,
    },
}

impl RemovedUser {
    /// The name as part of a path such as /var/mail/NAME; None when it is none, as `..` or `a/b`.
    pub fn file_name(&self) -> Option<&str> {
        let odd = self.name.contains(['/', '\0', char::REPLACEMENT_CHARACTER])
            || self.name == "."
            || self.name == "..";
        (!odd).then_some(self.name.as_str())
    }
}

impl fmt::Debug for NewFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} bytes", self.path, self.content.len())
    }
}

impl fmt::Debug for AccountFiles<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "account files with {} bytes of passwd", self.passwd.len())
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Home { user, home, why } => {
                write!(f, "the home folder {} of {} stays: {why}", home.display(), user.escape_debug())
            }
            Self::Group { name, why } => write!(f, "the group {} stays: {why}", name.escape_debug()),
            Self::BrokenLines { count, first } => {
                write!(f, "/etc/passwd has {count} broken lines, the first is line {first}: they stay")
            }
        }
    }
}

/// Plans the removal of user accounts.
///
/// # Errors
/// A usage error when a list names nobody, somebody who is not there, or somebody to remove whose number is no
/// person's: system accounts, root among them, belong to packages and are never removed.
pub fn plan_removal(files: &AccountFiles<'_>, login_defs: &LoginDefs, who: &Who<'_>) -> Result<RemovalPlan> {
    let passwd = Passwd::parse(files.passwd);
    let keep = known(&passwd, who.keep, "keep")?;
    let remove = known(&passwd, who.remove, "remove")?;
    let gone = |account: &Account<'_>| {
        is_person(login_defs, account.uid())
            && !keep.contains(account.name_bytes())
            && (remove.is_empty() || remove.contains(account.name_bytes()))
    };
    // By name, so that a second line of a name goes with the first: no account is left behind half removed.
    let names: BTreeSet<Vec<u8>> =
        passwd.accounts().filter(gone).map(|account| account.name_bytes().to_vec()).collect();
    refuse_system_accounts(&passwd, &names, &keep, &remove, login_defs)?;

    let mut plan = RemovalPlan::default();
    if let Some(first) = passwd.malformed().next() {
        plan.warnings.push(Warning::BrokenLines { count: passwd.malformed().count(), first });
    }
    let (going, staying): (Vec<_>, Vec<_>) =
        passwd.accounts().partition(|one| names.contains(one.name_bytes()));
    plan.kept_homes = KeptHomes::of(&staying);
    for account in &going {
        let (home, stays) = match plan.kept_homes.decide(account.name_bytes(), account.home()) {
            Ok(home) => (home, None),
            Err(why) => (None, Some(why)),
        };
        let user = account.name().into_owned();
        plan.users.push(RemovedUser { name: user.clone(), uid: account.uid(), home });
        plan.warnings.extend(stays.map(|why| Warning::Home {
            user,
            home: account.home().to_path_buf(),
            why,
        }));
    }
    let groups = own_groups(files.group, &going, &staying, &names, &mut plan.warnings);
    let staying_uids: BTreeSet<u32> = staying.iter().map(Account::uid).collect();
    plan.free_uids = going.iter().map(Account::uid).filter(|uid| !staying_uids.contains(uid)).collect();
    plan.files = new_files(files, &names, &plan.free_uids, &groups);
    Ok(plan)
}

/// A hostile or careless login.defs must not make system accounts persons: root, and nobody in its three numbers.
fn is_person(login_defs: &LoginDefs, uid: u32) -> bool {
    login_defs.is_regular(uid) && !matches!(uid, 0 | 65534 | 65535 | 4_294_967_294 | u32::MAX)
}

/// The names of a list, each of which must be an account.
fn known(passwd: &Passwd, list: &[String], which: &str) -> Result<BTreeSet<Vec<u8>>> {
    for name in list {
        if name.is_empty() {
            return Err(Error::usage(format!("the list of accounts to {which} has an empty name")));
        }
        if passwd.find(name).is_none() {
            let names: Vec<_> = passwd.accounts().map(|account| account.name()).collect();
            return Err(Error::usage(format!(
                "the guest has no account {name:?}, which is in the list to {which}"
            ))
            .hint(did_you_mean(name, names.iter().map(AsRef::as_ref))));
        }
    }
    Ok(list.iter().map(|name| name.as_bytes().to_vec()).collect())
}

fn refuse_system_accounts(
    passwd: &Passwd,
    names: &BTreeSet<Vec<u8>>,
    keep: &BTreeSet<Vec<u8>>,
    remove: &BTreeSet<Vec<u8>>,
    login_defs: &LoginDefs,
) -> Result<()> {
    let refused = passwd.accounts().find(|account| {
        let name = account.name_bytes();
        let asked = names.contains(name) || remove.contains(name) && !keep.contains(name);
        asked && !is_person(login_defs, account.uid())
    });
    let Some(account) = refused else { return Ok(()) };
    let LoginDefs { uid_min, uid_max, .. } = login_defs;
    Err(Error::usage(format!(
        "the account {} is a system account and cannot be removed: its uid {} is not a person's",
        account.name().escape_debug(),
        account.uid()
    ))
    .hint(format!("persons have UID_MIN {uid_min} to UID_MAX {uid_max} by the guest's login.defs; remove the others in the guest")))
}

/// The groups that go with their users: of the same name, the user's primary one, and nobody else's.
fn own_groups(
    group: Option<&[u8]>,
    going: &[Account<'_>],
    staying: &[Account<'_>],
    names: &BTreeSet<Vec<u8>>,
    warnings: &mut Vec<Warning>,
) -> BTreeSet<Vec<u8>> {
    let group = Group::parse(GroupFile::Group, group.unwrap_or_default());
    let primary: BTreeSet<(&[u8], u32)> =
        going.iter().map(|account| (account.name_bytes(), account.gid())).collect();
    let others: BTreeSet<u32> = staying.iter().map(Account::gid).collect();
    let mut groups = BTreeSet::new();
    for entry in group.entries().filter(|entry| names.contains(entry.name_bytes())) {
        let why = if !primary.contains(&(entry.name_bytes(), entry.gid())) {
            "it is not the user's primary group"
        } else if others.contains(&entry.gid()) {
            "it is another account's primary group"
        } else if entry.members().any(|member| !names.contains(member)) {
            "it has other members"
        } else {
            groups.insert(entry.name_bytes().to_vec());
            continue;
        };
        let name = String::from_utf8_lossy(entry.name_bytes()).into_owned();
        warnings.push(Warning::Group { name, why });
    }
    groups
}

fn new_files(
    files: &AccountFiles<'_>,
    names: &BTreeSet<Vec<u8>>,
    uids: &BTreeSet<u32>,
    groups: &BTreeSet<Vec<u8>>,
) -> Vec<NewFile> {
    let mut new = Vec::new();
    let mut add = |changed: bool, path, content: &[u8]| {
        if changed {
            new.push(NewFile { path, content: Zeroizing::new(content.to_vec()) });
        }
    };
    let mut passwd = Passwd::parse(files.passwd);
    add(passwd.remove(names), "/etc/passwd", passwd.as_bytes());
    if let Some(bytes) = files.shadow {
        let mut shadow = Shadow::parse(bytes);
        add(shadow.remove(names), "/etc/shadow", shadow.as_bytes());
    }
    let both =
        [("/etc/group", files.group, GroupFile::Group), ("/etc/gshadow", files.gshadow, GroupFile::Gshadow)];
    for (path, bytes, file) in both {
        let Some(bytes) = bytes else { continue };
        let mut group = Group::parse(file, bytes);
        let (lists, lines) = (group.remove_members(names), group.remove(groups));
        add(lists || lines, path, group.as_bytes());
    }
    for (path, bytes) in [("/etc/subuid", files.subuid), ("/etc/subgid", files.subgid)] {
        let Some(bytes) = bytes else { continue };
        let mut ids = SubIds::parse(bytes);
        add(ids.remove(names, uids), path, ids.as_bytes());
    }
    new
}

impl RemovalPlan {
    /// The new content of a file; None when it does not change.
    pub fn file(&self, path: impl AsRef<Path>) -> Option<&[u8]> {
        self.files.iter().find(|file| Path::new(file.path) == path.as_ref()).map(|file| &file.content[..])
    }
}

#[cfg(test)]
mod tests;
