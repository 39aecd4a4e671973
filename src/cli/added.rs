//! `--add`: disks, as virt-sysprep has it, and what older notes add by it: `user:…` and `network:…`. A disk of such a name
//! is `./user:…`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};

use super::selection::SelectionArgs;
use crate::error::{Context, Error, Result};
use crate::guest::password::{PasswordRequest, Selector};
use crate::guest::secret::Secret;
use crate::operation::network::Network;
use crate::operation::user::User;
use crate::plan::{NETWORKS, Parameters, USERS};

/// One value of it.
#[derive(Debug, Clone)]
pub enum Added {
    /// A disk.
    Disk(PathBuf),
    /// What stands behind `user:`, perhaps with a password.
    User(Secret),
    /// What stands behind `network:`.
    Network(String),
}

impl Added {
    /// How clap reads one.
    pub(super) fn parser() -> impl TypedValueParser<Value = Self> {
        OsStringValueParser::new().map(Self::from)
    }

    /// The disk; none when it is something else.
    pub(super) fn disk(&self) -> Option<&PathBuf> {
        match self {
            Self::Disk(path) => Some(path),
            _ => None,
        }
    }
}

impl From<OsString> for Added {
    fn from(value: OsString) -> Self {
        let kind = value.to_str().and_then(|text| text.split_once(':'));
        match kind {
            Some(("user", user)) => Self::User(Secret::new(user)),
            Some(("network", network)) => Self::Network(network.to_owned()),
            _ => Self::Disk(value.into()),
        }
    }
}

/// Puts what is no disk with the other options of the customisation.
pub(super) fn sort(added: &mut Vec<Added>, selection: &mut SelectionArgs) {
    for one in std::mem::take(added) {
        match one {
            Added::Disk(_) => added.push(one),
            Added::User(text) => selection.users.push(text),
            Added::Network(text) => selection.networks.push(text),
        }
    }
}

/// The disks that are named.
pub(super) fn disks(added: &[Added]) -> Vec<PathBuf> {
    added.iter().filter_map(Added::disk).cloned().collect()
}

/// Refuses disks beside a folder.
///
/// # Errors
/// A usage error.
pub(super) fn refuse_disks(added: &[Added]) -> Result<()> {
    let refused = Error::usage("--tree seals a folder, and --add names a disk image");
    if disks(added).is_empty() { Ok(()) } else { Err(refused.hint("leave one of them out")) }
}

/// Refuses what is no disk, where nothing is changed.
///
/// # Errors
/// A usage error.
pub(super) fn refuse_others(added: &[Added]) -> Result<()> {
    if added.iter().all(|one| one.disk().is_some()) {
        return Ok(());
    }
    Err(Error::usage("verify adds neither users nor networks")
        .hint("it holds the image against its record; an image of this name is ./user:… or ./network:…"))
}

/// Gives the parameters of accounts and networks what was added, behind what a profile has; the passwords that come with
/// the accounts.
///
/// # Errors
/// Usage errors of the values. None quotes a password.
pub(super) fn parameters(args: &SelectionArgs, parameters: &mut Parameters) -> Result<Vec<PasswordRequest>> {
    let (mut users, mut passwords) = (Vec::new(), Vec::new());
    for text in &args.users {
        let (user, selector) = User::parse(text.expose())?;
        if let Some(selector) = selector {
            let selector = Selector::parse(selector.expose());
            let selector =
                selector.map_err(|error| error.within(format!("--add user:{}:password=", user.name)))?;
            passwords.push(PasswordRequest { user: user.name.clone(), selector, bare_word: false });
        }
        users.push(user);
    }
    let networks = args.networks.iter().map(|text| Network::parse(text)).collect::<Result<Vec<_>>>()?;
    extend(parameters, USERS, users, User::list)?;
    extend(parameters, NETWORKS, networks, Network::list)?;
    Ok(passwords)
}

fn extend<T: serde::Serialize>(
    parameters: &mut Parameters,
    (operation, parameter): (&str, &str),
    new: Vec<T>,
    parse: fn(&str) -> Result<Vec<T>, String>,
) -> Result<()> {
    if new.is_empty() {
        return Ok(());
    }
    let key = (operation.to_owned(), parameter.to_owned());
    let given = parameters.values.get(&key).map_or(Ok(Vec::new()), |text| parse(text));
    let mut all =
        given.map_err(|what| Error::usage(format!("the parameter {operation}.{parameter}: {what}")))?;
    all.extend(new);
    let text = serde_json::to_string(&all).context(|| "cannot write a parameter as JSON")?;
    parse(&text).map_err(|what| Error::usage(format!("--add: {what}")))?;
    parameters.set(operation, parameter, text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_users_and_networks_are_no_disks() {
        let is_disk = |text: &str| Added::from(OsString::from(text)).disk().is_some();
        for disk in [
            "disk.qcow2",
            "./user:x",
            "user",
            "users:x",
            "/srv/user:x",
            "network",
            "nbd://host/x",
            "a:user:x",
        ] {
            assert!(is_disk(disk), "{disk}");
        }
        for other in ["user:", "user:bob", "network:dhcp"] {
            assert!(!is_disk(other), "{other}");
        }
        let shown = format!("{:?}", Added::from(OsString::from("user:bob:password=password:hunter2")));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
