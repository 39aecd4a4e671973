//! SSH keys of users: authorized_keys of sshd(8).

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use super::{place, wrong_kind};
use crate::action::{Findings, View};
use crate::error::{Error, Result};
use crate::guest::FileKind;
use crate::guest::accounts::{Passwd, clean_path};
use crate::guest::change::{Change, Content, NewFile};
use crate::guest::names::did_you_mean;
use crate::operation::step::SshInject;

pub(super) fn inject(step: &SshInject, view: View<'_>) -> Result<Findings> {
    let key = step.key.as_deref().unwrap_or_default().trim_end_matches(['\n', '\r']);
    if key.is_empty() {
        return Err(Error::usage(format!("there is no SSH key for {}", step.user)));
    }
    let passwd = Passwd::parse(&view.root.read(Path::new("/etc/passwd"))?.unwrap_or_default());
    let Some(account) = passwd.find(&step.user) else {
        let names: Vec<_> = passwd.accounts().map(|account| account.name().into_owned()).collect();
        return Err(Error::usage(format!("the guest has no user {:?}", step.user))
            .hint(did_you_mean(&step.user, names.iter().map(String::as_str))));
    };
    let home = clean_path(account.home()).ok_or_else(|| {
        Error::unsupported(format!("the user {} of the guest has no home folder", step.user))
    })?;
    let changes = let_in(&home, (account.uid(), account.gid()), key, view)?;
    let mut findings = Findings { changes, ..Findings::default() };
    if findings.changes.is_empty() {
        findings.note(home.join(".ssh/authorized_keys"), "the key is there already");
    }
    Ok(findings)
}

/// What lets the owner of this home log in with these keys; nothing when they are there already. The home may be one that
/// is only made.
pub(in crate::action) fn let_in(
    home: &Path,
    (uid, gid): (u32, u32),
    keys: &str,
    view: View<'_>,
) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    let owner = |mode| NewFile { mode, uid, gid };
    let folder = home.join(".ssh");
    let folder = if view.root.resolve(home)?.is_some() { place(&folder, view)? } else { folder };
    match view.root.lookup(&folder)?.map(|entry| entry.kind) {
        Some(FileKind::Folder) => {}
        Some(_) => return Err(wrong_kind(&folder, "a folder")),
        None => changes.push(Change::Folder { path: folder.clone(), new: owner(0o700) }),
    }
    let path = real(folder.join("authorized_keys"), view)?;
    let old = view.root.read(&path)?.unwrap_or_default();
    let new = with_keys(&old, keys);
    if new == old {
        return Ok(Vec::new());
    }
    changes.push(Change::Replace { path, content: Content(new), new: owner(0o600) });
    Ok(changes)
}

fn real(path: PathBuf, view: View<'_>) -> Result<PathBuf> {
    Ok(view.root.resolve(&path)?.map_or(path, |entry| entry.path))
}

/// Each line that is not there yet comes at the end.
fn with_keys(old: &[u8], keys: &str) -> Vec<u8> {
    let mut new = old.to_vec();
    for key in keys.lines().filter(|line| !line.trim().is_empty()) {
        if new.split(|byte| *byte == b'\n').any(|line| line == key.as_bytes()) {
            continue;
        }
        if new.last().is_some_and(|byte| *byte != b'\n') {
            new.push(b'\n');
        }
        new.extend(key.bytes().chain([b'\n']));
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_added_on_lines_of_their_own_and_once() {
        assert_eq!(with_keys(b"", "ssh-rsa A\n"), b"ssh-rsa A\n");
        assert_eq!(with_keys(b"ssh-rsa A", "ssh-rsa B"), b"ssh-rsa A\nssh-rsa B\n");
        assert_eq!(with_keys(b"ssh-rsa A\n", "ssh-rsa A\nssh-rsa B"), b"ssh-rsa A\nssh-rsa B\n");
    }
}
