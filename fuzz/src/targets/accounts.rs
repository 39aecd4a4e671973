//! The account files together, as one guest has them: passwd, shadow, group, gshadow, subuid, subgid and login.defs,
//! with lines of `---` between them.

use std::collections::BTreeSet;

use guestseal::action::user_accounts::{AccountFiles, Who, plan_removal};
use guestseal::guest::accounts::{Group, GroupFile, LoginDefs, Passwd, Shadow, SubIds, homes};
use guestseal::guest::secret::Secret;

use crate::targets::check_error;

pub(crate) fn run(data: &[u8]) {
    let mut files = parts(data).into_iter();
    let [passwd, shadow, group, gshadow, subuid, subgid, defs] =
        [(); 7].map(|()| files.next().unwrap_or_default());
    let defs = LoginDefs::parse(defs);
    let accounts = Passwd::parse(passwd);
    assert_eq!(accounts.as_bytes(), passwd);
    for home in homes(&accounts, defs.uid_min) {
        let shown = home.to_string_lossy();
        assert!(
            home.is_absolute()
                && !shown.split('/').any(|part| part == "..")
                && home != std::path::Path::new("/")
        );
    }
    lines_go(passwd, shadow, subuid);
    password_is_set(shadow);
    groups(GroupFile::Group, group);
    groups(GroupFile::Gshadow, gshadow);
    let files = AccountFiles {
        passwd,
        shadow: Some(shadow),
        group: Some(group),
        gshadow: Some(gshadow),
        subuid: Some(subuid),
        subgid: Some(subgid),
    };
    removal(&files, &defs);
}

fn parts(mut data: &[u8]) -> Vec<&[u8]> {
    const BETWEEN: &[u8] = b"---\n";
    let mut parts = Vec::new();
    while let Some(at) = data.windows(BETWEEN.len()).position(|window| window == BETWEEN) {
        parts.push(&data[..at]);
        data = &data[at + BETWEEN.len()..];
    }
    parts.push(data);
    parts
}

/// Lines that do not begin with this name, by another way than the program's own.
fn without(text: &[u8], name: &[u8]) -> Vec<u8> {
    let begins = |line: &&[u8]| {
        let start = line.iter().position(|byte| !matches!(byte, b' ' | b'\t' | 0x0b | 0x0c | b'\r' | b'\n'));
        let entry = start.map_or(&[][..], |start| &line[start..]);
        !matches!(entry.first(), Some(b'#' | b'+' | b'-'))
            && entry.strip_prefix(name).is_some_and(|rest| rest.starts_with(b":"))
    };
    text.split_inclusive(|byte| *byte == b'\n').filter(|line| !begins(line)).collect::<Vec<_>>().concat()
}

fn lines_go(passwd: &[u8], shadow: &[u8], subuid: &[u8]) {
    let Some(name) = Passwd::parse(passwd).accounts().last().map(|account| account.name_bytes().to_vec())
    else {
        return;
    };
    let names = BTreeSet::from([name.clone()]);
    let mut left = Passwd::parse(passwd);
    assert!(left.remove(&names));
    assert_eq!(left.as_bytes(), without(passwd, &name));
    assert!(!left.remove(&names) && left.accounts().all(|account| account.name_bytes() != name));
    let mut left = Shadow::parse(shadow);
    let changed = left.remove(&names);
    assert_eq!(left.as_bytes(), without(shadow, &name));
    assert_eq!(changed, left.as_bytes() != shadow);
    let mut left = SubIds::parse(subuid);
    left.remove(&names, &BTreeSet::new());
    assert_eq!(left.as_bytes(), without(subuid, &name));
}

fn password_is_set(bytes: &[u8]) {
    let shadow = Shadow::parse(bytes);
    assert_eq!(shadow.as_bytes(), bytes);
    let Some(name) = shadow.entries().last().map(|entry| entry.name_bytes().to_vec()) else { return };
    let Ok(user) = std::str::from_utf8(&name) else { return };
    let field = "$y$j9T$salt$hash";
    let mut after = shadow.clone();
    after.set_password(user, &Secret::new(field)).expect("the user is there and the field is sound");
    assert!(!after.set_password(user, &Secret::new(field)).expect("it is still there"));
    assert_eq!(after.entries().count(), shadow.entries().count());
    for (old, new) in shadow.entries().zip(after.entries()) {
        assert_eq!((old.line(), old.name_bytes()), (new.line(), new.name_bytes()));
        let wanted = if old.name_bytes() == name { field.as_bytes() } else { old.expose_field() };
        assert_eq!(new.expose_field(), wanted);
    }
    let others = |text: &[u8]| without(text, &name);
    assert_eq!(others(after.as_bytes()), others(bytes), "lines of others changed");
    if let Err(error) = after.set_password("nobody-has-this-name", &Secret::new("*")) {
        assert!(!format!("{error:?}").contains("$hash"));
    }
}

fn groups(file: GroupFile, bytes: &[u8]) {
    let mut group = Group::parse(file, bytes);
    assert_eq!(group.as_bytes(), bytes);
    assert!(group.malformed().count() + group.entries().count() <= bytes.len());
    let member = group.entries().find_map(|entry| entry.members().next().map(<[u8]>::to_vec));
    let Some(member) = member else { return };
    let users = BTreeSet::from([member.clone()]);
    let before = group.entries().count();
    assert!(group.remove_members(&users), "{member:?} stays a member");
    assert!(group.entries().all(|entry| entry.members().all(|left| left != member)));
    assert_eq!(group.entries().count(), before);
    assert!(!group.remove_members(&users));
}

fn removal(files: &AccountFiles<'_>, defs: &LoginDefs) {
    let passwd = Passwd::parse(files.passwd);
    let plan = match plan_removal(files, defs, &Who::default()) {
        Ok(plan) => plan,
        Err(error) => return check_error(&error),
    };
    assert!(plan.users.iter().all(|user| !matches!(user.uid, 0 | 65534)));
    let new = |path: &str| plan.files.iter().find(|file| file.path == path).map(|file| &file.content[..]);
    let left = Passwd::parse(new("/etc/passwd").unwrap_or(files.passwd));
    assert_eq!(left.accounts().count() + plan.users.len(), passwd.accounts().count());
    for root in passwd.accounts().filter(|account| account.uid() == 0) {
        assert!(left.accounts().any(|account| account.name_bytes() == root.name_bytes()));
    }
    for user in plan.users.iter().filter_map(|user| user.home.as_ref()) {
        assert!(user.is_absolute() && user.components().count() > 1);
        assert!(left.accounts().all(|account| account.home() != user));
    }
    for warning in &plan.warnings {
        let _ = warning.to_string();
    }
    // What is left has nobody to remove any more.
    let again = AccountFiles {
        passwd: left.as_bytes(),
        shadow: new("/etc/shadow").or(files.shadow),
        group: new("/etc/group").or(files.group),
        gshadow: new("/etc/gshadow").or(files.gshadow),
        subuid: new("/etc/subuid").or(files.subuid),
        subgid: new("/etc/subgid").or(files.subgid),
    };
    let second = plan_removal(&again, defs, &Who::default()).expect("the first time it worked");
    assert!(second.users.is_empty() && second.files.is_empty(), "{:?}", second.files);
}
