//! Mount options that the user wants, in virt-sysprep's form, and which of them guestseal passes on: an allow-list for
//! each type of filesystem, so that none can weaken what is forced, or name a file or a device of the host.

#![forbid(unsafe_code)]

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sys_mount::MountFlags;

use crate::disk::Content;
use crate::error::{Error, Result};
use crate::guest::path_serde;

/// What is wanted of the filesystem that the guest mounts somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Wanted {
    /// Where the guest mounts it.
    #[serde(with = "path_serde")]
    pub point: PathBuf,
    /// Each option, as mount(8) writes it.
    pub options: Vec<String>,
}

/// The types that have options of their own, with those options, by the name before a `=`. From ext4(5), xfs(5),
/// btrfs(5) and the kernel's vfat documentation, without what changes which files are seen and what they have, without
/// journals, and without what names something else on the host.
const OWN: [(&[Content], &[&str]); 4] = [
    (
        &[Content::Ext2, Content::Ext3, Content::Ext4],
        &[
            "auto_da_alloc",
            "barrier",
            "block_validity",
            "delalloc",
            "dioread_lock",
            "dioread_nolock",
            "discard",
            "init_itable",
            "inode_readahead_blks",
            "max_batch_time",
            "min_batch_time",
            "noauto_da_alloc",
            "nobarrier",
            "noblock_validity",
            "nodelalloc",
            "nodiscard",
            "noinit_itable",
            "stripe",
        ],
    ),
    (
        &[Content::Xfs],
        &[
            "allocsize",
            "discard",
            "ikeep",
            "inode32",
            "inode64",
            "largeio",
            "logbsize",
            "logbufs",
            "noalign",
            "nodiscard",
            "noikeep",
            "nolargeio",
            "sunit",
            "swalloc",
            "swidth",
            "wsync",
        ],
    ),
    (
        &[Content::Btrfs],
        &[
            "autodefrag",
            "barrier",
            "commit",
            "compress",
            "compress-force",
            "datacow",
            "datasum",
            "discard",
            "flushoncommit",
            "max_inline",
            "noautodefrag",
            "nobarrier",
            "nodatacow",
            "nodatasum",
            "nodiscard",
            "noflushoncommit",
            "nossd",
            "skip_balance",
            "ssd",
            "ssd_spread",
            "thread_pool",
        ],
    ),
    (&[Content::Vfat], &["codepage", "discard", "flush", "iocharset", "shortname", "tz", "utf8"]),
];

/// Those that would undo what every mount is given: nosuid, nodev, noexec, the type, the tree that is mounted.
const WEAKENING: [&str; 10] = [
    "dev",
    "errors",
    "exec",
    "norecovery",
    "noload",
    "rescue",
    "subvol",
    "subvolid",
    "suid",
    "usebackuproot",
];

/// Those that name a file or a device beside the one that is mounted.
const NAMING: [&str; 9] =
    ["bind", "device", "journal_dev", "journal_path", "logdev", "loop", "lowerdir", "rtdev", "upperdir"];

/// What an option that every filesystem has does to the flags of mount(2): those to set and those to take away. None for
/// another one.
fn flags(option: &str) -> Option<(MountFlags, MountFlags)> {
    let set = |flags| (flags, MountFlags::empty());
    Some(match option {
        // As it is anyway. Who only looks mounts read-only, whatever is wanted.
        "defaults" | "rw" | "async" | "nosuid" | "nodev" | "noexec" | "noatime" => set(MountFlags::empty()),
        "ro" => set(MountFlags::RDONLY),
        "sync" => set(MountFlags::SYNCHRONOUS),
        "dirsync" => set(MountFlags::DIRSYNC),
        "nodiratime" => set(MountFlags::NODIRATIME),
        "relatime" => (MountFlags::RELATIME, MountFlags::NOATIME),
        "strictatime" => (MountFlags::STRICTATIME, MountFlags::NOATIME),
        _ => return None,
    })
}

/// An option without what is assigned to it.
fn name(option: &str) -> &str {
    option.split('=').next().unwrap_or_default()
}

/// Reads `POINT:OPTION[,OPTION…][;POINT:…]`.
///
/// # Errors
/// Usage errors: another form, options that guestseal passes on to no filesystem.
pub fn parse(text: &str) -> Result<Vec<Wanted>> {
    let mut all: Vec<Wanted> = Vec::new();
    for part in text.split(';').filter(|part| !part.is_empty()) {
        let (point, options) =
            part.split_once(':').filter(|(point, _)| point.starts_with('/')).ok_or_else(|| {
                Error::usage(format!("--mount-options {part:?} names no mount point"))
                    .hint("write POINT:OPTIONS, such as \"/:noatime;/var:ro,nodiratime\"")
            })?;
        // Without trailing slashes and the like, which fstab may have as well.
        let point: PathBuf = PathBuf::from(point).components().collect();
        if all.iter().any(|other| other.point == point) {
            return Err(Error::usage(format!("--mount-options names {} twice", point.display())));
        }
        let options: Vec<String> =
            options.split(',').filter(|option| !option.is_empty()).map(str::to_owned).collect();
        options.iter().try_for_each(|option| check(option))?;
        all.push(Wanted { point, options });
    }
    Ok(all)
}

fn check(option: &str) -> Result<()> {
    let refused = |why: &str| {
        Err(Error::usage(format!("the mount option {option:?} {why}"))
            .hint("docs/safety.md lists the options that guestseal passes on"))
    };
    let known = name(option);
    if WEAKENING.contains(&known) {
        return refused("would weaken what guestseal mounts every filesystem with");
    }
    if NAMING.contains(&known) {
        return refused("names something else than the guest's own filesystem");
    }
    if flags(option).is_none() && !OWN.iter().any(|(_, own)| own.contains(&known)) {
        return refused("is none that guestseal passes on");
    }
    if option.chars().any(char::is_control) {
        return refused("has a control character");
    }
    Ok(())
}

/// Adds wanted options to the flags and the options of a filesystem.
pub(super) fn apply(options: &[String], flags_of_mount: &mut MountFlags, data: &mut Vec<String>) {
    for option in options {
        match flags(option) {
            Some((set, clear)) => *flags_of_mount = (*flags_of_mount - clear) | set,
            None => data.push(option.clone()),
        }
    }
}

/// Whether a filesystem of this type takes the options.
///
/// # Errors
/// A usage error with the first that it does not take.
pub fn fits(options: &[String], content: Content) -> Result<()> {
    let own = OWN.iter().find(|(types, _)| types.contains(&content)).map_or(&[][..], |(_, own)| *own);
    match options.iter().find(|option| flags(option).is_none() && !own.contains(&name(option))) {
        None => Ok(()),
        Some(option) => Err(Error::usage(format!("{content} has no mount option {option:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mount::options::{Access, options};
    use crate::mount::place::Place;

    #[test]
    fn the_form_is_that_of_virt_sysprep() {
        let wanted = parse("/:noatime;/var/:rw,nodiratime;").unwrap();
        let point = |point: &str, options: &[&str]| Wanted {
            point: point.into(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        };
        assert_eq!(wanted, [point("/", &["noatime"]), point("/var", &["rw", "nodiratime"])]);
        assert_eq!(parse("/:compress=zstd:3").unwrap(), [point("/", &["compress=zstd:3"])]);
        for wrong in ["noatime", "var:ro", "/:ro;/:rw", "/var:ro;//var/:ro"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_weakens_or_names_something_else_is_refused() {
        let refused = [
            "suid",
            "dev",
            "exec",
            "errors=continue",
            "device=/dev/sda",
            "journal_path=/etc/shadow",
            "journal_dev=2049",
            "logdev=/dev/sda",
            "rtdev=/dev/sda",
            "lowerdir=/",
            "subvol=/",
            "subvolid=5",
            "noload",
            "norecovery",
            "rescue=all",
            "loop",
            "bind",
            "remount",
            "context=x",
            "ro=1",
            "nosuid=0",
            "commit=5\n",
            "",
            "=",
        ];
        for option in refused.iter().filter(|option| !option.is_empty()) {
            assert!(parse(&format!("/:noatime,{option}")).is_err(), "{option}");
        }
    }

    #[test]
    fn what_is_wanted_reaches_the_kernel_and_what_is_forced_stays() {
        let place = |content, wanted: &[&str]| {
            let mut place = Place::root(0, content, None);
            place.options = wanted.iter().map(|option| (*option).to_owned()).collect();
            place
        };
        let mounted =
            options(Content::Btrfs, Access::Change, Some(&place(Content::Btrfs, &["compress=zstd", "ro"])));
        let mounted = mounted.unwrap();
        assert!(
            mounted.data.contains("compress=zstd") && mounted.flags.contains(MountFlags::RDONLY),
            "{mounted:?}"
        );
        let strict =
            options(Content::Ext4, Access::Look, Some(&place(Content::Ext4, &["strictatime", "rw"])))
                .unwrap();
        assert!(strict.flags.contains(MountFlags::STRICTATIME | MountFlags::RDONLY), "{strict:?}");
        assert!(!strict.flags.contains(MountFlags::NOATIME), "{strict:?}");
        assert!(fits(&["compress=zstd".into()], Content::Btrfs).is_ok());
        assert!(fits(&["compress=zstd".into()], Content::Ext4).is_err());
    }

    proptest! {
        /// Whatever is accepted, every mount is harmless, and no comma or control character gets into the options.
        #[test]
        fn no_option_weakens(text in "(/[a-z]{0,2}:(no)?[a-z_]{1,8}(=[ -~]{0,4})?(,ro|,sync)?;){0,3}") {
            for wanted in parse(&text).unwrap_or_default() {
                for (types, _) in OWN {
                    let mut place = Place::root(0, types[0], None);
                    place.options = wanted.options.clone();
                    let mounted = options(types[0], Access::Look, Some(&place)).unwrap();
                    let all = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
                    prop_assert!(mounted.flags.contains(all));
                    let words = mounted.data.split(',').filter(|word| !word.is_empty());
                    let known = |word: &str| ["noload", "nouuid", "norecovery", "rescue", "umask"].contains(&name(word));
                    for word in words {
                        prop_assert!(known(word) || OWN.iter().any(|(_, own)| own.contains(&name(word))), "{word}");
                    }
                }
            }
        }
    }
}
