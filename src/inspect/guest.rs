//! What a mounted guest is: distribution, architecture, package manager, init system, homes.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::os_release::OsRelease;
use crate::error::Result;
use crate::guest::accounts::{LoginDefs, Passwd, homes};
use crate::guest::{FileKind, GuestRoot, path_serde};
use crate::operation::schema::{Init, PackageManager};

/// What was found out about a guest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Guest {
    /// Its os-release.
    pub os: OsRelease,
    /// Machine architecture of its shell, as uname(1) calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub architecture: Option<Cow<'static, str>>,
    /// Its package manager.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub package_manager: Option<PackageManager>,
    /// Its init system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<Init>,
    /// Its host name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Home folders by its passwd, and those below /home.
    #[serde(with = "path_serde::list")]
    pub homes: Vec<PathBuf>,
}

impl Guest {
    /// Looks at a mounted guest.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub fn examine(root: &GuestRoot) -> Result<Self> {
        let mut release = root.read_text("/etc/os-release")?;
        if release.is_empty() {
            release = root.read_text("/usr/lib/os-release")?;
        }
        let mut os = OsRelease::parse(&release);
        if release.is_empty() {
            older_releases(root, &mut os)?;
        }
        let name = root.read_text("/etc/hostname")?;
        let hostname = name.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
        Ok(Self {
            os,
            architecture: architecture(root)?.map(Cow::Borrowed),
            package_manager: package_manager(root)?,
            init: init(root)?,
            hostname: hostname.map(str::to_owned),
            homes: all_homes(root)?,
        })
    }
}

/// Distributions from before os-release: RHEL and CentOS 6, old Debian.
fn older_releases(root: &GuestRoot, os: &mut OsRelease) -> Result<()> {
    let text = root.read_text("/etc/redhat-release")?;
    if let Some(line) = text.lines().next() {
        let id = if line.starts_with("CentOS") { "centos" } else { "rhel" };
        let version = line.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        *os = OsRelease {
            id: id.into(),
            id_like: vec!["rhel".into(), "fedora".into()],
            version_id: version.unwrap_or_default().into(),
            pretty_name: line.trim().into(),
        };
    } else if let Some(version) = root.read_text("/etc/debian_version")?.lines().next() {
        let pretty_name = format!("Debian {}", version.trim());
        *os = OsRelease {
            id: "debian".into(),
            id_like: Vec::new(),
            version_id: version.trim().into(),
            pretty_name,
        };
    }
    Ok(())
}

/// The `e_machine` of the guest's shell (elf(5)).
fn architecture(root: &GuestRoot) -> Result<Option<&'static str>> {
    for path in ["/bin/sh", "/usr/bin/env", "/sbin/init"] {
        let head = match root.resolve(Path::new(path))? {
            Some(entry) if entry.kind == FileKind::File => root.read_head(&entry.path, 20)?,
            _ => continue,
        };
        if !head.starts_with(b"\x7fELF") || head.len() < 20 {
            continue;
        }
        let machine = if head[5] == 2 {
            u16::from_be_bytes([head[18], head[19]])
        } else {
            u16::from_le_bytes([head[18], head[19]])
        };
        return Ok(match (machine, head[4], head[5]) {
            (62, 2, _) => Some("x86_64"),
            (3, ..) => Some("i686"),
            (183, ..) => Some("aarch64"),
            (40, ..) => Some("armv7l"),
            (243, ..) => Some("riscv64"),
            (21, _, 1) => Some("ppc64le"),
            (21, ..) => Some("ppc64"),
            (22, ..) => Some("s390x"),
            (258, ..) => Some("loongarch64"),
            _ => None,
        });
    }
    Ok(None)
}

fn package_manager(root: &GuestRoot) -> Result<Option<PackageManager>> {
    // Where two are installed, the first is the one that the distribution uses.
    for (path, manager) in [
        ("/usr/bin/zypper", PackageManager::Zypper),
        ("/usr/bin/apt-get", PackageManager::Apt),
        ("/var/lib/dpkg/status", PackageManager::Apt),
        ("/usr/bin/dnf5", PackageManager::Dnf),
        ("/usr/bin/dnf", PackageManager::Dnf),
        ("/usr/bin/microdnf", PackageManager::Dnf),
        ("/usr/bin/yum", PackageManager::Yum),
        ("/usr/bin/pacman", PackageManager::Pacman),
        ("/sbin/apk", PackageManager::Apk),
        ("/usr/bin/apk", PackageManager::Apk),
        ("/usr/bin/xbps-install", PackageManager::Xbps),
        ("/usr/bin/emerge", PackageManager::Portage),
    ] {
        if root.is_file(path)? {
            return Ok(Some(manager));
        }
    }
    Ok(None)
}

fn init(root: &GuestRoot) -> Result<Option<Init>> {
    let program = root.resolve(Path::new("/sbin/init"))?.map(|entry| entry.path);
    let name = program.as_deref().and_then(Path::file_name).unwrap_or_default();
    Ok(if name == "systemd" {
        Some(Init::Systemd)
    } else if root.is_file("/sbin/openrc")? || root.is_file("/usr/bin/openrc")? || name == "openrc-init" {
        Some(Init::Openrc)
    } else if name == "runit-init" {
        // Its folders say nothing: packages of Debian bring a service for it, whatever starts the guest.
        Some(Init::Runit)
    } else if root.is_file("/etc/inittab")? || root.is_folder("/etc/init.d")? {
        Some(Init::Sysvinit)
    } else if root.is_file("/usr/lib/systemd/systemd")? || root.is_file("/lib/systemd/systemd")? {
        Some(Init::Systemd)
    } else {
        None
    })
}

/// Homes by passwd, and every folder of /home: users of a directory service stand in no passwd.
fn all_homes(root: &GuestRoot) -> Result<Vec<PathBuf>> {
    let defs = LoginDefs::parse(&root.read(Path::new("/etc/login.defs"))?.unwrap_or_default());
    let passwd = Passwd::parse(&root.read(Path::new("/etc/passwd"))?.unwrap_or_default());
    let mut found = homes(&passwd, defs.uid_min);
    for name in root.names(Path::new("/home"))?.into_iter().filter(|name| name != "lost+found") {
        let path = Path::new("/home").join(name);
        if root.lookup(&path)?.is_some_and(|entry| entry.kind == FileKind::Folder) {
            found.push(path);
        }
    }
    let mut there = Vec::new();
    for home in found {
        if root.resolve(&home)?.is_some_and(|entry| entry.kind == FileKind::Folder) && !there.contains(&home)
        {
            there.push(home);
        }
    }
    Ok(there)
}
