//! Accounts that a guest is to have: as useradd(8) makes them, by the guest's own login.defs and /etc/skel. One that is
//! there already keeps its number, home and password.

#![forbid(unsafe_code)]

mod files;
mod home;

use std::collections::BTreeSet;
use std::path::PathBuf;

use files::Files;

use super::steps::ssh;
use super::{Findings, View, meets};
use crate::error::{Error, Result};
use crate::guest::accounts::{Account, NewAccount, PasswdField, clean_path};
use crate::guest::names::did_you_mean;
use crate::operation::user::User;

/// Those that were given.
pub(super) fn given(view: View<'_>) -> Result<Findings> {
    have(&User::list(view.settings.required("users")?).map_err(Error::usage)?, view)
}

/// What makes these accounts be there.
pub(super) fn have(users: &[User], view: View<'_>) -> Result<Findings> {
    let mut files = Files::read(view)?;
    let mut homes = Findings::default();
    for user in users {
        if !meets(&user.when, view)? {
            continue;
        }
        if let Some(shell) = user.shell.as_ref().filter(|shell| !view.root.is_file(shell).unwrap_or(false)) {
            return Err(Error::usage(format!(
                "the guest has no shell {shell}, which {} is to have",
                user.name
            ))
            .hint("name one of its /etc/shells, or install it in the guest first"));
        }
        if files.passwd.find(&user.name).is_none() {
            add(user, &mut files, view)?;
        } else {
            change(user, &mut files)?;
        }
        join_groups(user, &mut files)?;
        let account = files.passwd.find(&user.name).ok_or_else(|| Error::failed("an account got lost"))?;
        belongings(user, &account, &files, view, &mut homes)?;
    }
    let mut findings = Findings::from(files.changes());
    findings.add(homes);
    Ok(findings)
}

/// A new account with a group of its own, or that of all users where login.defs wants it so.
fn add(user: &User, files: &mut Files, view: View<'_>) -> Result<()> {
    let taken: BTreeSet<u32> = files.passwd.accounts().map(|account| account.uid()).collect();
    let uid = match user.uid {
        Some(uid) if taken.contains(&uid) => {
            return Err(Error::usage(format!("the uid {uid} for {} belongs to another account", user.name))
                .hint("leave uid out, and the next free one is taken"));
        }
        Some(uid) => uid,
        None => free(&taken, files.defs.uid_min, files.defs.uid_max, "user")?,
    };
    let gid = group_for(user, uid, files)?;
    let home = match &user.home {
        Some(home) => home.clone(),
        None => format!("{}/{}", files.useradd("HOME").unwrap_or("/home").trim_end_matches('/'), user.name),
    };
    let shell = match &user.shell {
        Some(shell) => shell.as_str(),
        None if view.root.is_file("/bin/bash")? => "/bin/bash",
        None => "/bin/sh",
    };
    files.passwd.add(&NewAccount {
        name: &user.name,
        password: if files.shadow.is_some() { "x" } else { "*" },
        uid,
        gid,
        comment: user.comment.as_deref().unwrap_or_default(),
        home: &home,
        shell,
    });
    let defs = files.defs.clone();
    if let Some(shadow) = files.shadow.as_mut().filter(|shadow| shadow.find(&user.name).is_none()) {
        shadow.add(&user.name, files::today(), &defs);
    }
    let person = defs.is_regular(uid);
    for (ids, limits) in [(&mut files.subuid, defs.sub_uids), (&mut files.subgid, defs.sub_gids)] {
        if let Some(ids) = ids.as_mut().filter(|_| person) {
            ids.add(&user.name, uid, limits);
        }
    }
    Ok(())
}

/// The number of its primary group.
fn group_for(user: &User, uid: u32, files: &mut Files) -> Result<u32> {
    if let Some(group) = files.group.entries().find(|group| group.name_bytes() == user.name.as_bytes()) {
        return Ok(group.gid());
    }
    if let Some(common) = files.common_group().filter(|_| !files.own_groups) {
        return Ok(common);
    }
    let taken: BTreeSet<u32> = files.group.entries().map(|group| group.gid()).collect();
    let gid = if taken.contains(&uid) {
        free(&taken, files.defs.gid_min, files.defs.gid_max, "group")?
    } else {
        uid
    };
    files.group.add(&user.name, gid);
    if let Some(gshadow) = &mut files.gshadow {
        gshadow.add(&user.name, gid);
    }
    Ok(gid)
}

/// As useradd(8) has it: behind the last that is taken, or else the first that is free.
fn free(taken: &BTreeSet<u32>, least: u32, most: u32, what: &str) -> Result<u32> {
    let next =
        taken.range(least..=most.max(least)).next_back().map_or(Some(least), |last| last.checked_add(1));
    let free = next.filter(|next| *next <= most).or_else(|| (least..=most).find(|id| !taken.contains(id)));
    free.ok_or_else(|| {
        Error::unsupported(format!("the guest has no number left for a new {what}"))
            .hint("its login.defs says which there are: name one by uid=")
    })
}

/// What is named of an account that is there; its number and home would no longer fit its files.
fn change(user: &User, files: &mut Files) -> Result<()> {
    let refused = |what: &str| {
        Err(Error::usage(format!("the guest has a user {} with another {what}", user.name))
            .hint("leave that out, or remove the account first: --remove-user-accounts in a run of its own"))
    };
    if let Some(account) = files.passwd.find(&user.name) {
        if user.uid.is_some_and(|uid| uid != account.uid()) {
            return refused("uid");
        }
        if user
            .home
            .as_ref()
            .is_some_and(|home| home.as_bytes() != account.home().as_os_str().as_encoded_bytes())
        {
            return refused("home");
        }
    }
    for (field, value) in [(PasswdField::Comment, &user.comment), (PasswdField::Shell, &user.shell)] {
        if let Some(value) = value {
            files.passwd.set(&user.name, field, value);
        }
    }
    Ok(())
}

fn join_groups(user: &User, files: &mut Files) -> Result<()> {
    let primary = files.passwd.find(&user.name).map(|account| account.gid());
    for name in &user.groups {
        let Some(group) = files.group.entries().find(|group| group.name_bytes() == name.as_bytes()) else {
            let names: Vec<_> =
                files.group.entries().map(|group| String::from_utf8_lossy(group.name_bytes())).collect();
            return Err(Error::usage(format!(
                "the guest has no group {name}, to which {} is to belong",
                user.name
            ))
            .hint(did_you_mean(name, names.iter().map(AsRef::as_ref))));
        };
        if Some(group.gid()) == primary {
            continue;
        }
        files.group.add_member(name, &user.name);
        if let Some(gshadow) = &mut files.gshadow {
            gshadow.add_member(name, &user.name);
        }
    }
    Ok(())
}

/// Its home, as /etc/skel is, and its keys.
fn belongings(
    user: &User,
    account: &Account<'_>,
    files: &Files,
    view: View<'_>,
    findings: &mut Findings,
) -> Result<()> {
    let Some(home) = clean_path(account.home()) else {
        return Err(Error::unsupported(format!("the user {} of the guest has no home folder", user.name)));
    };
    let owner = (account.uid(), account.gid());
    let skel = PathBuf::from(files.useradd("SKEL").unwrap_or("/etc/skel"));
    findings.changes.extend(home::make(&home, &skel, owner, files.defs.home_mode, view)?);
    if let Some(entry) = view.root.resolve(&home)?.filter(|entry| entry.uid != account.uid()) {
        let message = format!("the home of {} belongs to uid {}", user.name, entry.uid);
        findings.note(entry.path, message);
    }
    if let Some(keys) = user.key.as_deref().map(|keys| keys.trim_end_matches(['\n', '\r'])) {
        findings.changes.extend(ssh::let_in(&home, owner, keys, view)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_number_is_behind_the_last_or_in_a_gap() {
        let free = |taken: &[u32]| free(&taken.iter().copied().collect(), 1000, 1003, "user").ok();
        assert_eq!((free(&[]), free(&[0, 65534])), (Some(1000), Some(1000)));
        assert_eq!((free(&[1000, 1002]), free(&[1000, 1003])), (Some(1003), Some(1001)));
        assert_eq!(free(&[1000, 1001, 1002, 1003]), None);
    }
}
