//! Steps about files that are there already.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::{existing, install, missing, place, place_or_into, wrong_kind};
use crate::action::{Findings, View};
use crate::error::{Context, Error, Result};
use crate::guest::FileKind;
use crate::guest::change::{Change, Content, NewFile};
use crate::operation::step::{Chmod, Chown, Empty, FromTo, OnePath};

pub(super) fn chmod(step: &Chmod, view: View<'_>) -> Result<Findings> {
    let entry = existing(&step.path, view)?;
    let mode = u32::from_str_radix(&step.mode, 8).context(|| format!("{:?} is no octal mode", step.mode))?;
    let change = Change::Mode { path: entry.path, mode };
    Ok(if entry.mode == mode { Findings::default() } else { vec![change].into() })
}

pub(super) fn chown(step: &Chown, view: View<'_>) -> Result<Findings> {
    let entry = existing(&step.path, view)?;
    let there = (entry.uid, entry.gid) == (step.uid, step.gid);
    let change = Change::Owner { path: entry.path, uid: step.uid, gid: step.gid };
    Ok(if there { Findings::default() } else { vec![change].into() })
}

pub(super) fn copy(step: &FromTo, view: View<'_>) -> Result<Findings> {
    let (from, path) = from_to(step, view)?;
    Ok(vec![Change::Copy { from, path }].into())
}

pub(super) fn rename(step: &FromTo, view: View<'_>) -> Result<Findings> {
    let (from, path) = from_to(step, view)?;
    Ok(vec![Change::Move { from, path }].into())
}

/// What is copied or moved, and its new place: neither follows a link at the end of `from`.
fn from_to(step: &FromTo, view: View<'_>) -> Result<(PathBuf, PathBuf)> {
    let from = PathBuf::from(&step.from);
    let entry = view.root.lookup(&from)?.ok_or_else(|| missing(&step.from))?;
    let path = place_or_into(&step.to, from.file_name(), view)?;
    let real = match (view.root.resolve(from.parent().unwrap_or(&from))?, from.file_name()) {
        (Some(folder), Some(name)) => folder.path.join(name),
        _ => from.clone(),
    };
    if path.starts_with(&real) {
        let what = format!("{} cannot go into itself, to {}", step.from, path.display());
        return Err(Error::usage(what).hint("name a place outside of it"));
    }
    if entry.kind == FileKind::Special {
        return Err(wrong_kind(&from, "a file, link or folder"));
    }
    Ok((real, path))
}

pub(super) fn scrub(step: &OnePath, view: View<'_>) -> Result<Findings> {
    let entry = existing(&step.path, view)?;
    if entry.kind != FileKind::File {
        return Err(wrong_kind(&entry.path, "a regular file"));
    }
    let mut findings = Findings::default();
    if entry.names > 1 {
        let message = format!("the file has {} names: under the others it stays", entry.names);
        findings.note(entry.path.clone(), message);
    }
    findings.changes.push(Change::Remove { path: entry.path, kind: entry.kind, bytes: entry.bytes });
    Ok(findings)
}

pub(super) fn touch(step: &OnePath, view: View<'_>) -> Result<Findings> {
    let path = place(Path::new(&step.path), view)?;
    Ok(match view.root.lookup(&path)?.map(|entry| entry.kind) {
        Some(FileKind::File) => vec![Change::Touch { path }].into(),
        None => vec![empty_file(path)].into(),
        Some(_) => return Err(wrong_kind(&path, "a regular file")),
    })
}

fn empty_file(path: PathBuf) -> Change {
    Change::Replace { path, content: Content(Vec::new()), new: NewFile::root(0o644) }
}

pub(super) fn empty(step: &Empty, view: View<'_>) -> Result<Findings> {
    let entry = existing(&step.path, view)?;
    let mut changes = Vec::new();
    match entry.kind {
        FileKind::File => changes.push(Change::Truncate { path: entry.path, bytes: entry.bytes }),
        FileKind::Folder if step.recursive => view.root.walk(&entry.path, |item| {
            let bytes = item.bytes()?;
            if bytes > 0 {
                changes.push(Change::Truncate { path: entry.path.join(item.below), bytes });
            }
            Ok(())
        })?,
        _ if step.recursive => return Err(wrong_kind(&entry.path, "a file or folder")),
        _ => return Err(wrong_kind(&entry.path, "a regular file")),
    }
    Ok(changes.into())
}

/// See the section "Autorelabel" of selinux(8): the file is all that is needed.
pub(super) fn relabel(view: View<'_>) -> Result<Findings> {
    if view.root.is_file("/etc/selinux/config")? {
        return install("/.autorelabel", "", 0o644, view).map(Into::into);
    }
    let mut findings = Findings::default();
    findings.note(None, "the guest has no SELinux, so nothing is to be labelled");
    Ok(findings)
}
