//! The grammar of `--root-password SELECTOR` and `--password USER:SELECTOR`, which is virt-sysprep's.

use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::guest::secret::Secret;

/// How a password is chosen.
#[derive(Debug, Clone)]
pub enum Selector {
    /// `password:TEXT`: this text, colons included.
    Text(Secret),
    /// `file:FILE`: the first line of a file of the host.
    File(PathBuf),
    /// `random`: made from the system's entropy and shown once.
    Random,
    /// `disabled`: no password can match.
    Disabled,
    /// `locked`: no password can match; `locked:SELECTOR`: that password, once `passwd -u` unlocked it.
    Locked(Option<Box<Selector>>),
}

/// One password that the user asked for.
#[derive(Debug, Clone)]
pub struct PasswordRequest {
    /// Whose it is.
    pub user: String,
    /// How it is chosen.
    pub selector: Selector,
    /// Whether the whole argument was taken as the password, which virt-sysprep would refuse.
    pub bare_word: bool,
}

/// The words that a selector may begin with.
const KEYWORDS: [&str; 7] = ["password", "file", "random", "disabled", "disable", "locked", "lock"];

impl Selector {
    /// Parses a selector.
    ///
    /// # Errors
    /// A usage error, which never quotes the text: it may be a password.
    pub fn parse(text: &str) -> Result<Self> {
        Self::parse_known(text)?.ok_or_else(|| {
            let hint = "use password:TEXT, file:FILE, random, disabled, locked or locked:SELECTOR";
            Error::usage("the password selector is not one of those that exist").hint(hint)
        })
    }

    /// The same; None when the text begins with no known word.
    fn parse_known(text: &str) -> Result<Option<Self>> {
        let (word, rest) = text.split_once(':').map_or((text, None), |(word, rest)| (word, Some(rest)));
        let selector = match (word, rest) {
            ("password", Some("")) => return Err(Error::usage("the password after `password:` is empty")),
            ("password", Some(password)) => Self::Text(Secret::new(password)),
            ("file", Some("")) => return Err(Error::usage("the file name after `file:` is empty")),
            ("file", Some(file)) => Self::File(PathBuf::from(file)),
            ("random", None) => Self::Random,
            ("disabled" | "disable", None) => Self::Disabled,
            ("locked" | "lock", None) => Self::Locked(None),
            // Each word more would be one more call of this function, to the end of the stack.
            ("locked" | "lock", Some(inner)) if is_lock(inner) => {
                return Err(Error::usage("what follows `locked:` is `locked` again"));
            }
            ("locked" | "lock", Some(inner)) => Self::Locked(Some(Box::new(Self::parse(inner)?))),
            ("password" | "file", None) => {
                return Err(Error::usage(format!("`{word}` needs a colon and a value"))
                    .hint("to set just that word as the password, write password:WORD"));
            }
            ("random" | "disabled" | "disable", Some(_)) => {
                return Err(Error::usage(format!("`{word}` takes no value, but a colon follows")));
            }
            _ => return Ok(None),
        };
        Ok(Some(selector))
    }

    /// Whether the password itself stands in the arguments, where every user of the host can read it while the
    /// program runs.
    pub fn shows_in_process_list(&self) -> bool {
        match self {
            Self::Text(_) => true,
            Self::Locked(Some(inner)) => inner.shows_in_process_list(),
            _ => false,
        }
    }
}

impl PasswordRequest {
    /// Parses the argument of `--root-password`: a selector, or a bare word that is the password itself. A word with
    /// a colon, or nearly a selector's, is refused: a mistyped `locked` must not become a known password.
    ///
    /// # Errors
    /// A usage error, which never quotes the text.
    pub fn root(text: &str) -> Result<Self> {
        let user = "root".to_owned();
        match Selector::parse_known(text)? {
            Some(selector) => Ok(Self { user, selector, bare_word: false }),
            None if text.is_empty() => Err(Error::usage("the password of root is empty")),
            None if text.contains(':') => {
                Selector::parse(text).map(|selector| Self { user, selector, bare_word: false })
            }
            None => {
                if KEYWORDS.iter().any(|word| strsim::damerau_levenshtein(&text.to_lowercase(), word) <= 2) {
                    let hint = "if it is the password, write password:TEXT";
                    let what =
                        "the argument of --root-password is nearly, but not quite, one of the words it knows";
                    return Err(Error::usage(what).hint(hint));
                }
                Ok(Self { user, selector: Selector::Text(Secret::new(text)), bare_word: true })
            }
        }
    }

    /// Parses the argument of `--password`: `USER:SELECTOR`, split at the first colon.
    ///
    /// # Errors
    /// A usage error, which never quotes what follows the user's name.
    pub fn user(text: &str) -> Result<Self> {
        let Some((user, selector)) = text.split_once(':') else {
            return Err(Error::usage("--password needs USER:SELECTOR, and there is no colon"));
        };
        if user.is_empty() {
            return Err(Error::usage("--password needs a user's name before the first colon"));
        }
        if KEYWORDS.contains(&user) && Selector::parse(selector).is_err() {
            return Err(Error::usage(format!(
                "--password needs USER:SELECTOR, and `{user}` stands where the user must be"
            ))
            .hint(format!("write --password USER:{user}:… or --root-password {user}:…")));
        }
        Ok(Self { user: user.to_owned(), selector: Selector::parse(selector)?, bare_word: false })
    }
}

fn is_lock(text: &str) -> bool {
    matches!(text.split(':').next(), Some("locked" | "lock"))
}

/// Refuses a list that asks for two passwords of one user.
///
/// # Errors
/// A usage error that names the user.
pub fn refuse_twice(requests: &[PasswordRequest]) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    match requests.iter().find(|request| !seen.insert(request.user.as_str())) {
        Some(request) => Err(Error::usage(format!("the password of {} is given twice", request.user))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(selector: &Selector) -> String {
        match selector {
            Selector::Text(secret) => format!("text {}", secret.expose()),
            Selector::File(path) => format!("file {}", path.display()),
            Selector::Locked(Some(inner)) => format!("locked {}", shown(inner)),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn selectors() {
        for (text, expected) in [
            ("password:hunter2", "text hunter2"),
            ("password:a:b: c", "text a:b: c"),
            ("file:/run/secret", "file /run/secret"),
            ("file:a:b", "file a:b"),
            ("random", "Random"),
            ("disabled", "Disabled"),
            ("disable", "Disabled"),
            ("locked", "Locked(None)"),
            ("lock", "Locked(None)"),
            ("locked:password:x:y", "locked text x:y"),
            ("locked:random", "locked Random"),
        ] {
            assert_eq!(shown(&Selector::parse(text).unwrap()), expected, "{text}");
        }
        for text in [
            "",
            "password",
            "password:",
            "file",
            "file:",
            "random:5",
            "disabled:",
            "locked:",
            "locked:x",
            "locked:lock",
            &"locked:".repeat(20_000),
            "Random",
            "pw",
        ] {
            assert!(Selector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_root_password_may_be_a_bare_word() {
        let bare = PasswordRequest::root("correct-horse").unwrap();
        assert!(bare.bare_word && bare.selector.shows_in_process_list());
        assert_eq!(shown(&bare.selector), "text correct-horse");
        let random = PasswordRequest::root("random").unwrap();
        assert!(!random.bare_word && !random.selector.shows_in_process_list());
        for nearly in
            ["", "lokced", "Random", "randon", "LOCKED", "disabledd", "pasword:x", "locked:hunter2", "a:b"]
        {
            assert!(PasswordRequest::root(nearly).is_err(), "{nearly}");
        }
    }

    #[test]
    fn users_are_split_off_at_the_first_colon() {
        let request = PasswordRequest::user("bob:password:a:b").unwrap();
        assert_eq!((request.user.as_str(), shown(&request.selector).as_str()), ("bob", "text a:b"));
        for wrong in ["bob", "bob:", ":random", "bob:hunter2", "password:hunter2"] {
            assert!(PasswordRequest::user(wrong).is_err(), "{wrong}");
        }
        let twice =
            ["bob:random", "eve:random", "bob:disabled"].map(|text| PasswordRequest::user(text).unwrap());
        assert!(refuse_twice(&twice[..2]).is_ok());
        assert!(refuse_twice(&twice).unwrap_err().to_string().contains("bob"));
    }

    proptest! {
        #[test]
        fn errors_never_quote_the_password(password in "[a-z0-9]{6}QQ[A-Z0-9:]{6,12}") {
            for text in [password.clone(), format!("pasword:{password}"), format!("random:{password}"), format!("locked:{password}")] {
                for error in [Selector::parse(&text).err(), PasswordRequest::root(&text).err(), PasswordRequest::user(&format!("bob:{text}")).err()] {
                    let Some(error) = error else { continue };
                    let shown = format!("{error:?} {:?}", error.what_to_do());
                    prop_assert!(!shown.contains(&password), "{}", shown);
                }
            }
            let request = PasswordRequest::user(&format!("bob:password:{password}"));
            let shown = format!("{request:?}");
            prop_assert!(!shown.contains(&password));
        }
    }
}
