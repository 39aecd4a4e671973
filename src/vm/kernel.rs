//! The kernel for the machine: the one that was given, or one of this host's, with its modules. What its version is, and
//! where the uncompressed kernel lies in the file, is read from its header (Documentation/arch/x86/boot.rst).

#![forbid(unsafe_code)]

use std::cmp::Reverse;
use std::fs::{self, File};
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::disk::number::{byte, le16, le32, take};
use crate::error::{Context, Error, Result};

/// More than any header with its text of the version.
const HEAD: u64 = 64 << 10;
const INSTALL: &str = "install a kernel (Debian: linux-image-amd64), or name one with --kernel";

/// A kernel and its modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernel {
    /// The file (bzImage).
    pub path: PathBuf,
    /// Its version, as `uname -r` says it.
    pub version: String,
    /// The folder of its modules.
    pub modules: PathBuf,
}

/// What the header of a bzImage says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its version.
    pub version: String,
    /// Where the compressed kernel is in the file, without the length that stands behind it.
    pub payload: Range<u64>,
}

impl Kernel {
    /// The kernel at `given`, otherwise this host's: the running one's where it is there, else the newest.
    ///
    /// # Errors
    /// [`crate::ErrorKind::HostLacks`] when there is none that can be read and has modules; with what to do.
    pub fn find(given: Option<&Path>) -> Result<Self> {
        match given {
            Some(path) => Self::at(path),
            None => Self::of_host(Path::new("/")),
        }
    }

    /// The kernel in this file, whose modules are in `DIR/lib/modules/VERSION` beside `DIR/boot/FILE`, or the host's.
    ///
    /// # Errors
    /// As [`Kernel::find`].
    pub fn at(path: &Path) -> Result<Self> {
        let path = path
            .canonicalize()
            .map_err(|error| lacking(format!("there is no kernel {}", path.display())).caused_by(error))?;
        let Header { version, .. } = read_header(&path)?;
        let beside = path.parent().and_then(Path::parent);
        let folders = beside.into_iter().chain([Path::new("/")]);
        let below =
            folders.flat_map(|folder| ["lib/modules", "usr/lib/modules"].map(|name| folder.join(name)));
        // Fedora keeps a kernel beside its modules.
        let own = path.parent().map(Path::to_path_buf);
        let places = below.map(|folder| folder.join(&version)).chain(own);
        let modules = places.into_iter().find(|folder| folder.join("modules.dep").is_file());
        let modules = modules.ok_or_else(|| {
            Error::host_lacks(format!(
                "the kernel {} has no modules: there is no modules.dep for {version}",
                path.display()
            ))
            .hint(format!("install them in /lib/modules/{version}, or name another kernel with --kernel"))
        })?;
        Ok(Self { path, version, modules })
    }

    fn of_host(root: &Path) -> Result<Self> {
        let running = nix::sys::utsname::uname().ok();
        let running = running.and_then(|name| name.release().to_str().map(str::to_owned)).unwrap_or_default();
        let mut found = candidates(root);
        found.sort_by_cached_key(|(version, _)| (*version != running, Reverse(sort_key(version))));
        let mut refused = None;
        for (_, path) in found {
            match Self::at(&path) {
                Ok(kernel) => return Ok(kernel),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        Err(refused.unwrap_or_else(|| lacking("this host has no kernel for a virtual machine")))
    }
}

fn lacking(what: impl Into<String>) -> Error {
    Error::host_lacks(what).hint(INSTALL)
}

/// The kernels of a system, by the versions in their names.
fn candidates(root: &Path) -> Vec<(String, PathBuf)> {
    let entries = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten();
    let named =
        |name: &str, path: PathBuf| name.strip_prefix("vmlinuz-").map(|version| (version.to_owned(), path));
    let boot = entries(root.join("boot"))
        .filter_map(|entry| named(&entry.file_name().to_string_lossy(), entry.path()));
    let beside = entries(root.join("lib/modules")).filter_map(|entry| {
        let path = entry.path().join("vmlinuz");
        path.is_file().then(|| (entry.file_name().to_string_lossy().into_owned(), path))
    });
    boot.chain(beside).collect()
}

/// Versions in the order of their numbers: 6.10 is newer than 6.9.
fn sort_key(version: &str) -> Vec<(u64, String)> {
    let mut key = Vec::new();
    let mut rest = version;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|sign: char| sign.is_ascii_digit()).len();
        let number = rest[..digits].parse().unwrap_or(0);
        let words = &rest[digits..];
        let length = words.find(|sign: char| sign.is_ascii_digit()).unwrap_or(words.len());
        key.push((number, words[..length].to_owned()));
        rest = &words[length..];
    }
    key
}

/// Opens a kernel.
///
/// # Errors
/// [`crate::ErrorKind::HostLacks`] when this user may not read it: Ubuntu's kernels belong to root alone.
pub(super) fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|error| {
        let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
        let error = Error::host_lacks(format!("cannot read the kernel {}", path.display())).caused_by(error);
        let path = path.display();
        if denied {
            error.hint(format!(
                "let everybody read it (as root: chmod 0644 {path}; on Debian and Ubuntu so that it stays: \
                 dpkg-statoverride --update --add root root 0644 {path}), or name a copy with --kernel"
            ))
        } else {
            error.hint(INSTALL)
        }
    })
}

/// Reads the header of a kernel's file.
///
/// # Errors
/// When it cannot be read, or is no kernel for this processor.
pub fn read_header(path: &Path) -> Result<Header> {
    let mut head = Vec::new();
    open(path)?.take(HEAD).read_to_end(&mut head).context(|| format!("cannot read {}", path.display()))?;
    parse_header(&head).ok_or_else(|| {
        Error::host_lacks(format!("{} is no kernel for x86 (bzImage)", path.display())).hint(INSTALL)
    })
}

/// The header in the first bytes of a bzImage; None when it is none, or too old to have all of it (before 2008).
pub fn parse_header(head: &[u8]) -> Option<Header> {
    if take::<4>(head, 0x202) != *b"HdrS" || le16(head, 0x206) < 0x0208 {
        return None;
    }
    let start = 0x200 + usize::from(le16(head, 0x20e));
    let text = head.get(start..)?.split(|byte| *byte == 0).next()?;
    let version = std::str::from_utf8(text).ok()?.split_whitespace().next()?;
    let harmless = |sign: char| sign.is_ascii_alphanumeric() || "._+~-".contains(sign);
    if version.len() > 128 || version.starts_with('.') || !version.chars().all(harmless) {
        return None;
    }
    let sectors = match byte(head, 0x1f1) {
        0 => 4,
        sectors => u64::from(sectors),
    };
    let start = (sectors + 1) * 512 + u64::from(le32(head, 0x248));
    let payload = start..start + u64::from(le32(head, 0x24c));
    Some(Header { version: version.to_owned(), payload })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;

    fn image(version: &str) -> Vec<u8> {
        let mut bytes = vec![0; 0x1000];
        bytes[0x1f1] = 7;
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
        bytes[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
        bytes[0x248..0x24c].copy_from_slice(&0x10u32.to_le_bytes());
        bytes[0x24c..0x250].copy_from_slice(&0x20u32.to_le_bytes());
        let text = format!("{version} (somebody@somewhere) #1 SMP\0");
        bytes[0x300..0x300 + text.len()].copy_from_slice(text.as_bytes());
        bytes
    }

    /// A folder as a system has it, with kernels of these versions and modules for some.
    fn system(kernels: &[&str], modules: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("boot")).unwrap();
        for version in kernels {
            fs::write(root.path().join(format!("boot/vmlinuz-{version}")), image(version)).unwrap();
        }
        for version in modules {
            let folder = root.path().join("lib/modules").join(version);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("modules.dep"), "").unwrap();
        }
        root
    }

    #[test]
    fn the_header_tells_version_and_payload() {
        let header = parse_header(&image("6.1.0-56-amd64")).unwrap();
        assert_eq!(header, Header { version: "6.1.0-56-amd64".into(), payload: 4112..4144 });
        assert_eq!(parse_header(&image("../../etc")), None);
        assert_eq!(parse_header(&image("")), None);
        assert_eq!(parse_header(b"#!/bin/sh"), None);
    }

    #[test]
    fn the_newest_with_modules_is_taken() {
        let root = system(
            &["6.9.1-1-amd64", "6.10.0-2-amd64", "6.11.0-1-amd64"],
            &["6.9.1-1-amd64", "6.10.0-2-amd64"],
        );
        let kernel = Kernel::of_host(root.path()).unwrap();
        assert_eq!(kernel.version, "6.10.0-2-amd64");
        assert!(kernel.modules.ends_with("lib/modules/6.10.0-2-amd64"));
        let running = nix::sys::utsname::uname().unwrap().release().to_str().unwrap().to_owned();
        let root = system(&["99.0.0", &running], &["99.0.0", &running]);
        assert_eq!(Kernel::of_host(root.path()).unwrap().version, running);
    }

    #[test]
    fn what_is_lacking_is_said_with_a_remedy() {
        let refuse = |root: &tempfile::TempDir| {
            let error = Kernel::of_host(root.path()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::HostLacks);
            (error.chain(), error.what_to_do().unwrap_or_default().to_owned())
        };
        assert!(refuse(&system(&[], &[])).1.contains("linux-image-amd64"));
        let (told, hint) = refuse(&system(&["6.1.0-test"], &[]));
        assert!(told.contains("has no modules") && hint.contains("/lib/modules/6.1.0-test"), "{told} {hint}");
        let root = system(&[], &[]);
        fs::write(root.path().join("boot/vmlinuz-1"), "no kernel").unwrap();
        assert!(refuse(&root).0.contains("is no kernel for x86"));
        let error = Kernel::find(Some(Path::new("/no/such/vmlinuz"))).unwrap_err();
        assert!(error.chain().contains("there is no kernel /no/such/vmlinuz"), "{error:?}");
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let mut versions = ["6.9.1", "6.10.0", "6.10.0-12", "6.10.0-9", "6.10.0-rc1", "5.4"];
        versions.sort_by_key(|version| sort_key(version));
        assert_eq!(versions.last(), Some(&"6.10.0-rc1"));
        assert_eq!(versions[..2], ["5.4", "6.9.1"]);
    }

    proptest! {
        #[test]
        fn any_head_is_read(mut head in prop::collection::vec(any::<u8>(), 0x200..0x400)) {
            if head.len() > 0x208 {
                head[0x202..0x206].copy_from_slice(b"HdrS");
                head[0x207] = 2;
            }
            if let Some(Header { version, payload }) = parse_header(&head) {
                prop_assert!(!version.contains('/') && payload.start <= payload.end);
            }
            let _ = sort_key(&String::from_utf8_lossy(&head));
        }
    }
}
