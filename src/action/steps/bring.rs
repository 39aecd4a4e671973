//! Steps that bring files of the host into the guest.

#![forbid(unsafe_code)]

use std::path::Path;

use super::{existing, place_or_into, wrong_kind};
use crate::action::brought::{Item, ItemKind, key};
use crate::action::{Findings, View};
use crate::error::{Error, Result};
use crate::guest::FileKind;
use crate::guest::change::{Change, NewFile};
use crate::operation::step::Bring;

/// What the host has for a verb.
pub(super) fn items<'a>(verb: &str, from: &str, view: View<'a>) -> Result<&'a [Item]> {
    let items = view.settings.brought.get(&key(verb, from));
    items.map(Vec::as_slice).ok_or_else(|| Error::failed(format!("{from} of the host was not looked at")))
}

pub(super) fn upload(step: &Bring, view: View<'_>) -> Result<Findings> {
    let name = Path::new(&step.from).file_name();
    let path = place_or_into(&step.to, name, view)?;
    let changes = items("upload", &step.from, view)?.iter().filter_map(|item| match item.kind {
        ItemKind::File(source) => {
            Some(Change::Bring { path: path.clone(), source, new: owner(item), modified: None })
        }
        _ => None,
    });
    Ok(changes.collect::<Vec<_>>().into())
}

pub(super) fn tree(verb: &str, step: &Bring, view: View<'_>) -> Result<Findings> {
    let folder = existing(&step.to, view)?;
    if folder.kind != FileKind::Folder {
        return Err(wrong_kind(&folder.path, "a folder"));
    }
    let mut changes = Vec::new();
    for item in items(verb, &step.from, view)? {
        let path = folder.path.join(&item.below);
        let new = owner(item);
        match &item.kind {
            ItemKind::File(source) => {
                changes.push(Change::Bring { path, source: *source, new, modified: item.modified });
            }
            ItemKind::Link(target) => changes.push(Change::Link { path, target: target.clone() }),
            // A link to a folder stays one: whoever brings /lib does not want it in place of the link to /usr/lib.
            ItemKind::Folder => match view.root.resolve(&path)? {
                Some(entry) if entry.kind == FileKind::Folder => {
                    let (path, NewFile { mode, uid, gid }) = (entry.path, new);
                    if (entry.uid, entry.gid) != (uid, gid) {
                        changes.push(Change::Owner { path: path.clone(), uid, gid });
                    }
                    if entry.mode != mode {
                        changes.push(Change::Mode { path, mode });
                    }
                }
                Some(entry) => return Err(wrong_kind(&entry.path, "a folder")),
                None => changes.push(Change::Folder { path, new }),
            },
        }
    }
    Ok(changes.into())
}

fn owner(item: &Item) -> NewFile {
    NewFile { mode: item.mode, uid: item.uid, gid: item.gid }
}
