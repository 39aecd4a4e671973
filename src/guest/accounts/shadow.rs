//! shadow(5): password hashes and their ageing.

use std::borrow::Cow;
use std::collections::BTreeSet;

use zeroize::Zeroizing;

use super::login_defs::LoginDefs;
use super::text::{Edit, Text, name_of};
use crate::error::{Error, Result};
use crate::guest::names::did_you_mean;
use crate::guest::secret::Secret;

/// shadow-utils takes a line of five fields (the oldest form) or of nine.
const FEWEST_FIELDS: usize = 5;

/// /etc/shadow.
#[derive(Debug, Clone)]
pub struct Shadow(Text);

/// One line of it.
#[derive(Clone, Copy)]
pub struct ShadowEntry<'a> {
    line: usize,
    name: &'a [u8],
    field: &'a [u8],
}

/// What a password field means; see shadow(5) and crypt(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PasswordKind {
    /// Empty: no password is asked for.
    Empty,
    /// Begins with `!`: locked, perhaps with a hash behind it.
    Locked,
    /// Something that no password can match, such as `*`.
    Impossible,
    /// Traditional DES, 13 characters: broken.
    Des,
    /// `$1$`, or `$md5`: broken.
    Md5,
    /// `$2a$` and its like.
    Bcrypt,
    /// `$5$`.
    Sha256,
    /// `$6$`.
    Sha512,
    /// `$y$`, or `$gy$` with the GOST hash.
    Yescrypt,
    /// Another `$method$`.
    Other,
}

impl Shadow {
    /// Takes any bytes; a line that is no entry is kept and counted by [`Shadow::malformed`].
    pub fn parse(bytes: &[u8]) -> Self {
        Self(Text::new(bytes))
    }

    /// The file's content: exactly the bytes it was parsed from while nothing was changed. It holds password hashes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The entries, in the order of the file.
    pub fn entries(&self) -> impl Iterator<Item = ShadowEntry<'_>> {
        self.0.entries().filter_map(|(line, entry)| ShadowEntry::parse(line, entry))
    }

    /// The numbers, from 1, of lines that are neither entry, comment, blank nor NIS line.
    pub fn malformed(&self) -> impl Iterator<Item = usize> {
        self.0
            .entries()
            .filter(|&(line, entry)| ShadowEntry::parse(line, entry).is_none())
            .map(|(line, _)| line)
    }

    /// The first entry of this user.
    pub fn find(&self, user: &str) -> Option<ShadowEntry<'_>> {
        self.entries().find(|entry| entry.name == user.as_bytes())
    }

    /// Sets the password field in every entry of this user and leaves all other fields alone, so the date of the last
    /// change stays. Returns whether anything changed.
    ///
    /// # Errors
    /// When the user has no entry, or the field could not be told from what follows it.
    pub fn set_password(&mut self, user: &str, field: &Secret) -> Result<bool> {
        let field = field.expose().as_bytes();
        if field.iter().any(|byte| matches!(byte, b':' | b'\n' | b'\r' | 0)) {
            return Err(Error::failed(format!("the password field for {user} would break /etc/shadow")));
        }
        if self.find(user).is_none() {
            return Err(self.no_entry(user));
        }
        Ok(self.0.edit(|entry| match ShadowEntry::parse(0, entry) {
            Some(parsed) if parsed.name == user.as_bytes() => {
                let (name, rest) =
                    (parsed.name.len() + 1, &entry[parsed.name.len() + 1 + parsed.field.len()..]);
                Edit::Replace(Zeroizing::new([&entry[..name], field, rest].concat()))
            }
            _ => Edit::Keep,
        }))
    }

    /// Adds a line for a user whom no password lets in, not locked: a lock keeps out keys as well where sshd works without
    /// PAM. `today` is in days since 1970.
    pub fn add(&mut self, name: &str, today: u64, defs: &LoginDefs) {
        let days = |days: Option<u32>| days.map(|days| days.to_string()).unwrap_or_default();
        let (least, most, warn) =
            (days(defs.pass_min_days), days(defs.pass_max_days), days(defs.pass_warn_age));
        self.0.add(format!("{name}:*:{today}:{least}:{most}:{warn}:::").as_bytes());
    }

    /// Removes every line that begins with one of these names. Returns whether there was one.
    pub fn remove(&mut self, users: &BTreeSet<Vec<u8>>) -> bool {
        self.0.edit(|entry| match name_of(entry) {
            Some(name) if users.contains(name) => Edit::Remove,
            _ => Edit::Keep,
        })
    }

    fn no_entry(&self, user: &str) -> Error {
        let broken = self.0.entries().find(|(line, entry)| {
            name_of(entry) == Some(user.as_bytes()) && ShadowEntry::parse(*line, entry).is_none()
        });
        if let Some((line, _)) = broken {
            return Error::unsupported(format!(
                "line {line} of /etc/shadow in the guest, which is {user}'s, is broken"
            ))
            .hint("repair it in the guest with pwck(8)");
        }
        let names = self.entries().map(|entry| entry.name().into_owned()).collect::<Vec<_>>();
        let hint = did_you_mean(user, names.iter().map(String::as_str));
        Error::usage(format!("the guest's /etc/shadow has no user {user}")).hint(hint)
    }
}

impl<'a> ShadowEntry<'a> {
    fn parse(line: usize, entry: &'a [u8]) -> Option<Self> {
        if entry.contains(&0) {
            return None;
        }
        let mut fields = entry.split(|&byte| byte == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let field = fields.next()?;
        (fields.count() + 2 >= FEWEST_FIELDS).then_some(Self { line, name, field })
    }

    /// The number of its line, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The user's name; bytes that are no UTF-8 become replacement characters.
    pub fn name(&self) -> Cow<'a, str> {
        String::from_utf8_lossy(self.name)
    }

    /// The user's name as it is.
    pub fn name_bytes(&self) -> &'a [u8] {
        self.name
    }

    /// The password field: a secret, to be compared or verified but never shown.
    pub fn expose_field(&self) -> &'a [u8] {
        self.field
    }

    /// What the password field means.
    pub fn kind(&self) -> PasswordKind {
        PasswordKind::of(self.field)
    }
}

impl PasswordKind {
    /// What this password field means.
    pub fn of(field: &[u8]) -> Self {
        const METHODS: [(&[u8], PasswordKind); 7] = [
            (b"$1$", PasswordKind::Md5),
            (b"$md5", PasswordKind::Md5),
            (b"$2", PasswordKind::Bcrypt),
            (b"$5$", PasswordKind::Sha256),
            (b"$6$", PasswordKind::Sha512),
            (b"$y$", PasswordKind::Yescrypt),
            (b"$gy$", PasswordKind::Yescrypt),
        ];
        let is_crypt64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'/');
        match field.first() {
            None => Self::Empty,
            Some(b'!') => Self::Locked,
            Some(b'$') => {
                METHODS.iter().find(|(prefix, _)| field.starts_with(prefix)).map_or(Self::Other, |m| m.1)
            }
            Some(_) if field.len() == 13 && field.iter().all(is_crypt64) => Self::Des,
            Some(_) => Self::Impossible,
        }
    }
}

impl std::fmt::Debug for ShadowEntry<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({:?}) of line {}", self.name().escape_debug(), self.kind(), self.line)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::error::ErrorKind;

    const FILE: &[u8] = b"root:$y$j9T$old:19000:0:99999:7:::\n\
        # keep\n\
        bob:!!:19001:0:99999:7:::\r\n\
        +::::::::\n\
        half:SECRETHASH\n\
        eve::19002:0:99999:7:::";

    #[test]
    fn only_the_password_field_changes() {
        let mut shadow = Shadow::parse(FILE);
        assert!(shadow.set_password("eve", &Secret::new("*")).unwrap());
        assert!(shadow.set_password("root", &Secret::new("!*")).unwrap());
        assert!(shadow.set_password("bob", &Secret::new("$6$s$h")).unwrap());
        let expected = String::from_utf8(FILE.to_vec()).unwrap();
        let expected = expected
            .replace("root:$y$j9T$old:", "root:!*:")
            .replace("bob:!!:", "bob:$6$s$h:")
            .replace("eve::", "eve:*:");
        assert_eq!(std::str::from_utf8(shadow.as_bytes()).unwrap(), expected);
        assert!(!shadow.set_password("eve", &Secret::new("*")).unwrap(), "the second time changes nothing");
    }

    #[test]
    fn errors_name_lines_and_never_quote_them() {
        let mut shadow = Shadow::parse(FILE);
        let broken = shadow.set_password("half", &Secret::new("*")).unwrap_err();
        assert!(broken.to_string().contains("line 5"), "{broken}");
        let missing = shadow.set_password("rot", &Secret::new("*")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::Usage);
        assert!(missing.what_to_do().unwrap().contains("root"), "{:?}", missing.what_to_do());
        let injected = shadow.set_password("root", &Secret::new("a:b\nevil::0")).unwrap_err();
        for error in [broken, missing, injected] {
            let all = format!("{error:?} {:?}", error.what_to_do());
            assert!(!all.contains("SECRETHASH") && !all.contains("old") && !all.contains("evil"), "{all}");
        }
        assert_eq!(shadow.as_bytes(), FILE);
        assert_eq!(shadow.malformed().collect::<Vec<_>>(), [5]);
        assert!(!format!("{:?}", shadow.entries().collect::<Vec<_>>()).contains("old"));
    }

    #[test]
    fn fields_are_told_apart() {
        use PasswordKind as Kind;
        let table: [(&[u8], Kind); 12] = [
            (b"", Kind::Empty),
            (b"*", Kind::Impossible),
            (b"*LK*", Kind::Impossible),
            (b"!", Kind::Locked),
            (b"!!$6$a$b", Kind::Locked),
            (b"$1$a$b", Kind::Md5),
            (b"$2y$10$x", Kind::Bcrypt),
            (b"$5$a$b", Kind::Sha256),
            (b"$6$a$b", Kind::Sha512),
            (b"$y$j9T$a$b", Kind::Yescrypt),
            (b"$7$x", Kind::Other),
            (b"abJnggxhB/yWI", Kind::Des),
        ];
        for (field, kind) in table {
            assert_eq!(PasswordKind::of(field), kind, "{field:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_survive(bytes: Vec<u8>) {
            let mut shadow = Shadow::parse(&bytes);
            let _ = shadow.entries().count() + shadow.malformed().count();
            prop_assert!(!shadow.remove(&BTreeSet::from([b"nobody-has-this-name".to_vec()])));
            prop_assert!(shadow.set_password("nobody-has-this-name", &Secret::new("*")).is_err());
            prop_assert_eq!(shadow.as_bytes(), &bytes[..]);
        }

        #[test]
        fn setting_touches_one_user(before in "([a-c]{1,2}:[!*x]{0,3}:1:::::\\n){0,6}", after in "([a-c]{1,2}:[!*x]{0,3}:1:::::\\n){0,6}") {
            let text = format!("{before}zoe:old:1:0:9:7:::\n{after}");
            let mut shadow = Shadow::parse(text.as_bytes());
            prop_assert!(shadow.set_password("zoe", &Secret::new("new")).unwrap());
            let expected = format!("{before}zoe:new:1:0:9:7:::\n{after}");
            prop_assert_eq!(shadow.as_bytes(), expected.as_bytes());
        }
    }
}
