//! Public SSH keys of the host.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{Context, Error, ErrorKind, Result};
use crate::operation::step::SshInject;
use crate::operation::user::User;

/// The most that is read of a file of keys, in bytes.
const LONGEST: u64 = 1 << 20;

/// Sees to it that the step has its key as text.
pub(super) fn load(step: &mut SshInject, home: Option<&Path>) -> Result<()> {
    let key = match given(step.key.as_deref(), step.file.as_deref()) {
        Some(key) => key,
        None => newest(home).and_then(|file| read(&file)),
    };
    step.key =
        Some(key.map_err(|error| error.within(format!("--ssh-inject cannot take a key for {}", step.user)))?);
    step.file = None;
    Ok(())
}

/// The same for an account, which may do without.
pub(super) fn load_for_account(user: &mut User) -> Result<()> {
    let key = given(user.key.as_deref(), user.file.as_deref()).transpose();
    user.key =
        key.map_err(|error| error.within(format!("cannot take an SSH key for the new user {}", user.name)))?;
    user.file = None;
    Ok(())
}

fn given(key: Option<&str>, file: Option<&str>) -> Option<Result<String>> {
    key.map(|key| checked(key, "it")).or_else(|| file.map(|file| read(Path::new(file))))
}

fn read(path: &Path) -> Result<String> {
    let failed = || format!("cannot read {}", path.display());
    let file = File::open(path).context_kind(ErrorKind::Usage, failed)?;
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).context_kind(ErrorKind::Usage, failed)?;
    checked(&text, &path.display().to_string())
}

/// A private key in authorized_keys would be of no use, and known to all who have the image.
fn checked(text: &str, what: &str) -> Result<String> {
    if text.contains("PRIVATE KEY") {
        return Err(
            Error::usage(format!("{what} is a private key")).hint("give the file with .pub at its end")
        );
    }
    if text.trim().is_empty() {
        return Err(Error::usage(format!("{what} is empty")));
    }
    if text.contains(|letter: char| letter.is_control() && !matches!(letter, '\n' | '\r' | '\t')) {
        return Err(Error::usage(format!("{what} has control characters, which no key has")));
    }
    Ok(text.to_owned())
}

/// As ssh-copy-id(1) finds it: the newest id*.pub that is no certificate.
fn newest(home: Option<&Path>) -> Result<PathBuf> {
    let hint = "name a key: --ssh-inject USER:file:FILE or USER:string:KEY";
    let home = home.ok_or_else(|| Error::usage("it is not known where your home folder is").hint(hint))?;
    let folder = home.join(".ssh");
    let unreadable = || format!("cannot read {}", folder.display());
    let mut keys: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in fs::read_dir(&folder).context_kind(ErrorKind::Usage, unreadable)? {
        let entry = entry.context_kind(ErrorKind::Usage, unreadable)?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("id") && name.ends_with(".pub") && !name.ends_with("-cert.pub") {
            let time = entry.metadata().and_then(|metadata| metadata.modified());
            keys.push((time.unwrap_or(SystemTime::UNIX_EPOCH), entry.path()));
        }
    }
    keys.into_iter()
        .max()
        .map(|(_, path)| path)
        .ok_or_else(|| Error::usage(format!("there is no public key in {}", folder.display())).hint(hint))
}
