//! Errors, passwords and fingerprints in the form in which they cross the pipe.

#![forbid(unsafe_code)]

use std::error::Error as StdError;
use std::fmt::{self, Write as _};

use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::erase::fingerprint::{Coverage, Fingerprints, WINDOW, Window};
use crate::error::{Error, ErrorKind};
use crate::guest::password::PasswordChange;
use crate::guest::secret::Secret;
use crate::stack::key::{Key, KeyBytes};

/// The most of an error's text that crosses, in bytes. A guest chooses how long its names are.
const TEXT_LIMIT: usize = 64 << 10;
/// The most causes, and failures that followed, that cross.
const LIST_LIMIT: usize = 32;

/// An error with its causes as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WireError {
    kind: ErrorKind,
    what: String,
    hint: Option<String>,
    causes: Vec<String>,
    also: Vec<WireError>,
}

impl From<&Error> for WireError {
    fn from(error: &Error) -> Self {
        let mut causes = Vec::new();
        let mut next = error.source();
        while let Some(cause) = next.filter(|_| causes.len() < LIST_LIMIT) {
            causes.push(shortened(cause.to_string()));
            next = cause.source();
        }
        Self {
            kind: error.kind(),
            what: shortened(error.to_string()),
            hint: error.what_to_do().map(|hint| shortened(hint.to_owned())),
            causes,
            // One level: what failed while cleaning up after cleaning up is not worth more bytes.
            also: error.also().iter().take(LIST_LIMIT).map(Self::without_also).collect(),
        }
    }
}

impl WireError {
    fn without_also(error: &Error) -> Self {
        let text = shortened(error.chain());
        Self { kind: error.kind(), what: text, hint: None, causes: Vec::new(), also: Vec::new() }
    }
}

impl WireError {
    /// The error again; of the kinds only those that a worker can have cause for.
    pub fn into_error(self) -> Error {
        let Self { kind, what, hint, causes, also } = self;
        // Whether the image is busy or half written is not the worker's to say.
        let kind = match kind {
            ErrorKind::Usage | ErrorKind::Unsupported | ErrorKind::HostLacks => kind,
            _ => ErrorKind::Failed,
        };
        let cause = causes.into_iter().rev().fold(None, |below: Option<Error>, text| {
            let cause = Error::failed(text);
            Some(match below {
                Some(below) => cause.caused_by(below),
                None => cause,
            })
        });
        let mut error = Error::new(kind, what);
        if let Some(cause) = cause {
            error = error.caused_by(cause);
        }
        if let Some(hint) = hint {
            error = error.hint(hint);
        }
        also.into_iter().fold(error, |error, other| error.and_also(other.into_error()))
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > TEXT_LIMIT {
        let whole = (0..=TEXT_LIMIT).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(whole.unwrap_or(0));
        text.push('…');
    }
    text
}

/// What becomes of a password. Here, and nowhere else, a password is written out, for the one pipe to the worker.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum WirePassword {
    /// As [`PasswordChange::Set`].
    Set {
        /// In hexadecimal digits: these are read without a copy in between.
        #[serde(serialize_with = "write_hex", deserialize_with = "read_hex")]
        password: Secret,
        /// Whether the account is locked.
        locked: bool,
    },
    /// As [`PasswordChange::Disabled`].
    Disabled,
    /// As [`PasswordChange::Locked`].
    Locked,
}

impl From<PasswordChange> for WirePassword {
    fn from(change: PasswordChange) -> Self {
        match change {
            PasswordChange::Set { password, locked, generated: _ } => Self::Set { password, locked },
            PasswordChange::Disabled => Self::Disabled,
            PasswordChange::Locked => Self::Locked,
        }
    }
}

impl From<WirePassword> for PasswordChange {
    fn from(change: WirePassword) -> Self {
        match change {
            // Who made the password matters only to the parent, who shows it.
            WirePassword::Set { password, locked } => Self::Set { password, locked, generated: false },
            WirePassword::Disabled => Self::Disabled,
            WirePassword::Locked => Self::Locked,
        }
    }
}

fn write_hex<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Hex(secret.expose().as_bytes()))
}

fn read_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    let bytes = deserializer.deserialize_str(Digits)?;
    let text =
        std::str::from_utf8(&bytes).map_err(|_| D::Error::custom("no hexadecimal digits of a text"))?;
    Ok(Secret::new(text))
}

/// Windows of what was deleted, with what they stand for. They are secrets: wiped, and shown by their length only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WirePrints {
    #[serde(serialize_with = "write_bytes", deserialize_with = "read_bytes")]
    windows: Zeroizing<Vec<u8>>,
    coverage: Coverage,
}

impl WirePrints {
    /// These windows.
    pub fn new(windows: &[Window], coverage: Coverage) -> Self {
        Self { windows: Zeroizing::new(windows.as_flattened().to_vec()), coverage }
    }

    /// Adds them to the others; false when they are not such as fingerprints are, or too many.
    pub fn add_to(&self, prints: &mut Fingerprints) -> bool {
        let (windows, rest) = self.windows.as_chunks::<WINDOW>();
        prints.cover(&self.coverage);
        rest.is_empty() && windows.iter().all(|window| prints.add(window))
    }
}

impl fmt::Debug for WirePrints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of {:?}", self.windows.len(), self.coverage)
    }
}

/// A key with its volume. As with passwords, here it is written out, for the one pipe to the machine that opens the volume.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WireKey {
    volume: String,
    #[serde(serialize_with = "write_key", deserialize_with = "read_key")]
    bytes: KeyBytes,
}

impl From<&Key> for WireKey {
    fn from(key: &Key) -> Self {
        Self { volume: key.volume.clone(), bytes: key.bytes.clone() }
    }
}

impl From<WireKey> for Key {
    fn from(WireKey { volume, bytes }: WireKey) -> Self {
        Self { volume, bytes }
    }
}

fn write_key<S: Serializer>(key: &KeyBytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Hex(key.expose()))
}

fn read_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<KeyBytes, D::Error> {
    deserializer.deserialize_str(Digits).map(|bytes| KeyBytes::new(bytes.to_vec()))
}

fn write_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Hex(bytes))
}

fn read_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<Vec<u8>>, D::Error> {
    deserializer.deserialize_str(Digits)
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digit = |half: u8| char::from_digit(half.into(), 16).unwrap_or('0');
        self.0.iter().try_for_each(|byte| {
            f.write_char(digit(byte >> 4))?;
            f.write_char(digit(byte & 15))
        })
    }
}

struct Digits;

impl Visitor<'_> for Digits {
    type Value = Zeroizing<Vec<u8>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hexadecimal digits")
    }

    fn visit_str<E: serde::de::Error>(self, digits: &str) -> Result<Self::Value, E> {
        let wrong = || E::custom("no hexadecimal digits");
        let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
        let mut bytes = Zeroizing::new(Vec::with_capacity(pairs.len()));
        for pair in pairs {
            let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            let (high, low) = (digit(pair[0]).ok_or_else(wrong)?, digit(pair[1]).ok_or_else(wrong)?);
            bytes.push(high << 4 | low);
        }
        if rest.is_empty() { Ok(bytes) } else { Err(wrong()) }
    }
}
