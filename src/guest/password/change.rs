//! What becomes of one account's password field in shadow(5).

use std::fs::File;
use std::io::Read;
use std::path::Path;

use zeroize::Zeroizing;

use super::hash::{Scheme, verify};
use super::selector::Selector;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::guest::secret::Secret;

/// The longest password in bytes: libxcrypt's crypt(3) takes no more (`CRYPT_MAX_PASSPHRASE_SIZE` less the final 0),
/// and PAM reads no more.
const LONGEST: usize = 511;

/// What is read of a password file: a password, its line end, and one byte that shows that it is too long.
const READ_AT_MOST: u64 = 515;

/// The letters of random passwords: none that looks like another (0 O o, 1 l I i).
const ALPHABET: &[u8; 55] = b"23456789abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ";

/// 22 letters of 55 are 127 bits.
const RANDOM_LETTERS: usize = 22;

/// A password field that no password matches.
const DISABLED: &str = "*";

/// Locked with no password behind the lock. shadow-utils' `passwd -u` and `usermod -U` take one `!` away, which leaves
/// [`DISABLED`], so unlocking never opens the account without a password.
const LOCKED: &str = "!*";

/// What becomes of one account's password.
#[derive(Debug, Clone)]
pub enum PasswordChange {
    /// This password is set.
    Set {
        /// The password.
        password: Secret,
        /// Whether the account is locked, so that the password counts only after `passwd -u`.
        locked: bool,
        /// Whether the password was made here, so that the user must be shown it once.
        generated: bool,
    },
    /// No password can match (`*`).
    Disabled,
    /// The same, marked as locked (`!*`). No old hash is kept: a template must not carry one.
    Locked,
}

impl Selector {
    /// Reads or makes the password.
    ///
    /// # Errors
    /// When the file cannot be read, when the password is empty, longer than 511 bytes, no UTF-8 or cannot be typed,
    /// or when the system gives no entropy. No error quotes the password.
    pub fn load(self) -> Result<PasswordChange> {
        let set = |password, generated| PasswordChange::Set { password, locked: false, generated };
        Ok(match self {
            Self::Text(password) => set(checked(password, "the password")?, false),
            Self::File(path) => set(from_file(&path)?, false),
            Self::Random => set(random()?, true),
            Self::Disabled => PasswordChange::Disabled,
            Self::Locked(None) => PasswordChange::Locked,
            Self::Locked(Some(inner)) => match inner.load()? {
                PasswordChange::Set { password, generated, .. } => {
                    PasswordChange::Set { password, locked: true, generated }
                }
                PasswordChange::Disabled | PasswordChange::Locked => PasswordChange::Locked,
            },
        })
    }
}

impl PasswordChange {
    /// The new password field of shadow(5), with a fresh salt.
    ///
    /// # Errors
    /// When the system gives no entropy for the salt.
    pub fn field(&self, scheme: Scheme) -> Result<Secret> {
        match self {
            Self::Set { password, locked: false, .. } => scheme.hash(password),
            // One `!`, not the two that virt-sysprep writes: Debian's `passwd -u` takes only one away.
            Self::Set { password, locked: true, .. } => {
                let hash = scheme.hash(password)?;
                Ok(Secret::new(["!", hash.expose()].concat()))
            }
            Self::Disabled => Ok(Secret::new(DISABLED)),
            Self::Locked => Ok(Secret::new(LOCKED)),
        }
    }

    /// Whether a password field of the guest already says this, so that a second run changes nothing.
    pub fn is_in(&self, field: &[u8]) -> bool {
        match self {
            Self::Set { password, locked: false, .. } => verify(password, field),
            Self::Set { password, locked: true, .. } => {
                field.strip_prefix(b"!").is_some_and(|hash| verify(password, hash))
            }
            Self::Disabled => field == DISABLED.as_bytes(),
            Self::Locked => field == LOCKED.as_bytes(),
        }
    }

    /// The password that was made here, to be shown once, on a terminal only.
    pub fn generated(&self) -> Option<&Secret> {
        match self {
            Self::Set { password, generated: true, .. } => Some(password),
            _ => None,
        }
    }
}

/// The first line of a file of the host; FIFOs such as a shell's `<(…)` are fine.
fn from_file(path: &Path) -> Result<Secret> {
    let what = format!("the first line of the password file {}", path.display());
    let failed = || format!("cannot read {what}");
    let mut bytes = Zeroizing::new(Vec::with_capacity(1024));
    let file = File::open(path).context_kind(ErrorKind::Usage, failed)?;
    file.take(READ_AT_MOST).read_to_end(&mut bytes).context_kind(ErrorKind::Usage, failed)?;
    let line = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = std::str::from_utf8(line).map_err(|_| {
        let too_long = line.len() > LONGEST;
        Error::usage(format!("{what} {}", if too_long { "is too long" } else { "is not UTF-8" }))
    })?;
    checked(Secret::new(text), &what)
}

/// Refuses what crypt(3) would not take or nobody could type at a login prompt.
fn checked(password: Secret, what: &str) -> Result<Secret> {
    let text = password.expose();
    if text.is_empty() {
        return Err(
            Error::usage(format!("{what} is empty")).hint("to let nobody in by password, use `disabled`")
        );
    }
    if text.len() > LONGEST {
        return Err(Error::usage(format!("{what} is too long: crypt(3) takes at most {LONGEST} bytes")));
    }
    if text.chars().any(|letter| letter.is_control() && letter != '\t') {
        return Err(Error::usage(format!(
            "{what} has a control character, which nobody can type at a login prompt"
        )));
    }
    Ok(password)
}

/// A password of [`RANDOM_LETTERS`] letters, each equally likely.
fn random() -> Result<Secret> {
    // 220 is the greatest multiple of 55 in a byte: what lies above would favour the first letters.
    const FAIR: u8 = 220;
    // Room from the start, so that the text does not move and leave a copy behind.
    let mut text = Zeroizing::new(String::with_capacity(RANDOM_LETTERS));
    let mut pool = Zeroizing::new([0_u8; 64]);
    while text.len() < RANDOM_LETTERS {
        fill(&mut pool[..])?;
        let fair = pool.iter().filter(|&&byte| byte < FAIR);
        let letters = fair.map(|&byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
        let missing = RANDOM_LETTERS - text.len();
        text.extend(letters.take(missing));
    }
    Ok(Secret::new(text.as_str()))
}

/// Fills a buffer from getrandom(2).
pub(super) fn fill(buffer: &mut [u8]) -> Result<()> {
    getrandom::fill(buffer).context(|| "the system gives no entropy")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn load(text: &str) -> Result<PasswordChange> {
        Selector::parse(text).unwrap().load()
    }

    fn file_with(content: &[u8]) -> (tempfile::NamedTempFile, String) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        let selector = format!("file:{}", file.path().display());
        (file, selector)
    }

    #[test]
    fn the_first_line_of_a_file() {
        let longest = "x".repeat(LONGEST);
        for (content, expected) in [
            ("secret\nsecond\n", "secret"),
            ("secret", "secret"),
            ("dos\r\n", "dos"),
            (" pass word ☃\n", " pass word ☃"),
            (&format!("{longest}\r\nmore"), &longest),
        ] {
            let (_file, selector) = file_with(content.as_bytes());
            let PasswordChange::Set { password, locked: false, generated: false } = load(&selector).unwrap()
            else {
                panic!("{content:?}");
            };
            assert_eq!(password.expose(), expected);
        }
        let (too_long, far_too_long) = ("é".repeat(256), "€".repeat(100_000));
        for content in [
            &b""[..],
            b"\nsecond",
            b"\r\n",
            b"a\0b\n",
            b"\xff\xfe\n",
            too_long.as_bytes(),
            far_too_long.as_bytes(),
        ] {
            let (_file, selector) = file_with(content);
            assert_eq!(load(&selector).unwrap_err().kind(), ErrorKind::Usage, "{content:?}");
        }
        assert!(load("file:/nonexistent/password").unwrap_err().chain().contains("/nonexistent/password"));
        assert!(load("file:/dev/null").is_err());
    }

    #[test]
    fn typed_passwords_are_checked_too() {
        assert!(load("password:tab\tis fine").is_ok());
        let long = format!("password:{}", "x".repeat(LONGEST + 1));
        for wrong in
            ["password:a\nb", "password:a\rb", "password:\u{1b}[A", "locked:password:\0", long.as_str()]
        {
            assert!(load(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn random_passwords_are_long_fair_and_new() {
        let bits = f64::from(u8::try_from(ALPHABET.len()).unwrap()).log2()
            * f64::from(u8::try_from(RANDOM_LETTERS).unwrap());
        assert!(bits > 120.0, "{bits}");
        let mut counts = [0_u32; 256];
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..500 {
            let change = load("random").unwrap();
            let text = change.generated().unwrap().expose().to_owned();
            assert_eq!(text.len(), RANDOM_LETTERS);
            text.bytes().for_each(|byte| counts[usize::from(byte)] += 1);
            assert!(seen.insert(text));
        }
        // 11000 letters, 55 kinds, 200 each on average: 100 and 300 are seven deviations away.
        assert!(
            ALPHABET.iter().all(|&letter| (100..300).contains(&counts[usize::from(letter)])),
            "{counts:?}"
        );
        assert!(b"0Oo1lIi".iter().all(|&letter| counts[usize::from(letter)] == 0));
    }

    #[test]
    fn locks_have_one_mark() {
        let field = |text| load(text).unwrap().field(Scheme::Sha512Crypt).unwrap().expose().to_owned();
        assert_eq!(field("disabled"), "*");
        assert_eq!(field("locked"), "!*");
        assert_eq!(field("locked:disabled"), "!*");
        assert!(Selector::parse("locked:locked").is_err());
        assert!(field("locked:password:x").starts_with("!$6$"));
        assert!(load("locked:random").unwrap().generated().is_some());
    }

    #[test]
    fn a_second_run_sees_that_nothing_is_to_do() {
        for text in ["disabled", "locked", "password:hunter2", "locked:password:hunter2"] {
            let change = load(text).unwrap();
            let field = change.field(Scheme::Sha512Crypt).unwrap();
            assert!(change.is_in(field.expose().as_bytes()), "{text}");
            assert!(!change.is_in(b"") && !change.is_in(b"!") && !change.is_in(b"$6$x$y"), "{text}");
            for other in ["disabled", "locked", "password:hunter3", "locked:password:hunter3"] {
                let same = text == other;
                assert_eq!(load(other).unwrap().is_in(field.expose().as_bytes()), same, "{text} {other}");
            }
        }
    }
}
