//! An account that a guest is to have: its form in files, and as `--add user:…` writes it.

#![forbid(unsafe_code)]

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::form::{self, check_account_field, check_place, check_user};
use super::pairs::Pairs;
use super::schema::When;
use crate::error::{Error, Result};
use crate::guest::secret::Secret;

/// What may stand behind the name, as the command line writes it.
const KEYS: [&str; 7] = ["uid", "groups", "shell", "home", "comment", "key", "password"];
/// A use of it, for errors.
const EXAMPLE: &str = "for example: --add user:bob:groups=sudo,adm:key=file:bob.pub";

/// Have this account. One that is there keeps its number, home and password; what else is named here is set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Its name.
    #[serde(deserialize_with = "form::user")]
    pub name: String,
    /// Its number; the next free one of login.defs when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Groups that it belongs to besides its own; they must be there.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "form::users")]
    pub groups: Vec<String>,
    /// Its login shell, which must be there; /bin/bash or else /bin/sh when left out.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "form::some_account_path")]
    pub shell: Option<String>,
    /// Its home folder, made as /etc/skel is; where the guest has homes when left out.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "form::some_account_path")]
    pub home: Option<String>,
    /// Its comment, such as a full name.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "form::some_account_field")]
    pub comment: Option<String>,
    /// Public SSH keys by which it may log in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// A file of the host with such keys.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "form::some_line")]
    pub file: Option<String>,
    /// Only for these guests.
    #[serde(default, skip_serializing_if = "When::is_empty")]
    pub when: When,
}

impl User {
    /// Reads `NAME[:KEY=VALUE…]`, and the selector of a password, if there is one.
    ///
    /// # Errors
    /// A usage error with an example. It quotes no password.
    pub fn parse(text: &str) -> Result<(Self, Option<Secret>)> {
        parse(text)
            .map_err(|what| Error::usage(format!("--add user:NAME[:KEY=VALUE…]: {what}")).hint(EXAMPLE))
    }

    /// Reads a list of them: the value of a parameter.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn list(text: &str) -> Result<Vec<Self>, String> {
        let users: Vec<Self> = serde_json::from_str(text).map_err(|error| error.to_string())?;
        for (index, user) in users.iter().enumerate() {
            user.check()?;
            if users[..index].iter().any(|other| other.name == user.name) {
                return Err(format!("the user {} is named twice", user.name));
            }
        }
        Ok(users)
    }

    /// Checks what the values are together.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.key.is_some() && self.file.is_some() {
            return Err("only one of `key` and `file` can be given".into());
        }
        if self.uid == Some(u32::MAX) {
            return Err("4294967295 is no user's number".into());
        }
        Ok(())
    }
}

fn parse(text: &str) -> Result<(User, Option<Secret>), String> {
    let pairs = Pairs::parse(text, &KEYS)?;
    let (name, more) = pairs.head.split_once(':').unwrap_or((pairs.head, ""));
    check_user(name)?;
    if !more.is_empty() {
        return Err(format!("settings have the form KEY=VALUE, with one of the keys {}", KEYS.join(", ")));
    }
    let owned = |key: &str, check: fn(&str) -> Result<(), String>| {
        let checked =
            |value: &str| check(value).map(|()| value.to_owned()).map_err(|what| format!("{key}= {what}"));
        pairs.get(key).map(checked).transpose()
    };
    let uid =
        pairs.get("uid").map(|uid| uid.parse().map_err(|_| "uid= needs a number".to_owned())).transpose()?;
    let groups = pairs.list("groups");
    groups.iter().try_for_each(|name| check_user(name).map_err(|what| format!("groups= {what}")))?;
    let (key, file) = match pairs.get("key").map(|key| key.split_once(':')) {
        None => (None, None),
        Some(Some(("file", file))) if !file.is_empty() => (None, Some(file.to_owned())),
        Some(Some(("string", key))) if !key.is_empty() => (Some(key.to_owned()), None),
        Some(_) => return Err("key= needs file:FILE or string:KEY".into()),
    };
    let lines = key.iter().chain(&file);
    lines
        .into_iter()
        .try_for_each(|line| form::check_one_line(line).map_err(|what| format!("key= {what}")))?;
    let user = User {
        name: name.to_owned(),
        uid,
        groups,
        shell: owned("shell", check_account_path)?,
        home: owned("home", check_account_path)?,
        comment: owned("comment", check_account_field)?,
        key,
        file,
        when: When::default(),
    };
    user.check()?;
    Ok((user, pairs.get("password").map(Secret::new)))
}

/// A path that may stand in passwd(5).
pub(super) fn check_account_path(path: &str) -> Result<(), String> {
    check_account_field(path).and_then(|()| check_place(path))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn all_that_an_account_has_is_read() {
        let text = "bob:uid=1500:groups=sudo,adm:shell=/bin/zsh:home=/srv/bob:comment=Bob B.:key=string:ssh-ed25519 A b";
        let (user, password) = User::parse(&format!("{text}:password=file:/run/p")).unwrap();
        assert_eq!((user.name.as_str(), user.uid, user.groups.len()), ("bob", Some(1500), 2));
        assert_eq!((user.shell.as_deref(), user.home.as_deref()), (Some("/bin/zsh"), Some("/srv/bob")));
        assert_eq!((user.comment.as_deref(), user.key.as_deref()), (Some("Bob B."), Some("ssh-ed25519 A b")));
        assert_eq!(password.unwrap().expose(), "file:/run/p");
        assert_eq!(User::parse("bob:key=file:b.pub").unwrap().0.file.as_deref(), Some("b.pub"));
    }

    #[test]
    fn wrong_values_are_refused_with_an_example() {
        for (text, words) in [
            ("", "a name"),
            ("Bob Smith", "a name"),
            ("-bob", "a name"),
            ("../x", "a name"),
            ("bob:sudo", "KEY=VALUE"),
            ("bob:colour=red", "KEY=VALUE"),
            ("bob:uid=-1", "uid= needs a number"),
            ("bob:uid=4294967295", "no user's number"),
            ("bob:groups=sudo,", "groups= a name"),
            ("bob:shell=zsh", "shell= a path"),
            ("bob:home=/srv/../root", "home= a path"),
            ("bob:comment=a:b", "comment= must not"),
            ("bob:key=bob.pub", "file:FILE or string:KEY"),
            ("bob:pasword=x", "did you mean password="),
        ] {
            let error = User::parse(text).unwrap_err();
            assert!(error.to_string().contains(words), "{text}: {error}");
            assert!(error.what_to_do().is_some_and(|hint| hint.contains("--add user:bob")), "{text}");
        }
    }

    #[test]
    fn a_list_is_checked_as_a_whole() {
        let good = r#"[{"name":"bob","groups":["sudo"]},{"name":"eve"}]"#;
        let users = User::list(good).unwrap();
        assert_eq!(serde_json::to_string(&users).unwrap(), good);
        for (text, words) in [
            ("bob", "expected value"),
            (r#"[{"name":"b b"}]"#, "a name"),
            (r#"[{"name":"bob"},{"name":"bob"}]"#, "named twice"),
            (r#"[{"name":"bob","password":"x"}]"#, "unknown field"),
            (r#"[{"name":"bob","key":"a","file":"b"}]"#, "only one of"),
        ] {
            let error = User::list(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn errors_never_quote_the_password(password in "[a-z0-9]{6}QQ[A-Z0-9:=]{6,12}", before in "(bob|b b|bob:uid=x|bob:groups=a,)") {
            let shown = format!("{:?}", User::parse(&format!("{before}:password=password:{password}")));
            prop_assert!(!shown.contains(&password), "{}", shown);
        }

        #[test]
        fn what_is_taken_is_taken_from_a_list_too(text in "[a-z]{1,3}(:(uid|groups|shell|home|comment|key)=(/|,|[0-9]|string:|[a-z ]{1,3}){1,4}){0,3}") {
            if let Ok((user, _)) = User::parse(&text) {
                let list = serde_json::to_string(&[&user]).unwrap();
                prop_assert_eq!(User::list(&list).unwrap(), [user]);
            }
        }
    }
}
