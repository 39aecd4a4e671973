//! passwd(5): who has an account, with which number and which home folder.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::text::{Edit, Text, name_of, number};

/// /etc/passwd.
#[derive(Debug, Clone)]
pub struct Passwd(Text);

/// One account. Its name and paths are whatever bytes the guest has there.
#[derive(Clone, Copy)]
pub struct Account<'a> {
    line: usize,
    name: &'a [u8],
    password: &'a [u8],
    uid: u32,
    gid: u32,
    comment: &'a [u8],
    home: &'a [u8],
    shell: &'a [u8],
}

/// A line to be added.
#[derive(Debug, Clone, Copy)]
pub struct NewAccount<'a> {
    /// The user's name.
    pub name: &'a str,
    /// `x` where the password is in shadow(5).
    pub password: &'a str,
    /// The user's number.
    pub uid: u32,
    /// The number of the primary group.
    pub gid: u32,
    /// The comment, perhaps empty.
    pub comment: &'a str,
    /// The home folder.
    pub home: &'a str,
    /// The login shell.
    pub shell: &'a str,
}

/// A field that can be set, by its place in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswdField {
    /// The comment.
    Comment = 4,
    /// The login shell.
    Shell = 6,
}

impl Passwd {
    /// Takes any bytes; a line that is no account is kept and counted by [`Passwd::malformed`].
    pub fn parse(bytes: &[u8]) -> Self {
        Self(Text::new(bytes))
    }

    /// The file's content: exactly the bytes it was parsed from while nothing was changed.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The accounts, in the order of the file; glibc takes the first of two with the same name.
    pub fn accounts(&self) -> impl Iterator<Item = Account<'_>> {
        self.0.entries().filter_map(|(line, entry)| Account::parse(line, entry))
    }

    /// The account of this name, if there is one.
    pub fn find(&self, name: &str) -> Option<Account<'_>> {
        self.accounts().find(|account| account.name == name.as_bytes())
    }

    /// The numbers, from 1, of lines that are neither account, comment, blank nor NIS line.
    pub fn malformed(&self) -> impl Iterator<Item = usize> {
        self.0.entries().filter(|&(line, entry)| Account::parse(line, entry).is_none()).map(|(line, _)| line)
    }

    /// Adds a line: a name that no other account has, and values without colons and line ends.
    pub fn add(&mut self, line: &NewAccount<'_>) {
        let NewAccount { name, password, uid, gid, comment, home, shell } = line;
        self.0.add(format!("{name}:{password}:{uid}:{gid}:{comment}:{home}:{shell}").as_bytes());
    }

    /// Gives every line of this name another comment or shell. Returns whether anything changed.
    pub fn set(&mut self, name: &str, field: PasswdField, value: &str) -> bool {
        self.0.edit(|entry| match name_of(entry) {
            Some(found) if found == name.as_bytes() => {
                let mut fields: Vec<&[u8]> = entry.splitn(7, |&byte| byte == b':').collect();
                fields.resize(7, b"");
                fields[field as usize] = value.as_bytes();
                Edit::Replace(Zeroizing::new(fields.join(&b':')))
            }
            _ => Edit::Keep,
        })
    }

    /// Removes every line that begins with one of these names. Returns whether there was one.
    pub fn remove(&mut self, users: &BTreeSet<Vec<u8>>) -> bool {
        self.0.edit(|entry| match name_of(entry) {
            Some(name) if users.contains(name) => Edit::Remove,
            _ => Edit::Keep,
        })
    }
}

impl<'a> Account<'a> {
    /// Fields after the group's number may be missing; a shell may hold colons. So does glibc read it.
    fn parse(line: usize, entry: &'a [u8]) -> Option<Self> {
        if entry.contains(&0) {
            return None;
        }
        let mut fields = entry.splitn(7, |&byte| byte == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let password = fields.next()?;
        let uid = number(fields.next()?)?;
        let gid = number(fields.next()?)?;
        let comment = fields.next().unwrap_or_default();
        let home = fields.next().unwrap_or_default();
        let shell = fields.next().unwrap_or_default();
        Some(Self { line, name, password, uid, gid, comment, home, shell })
    }

    /// The number of its line, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// Its name; bytes that are no UTF-8 become replacement characters.
    pub fn name(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.name)
    }

    /// Its name as it is.
    pub fn name_bytes(&self) -> &'a [u8] {
        self.name
    }

    /// Its user number.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// The number of its primary group.
    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// Its comment as it is.
    pub fn comment(&self) -> &'a [u8] {
        self.comment
    }

    /// Its home folder as the file has it: perhaps empty, relative, or no folder at all. See [`super::clean_path`].
    pub fn home(&self) -> &'a Path {
        Path::new(OsStr::from_bytes(self.home))
    }

    /// Its login shell; empty means /bin/sh.
    pub fn shell(&self) -> &'a Path {
        Path::new(OsStr::from_bytes(self.shell))
    }

    /// Whether its password is in shadow(5). If not, what shadow says about it counts for nothing.
    pub fn is_shadowed(&self) -> bool {
        self.password == b"x"
    }
}

impl std::fmt::Debug for Account<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "account {} (uid {}) of line {}", self.name().escape_debug(), self.uid, self.line)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &[u8] = b"root:x:0:0:root:/root:/bin/bash\n\
        # comment\n\
        \n\
        +@admins::::::\n\
        broken\n\
        \x20bob:x:1000:1000:Bob,,,:/srv/home/bob:/bin/zsh\r\n\
        short:x:1001:1001\n\
        bad:x:many:1:::\n\
        last:$1$hash:1002:1002::/home/last:/bin/sh";

    #[test]
    fn accounts_are_read_and_the_rest_is_counted() {
        let passwd = Passwd::parse(FILE);
        let names: Vec<_> = passwd.accounts().map(|account| account.name().into_owned()).collect();
        assert_eq!(names, ["root", "bob", "short", "last"]);
        assert_eq!(passwd.malformed().collect::<Vec<_>>(), [5, 8]);
        let bob = passwd.find("bob").unwrap();
        assert_eq!((bob.uid(), bob.gid(), bob.line()), (1000, 1000, 6));
        assert_eq!(bob.home(), Path::new("/srv/home/bob"));
        assert!(bob.is_shadowed() && !passwd.find("last").unwrap().is_shadowed());
        assert_eq!(passwd.find("short").unwrap().home(), Path::new(""));
        assert!(!format!("{passwd:?} {:?}", passwd.find("last")).contains("hash"));
    }

    #[test]
    fn removing_takes_the_named_lines_only() {
        let mut passwd = Passwd::parse(FILE);
        assert!(passwd.remove(&BTreeSet::from([b"bob".to_vec(), b"last".to_vec()])));
        let expected: Vec<u8> = FILE
            .split_inclusive(|&byte| byte == b'\n')
            .enumerate()
            .filter(|(index, _)| ![5, 8].contains(index))
            .flat_map(|(_, line)| line.to_vec())
            .collect();
        assert_eq!(passwd.as_bytes(), expected);
        assert!(!passwd.remove(&BTreeSet::from([b"bob".to_vec()])));
    }

    #[test]
    fn accounts_are_added_and_set() {
        let mut passwd = Passwd::parse(b"root:x:0:0:root:/root:/bin/sh\nshort:x:5:5\n+::::::\n");
        let (name, home, shell) = ("bob", "/home/bob", "/bin/sh");
        passwd.add(&NewAccount { name, password: "x", uid: 1000, gid: 1001, comment: "", home, shell });
        let bob = passwd.find("bob").unwrap();
        assert_eq!((bob.uid(), bob.gid(), bob.home(), bob.line()), (1000, 1001, Path::new(home), 3));
        assert!(
            passwd.set("bob", PasswdField::Comment, "Bob")
                && passwd.set("short", PasswdField::Shell, "/bin/zsh")
        );
        assert!(!passwd.set("bob", PasswdField::Comment, "Bob"));
        let text = "root:x:0:0:root:/root:/bin/sh\nshort:x:5:5:::/bin/zsh\nbob:x:1000:1001:Bob:/home/bob:/bin/sh\n+::::::\n";
        assert_eq!(passwd.as_bytes(), text.as_bytes());
    }

    proptest! {
        #[test]
        fn any_bytes_survive(bytes: Vec<u8>) {
            let mut passwd = Passwd::parse(&bytes);
            prop_assert_eq!(passwd.as_bytes(), &bytes[..]);
            let entries = passwd.accounts().count() + passwd.malformed().count();
            prop_assert!(entries <= bytes.len());
            passwd.remove(&BTreeSet::from([b"nobody-has-this-name".to_vec()]));
            prop_assert_eq!(passwd.as_bytes(), &bytes[..]);
        }

        #[test]
        fn nearly_right_lines_do_no_harm(text in "([ a-c+#-]{0,3}:?[x:]{0,4}[0-9]{0,11}:[0-9]{0,3}[:/a\\n\\r]{0,5}){0,9}") {
            let passwd = Passwd::parse(text.as_bytes());
            prop_assert_eq!(passwd.as_bytes(), text.as_bytes());
            for account in passwd.accounts() {
                prop_assert!(!account.name_bytes().is_empty());
            }
        }
    }
}
