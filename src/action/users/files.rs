//! The guest's account files together, as they are to become.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use zeroize::Zeroizing;

use crate::action::View;
use crate::error::{Error, Result};
use crate::guest::accounts::{Group, GroupFile, LoginDefs, Passwd, Shadow, SubIds};
use crate::guest::change::{Change, Content, NewFile};

/// Days since 1970: when a password was last changed, in shadow(5).
pub(super) fn today() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() / (24 * 60 * 60))
}

/// All of them; none of those that the guest does without.
pub(super) struct Files {
    pub(super) passwd: Passwd,
    pub(super) shadow: Option<Shadow>,
    pub(super) group: Group,
    pub(super) gshadow: Option<Group>,
    pub(super) subuid: Option<SubIds>,
    pub(super) subgid: Option<SubIds>,
    pub(super) defs: LoginDefs,
    /// Whether a new account gets a group of its own.
    pub(super) own_groups: bool,
    useradd: BTreeMap<String, String>,
    old: Vec<Old>,
}

/// A file as it is, and where its real path is.
struct Old {
    path: PathBuf,
    new: NewFile,
    bytes: Zeroizing<Vec<u8>>,
}

impl Files {
    pub(super) fn read(view: View<'_>) -> Result<Self> {
        let mut old = Vec::new();
        let mut read = |path: &str| -> Result<Option<Vec<u8>>> {
            let Some(bytes) = view.root.read(Path::new(path))? else { return Ok(None) };
            let entry = view.root.resolve(Path::new(path))?;
            old.extend(entry.map(|entry| Old {
                new: NewFile::like(&entry),
                path: entry.path,
                bytes: Zeroizing::new(bytes.clone()),
            }));
            Ok(Some(bytes))
        };
        let lacks = |path: &str| {
            Error::unsupported(format!("the guest has no {path}, so it keeps accounts elsewhere"))
                .hint("have its own programs add the account: --run-command, or at the first boot")
        };
        // In the order in which useradd(8) writes them: a group before whoever belongs to it.
        let group = read("/etc/group")?.ok_or_else(|| lacks("/etc/group"))?;
        let gshadow = read("/etc/gshadow")?;
        let shadow = read("/etc/shadow")?;
        let passwd = read("/etc/passwd")?.ok_or_else(|| lacks("/etc/passwd"))?;
        let (subuid, subgid) = (read("/etc/subuid")?, read("/etc/subgid")?);

        // The distribution's own values may be in /usr/etc, and only what differs in /etc.
        let both = |name: &str| -> Result<Vec<Vec<u8>>> {
            let files = [format!("/usr/etc/{name}"), format!("/etc/{name}")];
            Ok(files
                .iter()
                .map(|path| view.root.read(Path::new(path)))
                .collect::<Result<Vec<_>>>()?
                .into_iter()
                .flatten()
                .collect())
        };
        let login_defs = both("login.defs")?;
        let defs = login_defs.iter().fold(LoginDefs::default(), |defs, bytes| defs.overlaid(bytes));
        let useradd = both("default/useradd")?;
        let useradd = useradd.iter().flat_map(|bytes| settings(&String::from_utf8_lossy(bytes))).collect();
        Ok(Self {
            passwd: Passwd::parse(&passwd),
            shadow: shadow.as_deref().map(Shadow::parse),
            group: Group::parse(GroupFile::Group, &group),
            gshadow: gshadow.as_deref().map(|bytes| Group::parse(GroupFile::Gshadow, bytes)),
            subuid: subuid.as_deref().map(SubIds::parse),
            subgid: subgid.as_deref().map(SubIds::parse),
            // Without the file the guest has busybox, whose adduser(8) makes them.
            own_groups: defs.own_groups || login_defs.is_empty(),
            defs,
            useradd,
            old,
        })
    }

    /// A value of /etc/default/useradd.
    pub(super) fn useradd(&self, name: &str) -> Option<&str> {
        self.useradd.get(name).map(String::as_str).filter(|value| value.starts_with('/') || name == "GROUP")
    }

    /// The group of all users, where new accounts belong to one.
    pub(super) fn common_group(&self) -> Option<u32> {
        let wanted = self.useradd("GROUP").unwrap_or("100");
        let same = |name: &[u8], gid: u32| name == wanted.as_bytes() || wanted.parse() == Ok(gid);
        self.group.entries().find(|group| same(group.name_bytes(), group.gid())).map(|group| group.gid())
    }

    /// What differs from the guest's files.
    pub(super) fn changes(self) -> Vec<Change> {
        let new = [
            Some(self.group.as_bytes()),
            self.gshadow.as_ref().map(Group::as_bytes),
            self.shadow.as_ref().map(Shadow::as_bytes),
            Some(self.passwd.as_bytes()),
            self.subuid.as_ref().map(SubIds::as_bytes),
            self.subgid.as_ref().map(SubIds::as_bytes),
        ];
        let pairs = self.old.iter().zip(new.into_iter().flatten()).filter(|(old, new)| *old.bytes != *new);
        pairs
            .map(|(old, new)| Change::Replace {
                path: old.path.clone(),
                content: Content(new.to_vec()),
                new: old.new,
            })
            .collect()
    }
}

/// Lines `NAME=value`.
fn settings(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.trim().trim_matches('"').to_owned())).collect()
}
