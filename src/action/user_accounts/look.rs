//! Removing accounts from a guest: the plan, and what lies about in the guest of those who go.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{ADDED, AccountFiles, RemovalPlan, RemovedUser, Who, plan_removal, sudoers};
use crate::action::data::remove_folder;
use crate::action::{Findings, View, find};
use crate::error::Result;
use crate::guest::FileKind;
use crate::guest::accounts::{LoginDefs, Passwd};
use crate::guest::change::Change;
use crate::guest::glob::KeepSet;

pub(in crate::action) fn remove(view: View<'_>) -> Result<Findings> {
    let read = |path: &str| view.root.read(Path::new(path));
    let (shadow, group, gshadow) = (read("/etc/shadow")?, read("/etc/group")?, read("/etc/gshadow")?);
    let (subuid, subgid) = (read("/etc/subuid")?, read("/etc/subgid")?);
    let files = AccountFiles {
        passwd: &read("/etc/passwd")?.unwrap_or_default(),
        shadow: shadow.as_deref(),
        group: group.as_deref(),
        gshadow: gshadow.as_deref(),
        subuid: subuid.as_deref(),
        subgid: subgid.as_deref(),
    };
    let defs = LoginDefs::parse(&read("/etc/login.defs")?.unwrap_or_default());
    let (mut keep, mut only) = (view.settings.list("keep"), view.settings.list("remove"));
    let passwd = Passwd::parse(files.passwd);
    let there = |name: &String| passwd.accounts().any(|account| account.name_bytes() == name.as_bytes());
    keep.extend(view.settings.list(ADDED).into_iter().filter(there));
    if view.settings.recorded {
        let named = !only.is_empty();
        keep.retain(there);
        only.retain(there);
        // An empty list would mean everybody.
        if named && only.is_empty() {
            return Ok(Findings::default());
        }
    }
    let plan = plan_removal(&files, &defs, &Who { keep: &keep, remove: &only })?;
    let mut findings = Findings::default();
    for warning in &plan.warnings {
        findings.note(None, warning.to_string());
    }
    for user in &plan.users {
        belongings(user, &plan, view, &mut findings)?;
    }
    at_jobs(&plan, view, &mut findings)?;
    sudo_rules(&plan, view, &mut findings)?;
    for file in &plan.files {
        let Some(entry) = view.root.resolve(Path::new(file.path))? else { continue };
        findings.changes.push(Change::rewrite(entry, file.content.to_vec()));
    }
    Ok(findings)
}

/// Home, mail, crontab, lingering, sudo rights of one user.
fn belongings(user: &RemovedUser, plan: &RemovalPlan, view: View<'_>, findings: &mut Findings) -> Result<()> {
    if let Some(home) = &user.home {
        home_folder(user, home, plan, view, findings)?;
    }
    let Some(name) = user.file_name() else { return Ok(()) };
    for folder in [
        "/var/mail",
        "/var/spool/mail",
        "/var/spool/cron/crontabs",
        "/var/spool/cron/tabs",
        "/var/spool/cron",
        "/var/lib/systemd/linger",
        "/etc/sudoers.d",
    ] {
        // Two of them are often one by way of a link.
        let Some(folder) = view.root.resolve(Path::new(folder))? else { continue };
        let Some(entry) = view.root.lookup(&folder.path.join(name))? else { continue };
        if findings.changes.iter().any(|change| change.path() == entry.path) {
            continue;
        }
        if entry.kind != FileKind::Folder {
            let (path, kind, bytes) = (entry.path, entry.kind, entry.bytes);
            findings.changes.push(Change::Remove { path, kind, bytes });
        } else if folder.path.ends_with("mail") && entry.uid == user.uid {
            // Mail may be kept as a folder of messages.
            remove_folder(entry.path, &KeepSet::new(&[], &[])?, view, &mut findings.changes)?;
        }
    }
    Ok(())
}

/// The jobs of at(1), which know their owners by number.
fn at_jobs(plan: &RemovalPlan, view: View<'_>, findings: &mut Findings) -> Result<()> {
    for folder in ["/var/spool/cron/atjobs", "/var/spool/at"] {
        for name in view.root.names(Path::new(folder))? {
            let job = view.root.lookup(&Path::new(folder).join(name))?;
            let job = job.filter(|job| job.kind == FileKind::File && plan.free_uids.contains(&job.uid));
            findings.changes.extend(job.map(|job| Change::Remove {
                path: job.path,
                kind: job.kind,
                bytes: job.bytes,
            }));
        }
    }
    Ok(())
}

/// What sudo's files say of those who go; a file of the user's own name has gone as a whole.
fn sudo_rules(plan: &RemovalPlan, view: View<'_>, findings: &mut Findings) -> Result<()> {
    let names: BTreeSet<&[u8]> = plan.users.iter().map(|user| user.name.as_bytes()).collect();
    for entry in find(&["/etc/sudoers".to_owned(), "/etc/sudoers.d/*".to_owned()], &[], view)? {
        if entry.kind != FileKind::File || findings.changes.iter().any(|change| change.path() == entry.path) {
            continue;
        }
        let Some(old) = view.root.read(&entry.path)? else { continue };
        let (new, left) = sudoers::without(&old, &names);
        if left {
            findings.note(entry.path.clone(), "it names a removed account: look at it");
        }
        if new != old {
            findings.changes.push(Change::rewrite(entry, new));
        }
    }
    Ok(())
}

/// The home's real folder, asked about once more: two names in passwd may be one folder by way of links.
fn home_folder(
    user: &RemovedUser,
    home: &Path,
    plan: &RemovalPlan,
    view: View<'_>,
    findings: &mut Findings,
) -> Result<()> {
    let Some(entry) = view.root.resolve(home)?.filter(|entry| entry.kind == FileKind::Folder) else {
        return Ok(());
    };
    let real =
        |path: &Path| -> Option<PathBuf> { view.root.resolve(path).ok().flatten().map(|entry| entry.path) };
    match plan.kept_homes.resolved(real).decide(user.name.as_bytes(), &entry.path) {
        Ok(Some(_)) => {
            let nothing_kept = KeepSet::new(&[], &[])?;
            remove_folder(entry.path, &nothing_kept, view, &mut findings.changes)?;
        }
        Ok(None) => {}
        Err(why) => {
            findings
                .note(entry.path, format!("the home folder of {} stays: {why}", user.name.escape_debug()));
        }
    }
    Ok(())
}
