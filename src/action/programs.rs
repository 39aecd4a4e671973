//! Programs of the guest itself: scripts, and its package manager. What they did, nobody can tell later.

#![forbid(unsafe_code)]

use std::fmt::Write;

use super::{Findings, View, meets};
use crate::error::{Error, ErrorKind, Result};
use crate::operation::schema::{PackageManager, Packages, Run};

/// Runs a script.
pub(super) fn run(run: &Run, view: View<'_>) -> Result<Findings> {
    if !meets(&run.when, view)? {
        return Ok(Findings::default());
    }
    Ok(program(run.script.clone(), view))
}

/// Updates, installs and removes.
pub(super) fn packages(packages: &Packages, view: View<'_>) -> Result<Findings> {
    if !meets(&packages.when, view)? {
        return Ok(Findings::default());
    }
    let manager = view.guest.package_manager.ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "no package manager was found in the guest")
            .hint("run its own one by a script: --run-command, or [action.run]")
    })?;
    Ok(program(script(manager, packages), view))
}

fn program(script: String, view: View<'_>) -> Findings {
    if view.settings.recorded {
        return Findings { unsure: true, ..Findings::default() };
    }
    Findings { program: Some(script), ..Findings::default() }
}

/// How one package manager is asked, without ever asking back.
struct Words {
    /// Before all others.
    first: &'static str,
    update: &'static str,
    install: &'static str,
    remove: &'static str,
}

fn words(manager: PackageManager) -> Words {
    let of = |first, update, install, remove| Words { first, update, install, remove };
    match manager {
        PackageManager::Apk => of("apk update", "apk upgrade", "apk add", "apk del"),
        PackageManager::Apt => of(
            "export DEBIAN_FRONTEND=noninteractive\napt-get -q -y update",
            "apt-get -q -y -o Dpkg::Options::=--force-confnew upgrade",
            "apt-get -q -y -o Dpkg::Options::=--force-confnew install",
            "apt-get -q -y remove",
        ),
        PackageManager::Dnf => of("", "dnf -y upgrade", "dnf -y install", "dnf -y remove"),
        PackageManager::Pacman => {
            of("", "pacman -Syu --noconfirm", "pacman -Sy --noconfirm", "pacman -R --noconfirm")
        }
        PackageManager::Portage => of("", "emerge -q -u @world", "emerge -q", "emerge -q -C"),
        PackageManager::Xbps => of("", "xbps-install -Suy", "xbps-install -Sy", "xbps-remove -Ry"),
        PackageManager::Yum => of("", "yum -y update", "yum -y install", "yum -y remove"),
        PackageManager::Zypper => of("", "zypper -n update -l", "zypper -n install -l", "zypper -n remove"),
    }
}

/// The names are checked when they are read: no sign in them means anything between quotes.
fn script(manager: PackageManager, packages: &Packages) -> String {
    let Words { first, update, install, remove } = words(manager);
    let mut script = String::from("#!/bin/sh -e\n");
    let mut line = |words: &str, names: &[String]| {
        let names: String = names.iter().map(|name| format!(" '{name}'")).collect();
        // Writing to a string does not fail.
        let _ = writeln!(script, "{words}{names}");
    };
    if packages.update || !packages.install.is_empty() {
        line(first, &[]);
    }
    if packages.update {
        line(update, &[]);
    }
    for (words, names) in [(install, &packages.install), (remove, &packages.remove)] {
        if !names.is_empty() {
            line(words, names);
        }
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::schema::Terms;

    #[test]
    fn a_package_manager_is_asked_for_what_is_wanted_only() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let wanted = |update, install: &[&str], remove: &[&str]| Packages {
            update,
            install: names(install),
            remove: names(remove),
            terms: Terms::default(),
            when: Default::default(),
        };
        let apt = script(PackageManager::Apt, &wanted(false, &["vim", "g++"], &["nano"]));
        assert!(apt.contains("install 'vim' 'g++'\n") && apt.contains("remove 'nano'\n"), "{apt}");
        assert!(apt.contains("apt-get -q -y update\n") && !apt.contains("upgrade"), "{apt}");
        let removed = script(PackageManager::Apt, &wanted(false, &[], &["nano"]));
        assert!(!removed.contains("update"), "{removed}");
        assert_eq!(script(PackageManager::Dnf, &wanted(true, &[], &[])), "#!/bin/sh -e\n\ndnf -y upgrade\n");
    }
}
