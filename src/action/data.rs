//! The verbs that are plain data: remove, truncate, write, link, detect.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{Findings, View, file_has_line, find, meets, put};
use crate::error::{Context, Error, Result};
use crate::guest::change::{Change, NewFile};
use crate::guest::glob::KeepSet;
use crate::guest::{Entry, FileKind};
use crate::operation::schema::{Detect, Link, Remove, Truncate, Write};

pub(super) fn remove(verb: &Remove, view: View<'_>) -> Result<Findings> {
    let mut findings = Findings::default();
    if !meets(&verb.when, view)? {
        return Ok(findings);
    }
    let keep = KeepSet::new(&verb.keep, &view.guest.homes)?;
    let mut inside: Option<PathBuf> = None;
    for entry in find(&verb.paths, &verb.keep, view)? {
        // Sorted, so what is below a removed folder comes right after it.
        if inside.as_ref().is_some_and(|folder| entry.path.starts_with(folder)) {
            continue;
        }
        match entry.kind {
            FileKind::Folder if verb.recursive => {
                inside = Some(entry.path.clone());
                remove_folder(entry.path, &keep, view, &mut findings.changes)?;
            }
            FileKind::Folder => {}
            FileKind::Link if !verb.links => {}
            kind => findings.changes.push(Change::Remove { path: entry.path, kind, bytes: entry.bytes }),
        }
    }
    Ok(findings)
}

/// A folder goes as a whole, or, where something deep inside is kept or mounted, all but that and the folders that lead
/// to it.
pub(super) fn remove_folder(
    folder: PathBuf,
    keep: &KeepSet,
    view: View<'_>,
    changes: &mut Vec<Change>,
) -> Result<()> {
    // What is mounted there is emptied like any folder.
    let mounted = view.root.mount_points_at(&folder).flat_map(Path::ancestors);
    let mut spared: BTreeSet<PathBuf> =
        mounted.filter(|path| path.starts_with(&folder)).map(Path::to_path_buf).collect();
    let mut keeper = keep.ask();
    if !keep.is_empty() {
        view.root.walk(&folder, |item| {
            let path = folder.join(item.below);
            let above = path.parent().unwrap_or(&folder);
            // Below what is kept all is; the folders that lead to it are spared, and the rest in them goes.
            if !keeper.keeps(above) && keeper.keeps(&path) {
                let above = path.ancestors().skip(1).take_while(|above| above.starts_with(&folder));
                spared.extend(above.map(Path::to_path_buf));
            }
            Ok(())
        })?;
    }
    if spared.is_empty() {
        let (entries, bytes) = view.root.measure(&folder)?;
        changes.push(Change::RemoveTree { path: folder, bytes, entries });
        return Ok(());
    }
    for folder in &spared {
        for name in view.root.names(folder)? {
            let Some(entry) = view.root.lookup(&folder.join(name))? else { continue };
            if spared.contains(&entry.path) || keeper.keeps(&entry.path) {
                continue;
            }
            changes.push(if entry.kind == FileKind::Folder {
                let (entries, bytes) = view.root.measure(&entry.path)?;
                Change::RemoveTree { path: entry.path, bytes, entries }
            } else {
                Change::Remove { path: entry.path, kind: entry.kind, bytes: entry.bytes }
            });
        }
    }
    Ok(())
}

pub(super) fn truncate(verb: &Truncate, view: View<'_>) -> Result<Findings> {
    let mut findings = Findings::default();
    if !meets(&verb.when, view)? {
        return Ok(findings);
    }
    for entry in find(&verb.paths, &verb.keep, view)? {
        if entry.kind != FileKind::File || entry.bytes == 0 {
            continue;
        }
        if entry.names > 1 {
            // A hard link may be a user's trick: the other name could be any file of the guest.
            let message = format!("not truncated: the file has {} names", entry.names);
            findings.note(entry.path, message);
            continue;
        }
        findings.changes.push(Change::Truncate { path: entry.path, bytes: entry.bytes });
    }
    Ok(findings)
}

pub(super) fn write(verb: &Write, view: View<'_>) -> Result<Findings> {
    let path = Path::new(&verb.path);
    if !meets(&verb.when, view)? || (!verb.create && view.root.resolve(path)?.is_none()) {
        return Ok(Findings::default());
    }
    let mode = u32::from_str_radix(verb.mode.as_deref().unwrap_or("0644"), 8)
        .context(|| format!("{:?} is no octal mode", verb.mode.as_deref().unwrap_or_default()))?;
    let content = view.settings.fill(&verb.content).into_bytes();
    Ok(put(path, content, NewFile::root(mode), view)?.into_iter().collect::<Vec<_>>().into())
}

pub(super) fn link(verb: &Link, view: View<'_>) -> Result<Findings> {
    if !meets(&verb.when, view)? {
        return Ok(Findings::default());
    }
    let (mut path, target) = (PathBuf::from(&verb.path), PathBuf::from(view.settings.fill(&verb.target)));
    let is_folder = |entry: Option<Entry>| entry.is_some_and(|entry| entry.kind == FileKind::Folder);
    if let Some(name) = target.file_name().filter(|_| verb.into)
        && is_folder(view.root.resolve(&path)?)
    {
        path.push(name);
    }
    if view.root.read_link(&path)?.as_ref() == Some(&target) {
        return Ok(Findings::default());
    }
    if is_folder(view.root.lookup(&path)?) {
        return Err(Error::unsupported(format!(
            "{} is a folder in the guest, where a link belongs",
            path.display()
        )));
    }
    Ok(vec![Change::Link { path, target }].into())
}

pub(super) fn detect(verb: &Detect, view: View<'_>) -> Result<Findings> {
    let mut findings = Findings::default();
    if !meets(&verb.when, view)? {
        return Ok(findings);
    }
    let line = verb.containing.as_deref().map(regex::bytes::Regex::new).transpose();
    let line = line.context(|| "a regular expression is wrong")?;
    for entry in find(&verb.paths, &verb.keep, view)? {
        if let Some(line) = &line
            && (entry.kind != FileKind::File || !file_has_line(&entry.path, line, view)?)
        {
            continue;
        }
        findings.note(entry.path, view.settings.fill(&verb.message));
    }
    Ok(findings)
}
