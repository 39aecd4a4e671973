//! group(5) and gshadow(5): who belongs to which group, and who runs it.

use std::borrow::Cow;
use std::collections::BTreeSet;

use zeroize::Zeroizing;

use super::text::{Edit, Text, name_of, number, trim};

/// Which of the two files it is: they differ in one field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupFile {
    /// group(5): `name:password:gid:members`.
    Group,
    /// gshadow(5): `name:password:administrators:members`.
    Gshadow,
}

/// /etc/group or /etc/gshadow.
#[derive(Debug, Clone)]
pub struct Group {
    text: Text,
    file: GroupFile,
}

/// One group of /etc/group.
#[derive(Debug, Clone, Copy)]
pub struct GroupEntry<'a> {
    name: &'a [u8],
    gid: u32,
    members: &'a [u8],
}

impl Group {
    /// Takes any bytes; lines that are no group are kept.
    pub fn parse(file: GroupFile, bytes: &[u8]) -> Self {
        Self { text: Text::new(bytes), file }
    }

    /// The file's content: exactly the bytes it was parsed from while nothing was changed.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// The groups with their numbers, in the order of the file; none for gshadow, which has no numbers.
    pub fn entries(&self) -> impl Iterator<Item = GroupEntry<'_>> {
        let entries = self.text.entries().filter(|_| self.file == GroupFile::Group);
        entries.filter_map(|(_, entry)| GroupEntry::parse(entry))
    }

    /// The numbers, from 1, of lines that are neither group, comment, blank nor NIS line.
    pub fn malformed(&self) -> impl Iterator<Item = usize> {
        self.text.entries().filter(|(_, entry)| !self.is_group(entry)).map(|(line, _)| line)
    }

    /// Adds a group without members and without a password. The number is not for gshadow.
    pub fn add(&mut self, name: &str, gid: u32) {
        self.text.add(
            match self.file {
                GroupFile::Group => format!("{name}:x:{gid}:"),
                GroupFile::Gshadow => format!("{name}:!::"),
            }
            .as_bytes(),
        );
    }

    /// Makes a user a member of a group. Returns whether anything changed.
    pub fn add_member(&mut self, group: &str, user: &str) -> bool {
        self.text.edit(|entry| {
            let mut fields: Vec<&[u8]> = entry.splitn(4, |&byte| byte == b':').collect();
            if fields.len() < 3 || fields[0] != group.as_bytes() {
                return Edit::Keep;
            }
            fields.resize(4, b"");
            let list = fields[3];
            if list.split(|&byte| byte == b',').any(|member| trim(member) == user.as_bytes()) {
                return Edit::Keep;
            }
            let comma: &[u8] = if trim(list).is_empty() { b"" } else { b"," };
            let list = [list, comma, user.as_bytes()].concat();
            fields[3] = &list;
            Edit::Replace(Zeroizing::new(fields.join(&b':')))
        })
    }

    /// Removes these groups. Returns whether there was one.
    pub fn remove(&mut self, groups: &BTreeSet<Vec<u8>>) -> bool {
        self.text.edit(|entry| match name_of(entry) {
            Some(name) if groups.contains(name) => Edit::Remove,
            _ => Edit::Keep,
        })
    }

    /// Takes these users out of every list of members and administrators. Returns whether there was one.
    pub fn remove_members(&mut self, users: &BTreeSet<Vec<u8>>) -> bool {
        let first_list = match self.file {
            GroupFile::Group => 3,
            GroupFile::Gshadow => 2,
        };
        self.text.edit(|entry| {
            let mut fields: Vec<Cow<'_, [u8]>> =
                entry.splitn(4, |&byte| byte == b':').map(Cow::Borrowed).collect();
            for field in fields.iter_mut().skip(first_list) {
                if let Some(shorter) = without(field, users) {
                    *field = Cow::Owned(shorter);
                }
            }
            Edit::Replace(Zeroizing::new(fields.join(&b':')))
        })
    }

    fn is_group(&self, entry: &[u8]) -> bool {
        match self.file {
            GroupFile::Group => GroupEntry::parse(entry).is_some(),
            GroupFile::Gshadow => {
                name_of(entry).is_some() && entry.iter().filter(|&&byte| byte == b':').count() == 3
            }
        }
    }
}

impl<'a> GroupEntry<'a> {
    fn parse(entry: &'a [u8]) -> Option<Self> {
        if entry.contains(&0) {
            return None;
        }
        let mut fields = entry.splitn(4, |&byte| byte == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let _password = fields.next()?;
        let gid = number(fields.next()?)?;
        Some(Self { name, gid, members: fields.next().unwrap_or_default() })
    }

    /// The group's name as it is.
    pub fn name_bytes(&self) -> &'a [u8] {
        self.name
    }

    /// The group's number.
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// The names of its members, as they are.
    pub fn members(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.members.split(|&byte| byte == b',').map(trim).filter(|member| !member.is_empty())
    }
}

/// The list without these users; None when it has none of them. The other items keep their bytes.
fn without(list: &[u8], users: &BTreeSet<Vec<u8>>) -> Option<Vec<u8>> {
    let items: Vec<&[u8]> = list.split(|&byte| byte == b',').collect();
    let kept: Vec<&[u8]> = items.iter().copied().filter(|item| !users.contains(trim(item))).collect();
    (kept.len() < items.len()).then(|| kept.join(&b','))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn users(names: &[&str]) -> BTreeSet<Vec<u8>> {
        names.iter().map(|name| name.as_bytes().to_vec()).collect()
    }

    #[test]
    fn members_go_and_the_others_keep_their_bytes() {
        let mut group = Group::parse(
            GroupFile::Group,
            b"root:x:0:\nsudo:x:27:bob,alice, bob,bobby\nwheel:x:10:bob\n# bob\nbob:x:1000:\r\nodd,bob\n",
        );
        assert!(group.remove_members(&users(&["bob"])));
        assert_eq!(
            group.as_bytes(),
            b"root:x:0:\nsudo:x:27:alice,bobby\nwheel:x:10:\n# bob\nbob:x:1000:\r\nodd,bob\n"
        );
        assert!(!group.remove_members(&users(&["bob"])));
        assert!(group.remove(&users(&["bob"])));
        assert_eq!(group.as_bytes(), b"root:x:0:\nsudo:x:27:alice,bobby\nwheel:x:10:\n# bob\nodd,bob\n");
        assert_eq!(group.malformed().collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn groups_and_members_are_added_once() {
        let mut group = Group::parse(GroupFile::Group, b"sudo:x:27:\nadm:x:4:eve\nold:x:5\n+:::\n");
        group.add("bob", 1000);
        for name in ["sudo", "adm", "old"] {
            assert!(group.add_member(name, "bob") && !group.add_member(name, "bob"));
        }
        assert_eq!(group.as_bytes(), b"sudo:x:27:bob\nadm:x:4:eve,bob\nold:x:5:bob\nbob:x:1000:\n+:::\n");
        let mut gshadow = Group::parse(GroupFile::Gshadow, b"sudo:!:bob:eve\n");
        gshadow.add("bob", 1000);
        assert!(gshadow.add_member("sudo", "bob"), "who runs a group is no member yet");
        assert_eq!(gshadow.as_bytes(), b"sudo:!:bob:eve,bob\nbob:!::\n");
    }

    #[test]
    fn gshadow_has_administrators_too() {
        let mut gshadow = Group::parse(GroupFile::Gshadow, b"sudo:bob:bob,eve:alice,bob\nbob:!::\n");
        assert!(gshadow.remove_members(&users(&["bob"])));
        assert_eq!(gshadow.as_bytes(), b"sudo:bob:eve:alice\nbob:!::\n", "the password field is no list");
        assert_eq!(gshadow.entries().count(), 0);
    }

    #[test]
    fn entries_have_numbers_and_members() {
        let group = Group::parse(GroupFile::Group, b"sudo:x:27:bob, alice,\nbad:x:y:\nshort:x:5\n");
        let found: Vec<_> = group.entries().map(|entry| (entry.gid(), entry.members().count())).collect();
        assert_eq!(found, [(27, 2), (5, 0)]);
    }

    proptest! {
        #[test]
        fn any_bytes_survive(bytes: Vec<u8>, gshadow: bool) {
            let file = if gshadow { GroupFile::Gshadow } else { GroupFile::Group };
            let mut group = Group::parse(file, &bytes);
            let _ = group.entries().flat_map(|entry| entry.members()).count() + group.malformed().count();
            prop_assert_eq!(group.as_bytes(), &bytes[..]);
            prop_assert!(!group.remove(&users(&["nobody-has-this-name"])));
            prop_assert_eq!(group.as_bytes(), &bytes[..]);
        }

        #[test]
        fn removed_members_are_gone(text in "([ab]:x:[0-9]:[a-c, ]{0,9}\\n){0,5}") {
            let mut group = Group::parse(GroupFile::Group, text.as_bytes());
            group.remove_members(&users(&["b"]));
            prop_assert!(group.entries().all(|entry| entry.members().all(|member| member != b"b")));
            let others = |group: &Group| {
                group.entries().flat_map(|e| e.members().map(<[u8]>::to_vec).collect::<Vec<_>>()).filter(|m| m != b"b").collect::<Vec<_>>()
            };
            prop_assert_eq!(others(&group), others(&Group::parse(GroupFile::Group, text.as_bytes())));
        }
    }
}
