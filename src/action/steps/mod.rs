//! The steps of a customisation, each as virt-customize(1) does it. They are done each time; what later steps made of
//! an earlier one cannot be told afterwards, so a later check of a sealed guest is unsure of them.

#![forbid(unsafe_code)]

mod bring;
mod files;
mod firstboot;
pub(super) mod ssh;
mod text;

use std::path::{Path, PathBuf};

use super::{Findings, View, data};
use crate::error::{Error, Result};
use crate::guest::change::{Change, Content, NewFile};
use crate::guest::{Entry, FileKind};
use crate::operation::schema::{Action, Remove};

/// Looks at the guest and says what this step would change.
///
/// # Errors
/// When something that the step names is not there, or is something else.
pub(super) fn look(action: &Action, view: View<'_>) -> Result<Findings> {
    match action {
        Action::AppendLine(step) => text::append_line(step, view),
        Action::Substitute(step) => text::substitute(step, view),
        Action::Chmod(step) => files::chmod(step, view),
        Action::Chown(step) => files::chown(step, view),
        Action::Copy(step) => files::copy(step, view),
        Action::Move(step) => files::rename(step, view),
        Action::Delete(step) => data::remove(&without_dots(&step.path), view),
        Action::Empty(step) => files::empty(step, view),
        Action::Mkdir(step) => folders(Path::new(&step.path), view).map(Into::into),
        Action::Scrub(step) => files::scrub(step, view),
        Action::Touch(step) => files::touch(step, view),
        Action::Upload(step) => bring::upload(step, view),
        Action::CopyIn(step) => bring::tree("copy-in", step, view),
        Action::TarIn(step) => bring::tree("tar-in", step, view),
        Action::Firstboot(step) => firstboot::install(step, view),
        Action::SshInject(step) => ssh::inject(step, view),
        Action::SelinuxRelabel(_) => files::relabel(view),
        // Those that were given stand in its place; a record has them by their names only.
        _ => Ok(Findings { unsure: true, ..Findings::default() }),
    }
}

/// As the shell reads a glob: `*` and `?` match no dot at the beginning of a name.
fn without_dots(glob: &str) -> Remove {
    let parts: Vec<&str> = glob.split('/').collect();
    let hidden = |at: usize| {
        let part = parts[at];
        let dotted = match part.strip_prefix('?') {
            Some(rest) => format!(".{rest}"),
            None => format!(".{part}"),
        };
        let mut parts = parts.clone();
        parts[at] = &dotted;
        parts.join("/")
    };
    let open = (0..parts.len()).filter(|at| parts[*at].starts_with(['*', '?']));
    Remove {
        paths: vec![glob.to_owned()],
        keep: open.map(hidden).collect(),
        recursive: true,
        links: true,
        when: Default::default(),
    }
}

/// The file that a path leads to.
fn existing(path: &str, view: View<'_>) -> Result<Entry> {
    view.root.resolve(Path::new(path))?.ok_or_else(|| missing(path))
}

fn missing(path: &str) -> Error {
    Error::failed(format!("{path} does not exist in the guest"))
        .hint("steps run in their order: make it by an earlier one, or take the step out")
}

fn wrong_kind(path: &Path, wanted: &str) -> Error {
    Error::failed(format!("{} in the guest is not {wanted}", path.display()))
        .hint("look at it in the guest, or take the step out")
}

/// Where something goes that is to be at `path`: the file that is there, links followed, or a new one in a folder that
/// exists.
fn place(path: &Path, view: View<'_>) -> Result<PathBuf> {
    if let Some(entry) = view.root.resolve(path)? {
        return Ok(entry.path);
    }
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    match view.root.resolve(folder)? {
        Some(entry) if entry.kind == FileKind::Folder => Ok(match path.file_name() {
            Some(name) => entry.path.join(name),
            None => entry.path,
        }),
        _ => Err(missing(&folder.display().to_string())),
    }
}

/// The same where a folder means a place of this name in it.
fn place_or_into(path: &str, name: Option<&std::ffi::OsStr>, view: View<'_>) -> Result<PathBuf> {
    let there = place(Path::new(path), view)?;
    let is_folder = view.root.lookup(&there)?.is_some_and(|entry| entry.kind == FileKind::Folder);
    Ok(match name {
        Some(name) if is_folder => there.join(name),
        _ => there,
    })
}

/// What makes this folder, and those above it that are missing, as `mkdir -p` does.
pub(super) fn folders(path: &Path, view: View<'_>) -> Result<Vec<Change>> {
    let mut above: Vec<&Path> = path.ancestors().collect();
    above.reverse();
    let mut changes = Vec::new();
    for folder in above {
        match view.root.resolve(folder)? {
            Some(entry) if entry.kind == FileKind::Folder => {}
            Some(entry) => return Err(wrong_kind(&entry.path, "a folder")),
            None if view.root.lookup(folder)?.is_some() => {
                return Err(wrong_kind(folder, "a folder, but a link that leads nowhere"));
            }
            None => changes.push(Change::Folder { path: folder.to_path_buf(), new: NewFile::root(0o755) }),
        }
    }
    Ok(changes)
}

/// A file that guestseal itself puts there, with the folders above it.
fn install(path: &str, text: &str, mode: u32, view: View<'_>) -> Result<Vec<Change>> {
    let path = Path::new(path);
    let mut changes = folders(path.parent().unwrap_or(path), view)?;
    if view.root.read(path)?.is_none_or(|old| old != text.as_bytes()) {
        let content = Content(text.as_bytes().to_vec());
        changes.push(Change::Replace { path: path.to_path_buf(), content, new: NewFile::root(mode) });
    }
    Ok(changes)
}

/// A link that guestseal itself puts there, with the folders above it.
fn install_link(path: &str, target: &str, view: View<'_>) -> Result<Vec<Change>> {
    let (path, target) = (Path::new(path), PathBuf::from(target));
    let mut changes = folders(path.parent().unwrap_or(path), view)?;
    if view.root.read_link(path)?.as_ref() != Some(&target) {
        changes.push(Change::Link { path: path.to_path_buf(), target });
    }
    Ok(changes)
}
