//! Which values a parameter of an operation takes.

#![forbid(unsafe_code)]

use std::fmt;

use super::network::Network;
use super::schema::ParameterKind;
use super::user::User;

/// Longest host name that Linux keeps, in bytes: `HOST_NAME_MAX` of limits.h.
const HOST_NAME_MAX: usize = 64;

/// Longest label of a host name, in bytes (RFC 1123, section 2.1).
const LABEL_MAX: usize = 63;

impl ParameterKind {
    /// Checks a value that the user or an operation file gives.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words that follow the parameter's name; the value itself is never part of it.
    pub fn check(self, value: &str) -> Result<(), &'static str> {
        if value.contains(char::is_control) {
            return Err("must not hold line breaks or other control characters");
        }
        let (good, wanted) = match self {
            Self::Text => (true, ""),
            Self::Secret => (!value.is_empty(), "must not be empty"),
            Self::Steps => (false, "takes no value: its steps are [[action]] tables of a profile"),
            Self::Flag => (matches!(value, "true" | "false"), "must be `true` or `false`"),
            Self::List => {
                (value.split(',').all(|word| !word.trim().is_empty()), "must be words separated by commas")
            }
            Self::Hostname => {
                (is_hostname(value), "must be a host name of at most 64 letters, digits, dashes and dots")
            }
            Self::Timezone => (is_timezone(value), "must be a zone name such as Europe/Berlin"),
            Self::Users => (User::list(value).is_ok(), "must be a JSON list such as [{\"name\": \"bob\"}]"),
            Self::Networks => {
                (Network::list(value).is_ok(), "must be a JSON list such as [{\"address\": \"dhcp\"}]")
            }
        };
        if good { Ok(()) } else { Err(wanted) }
    }
}

impl fmt::Display for ParameterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text => "text",
            Self::Flag => "flag",
            Self::List => "list",
            Self::Hostname => "hostname",
            Self::Timezone => "timezone",
            Self::Secret => "secret",
            Self::Steps => "steps",
            Self::Users => "users",
            Self::Networks => "networks",
        })
    }
}

fn is_hostname(name: &str) -> bool {
    name.len() <= HOST_NAME_MAX && name.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    (1..=LABEL_MAX).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// The names below zoneinfo have these characters only, so that no value can leave that folder.
fn is_timezone(zone: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+');
    zone.split('/').all(|part| !part.is_empty() && part.bytes().all(inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_takes_its_values_only() {
        let long = "a".repeat(63);
        let cases: [(ParameterKind, &[&str], &[&str]); 8] = [
            (ParameterKind::Text, &["", "a b"], &["a\nb"]),
            (ParameterKind::Flag, &["true", "false"], &["", "yes", "True"]),
            (ParameterKind::List, &["a", "a,b c"], &["", "a,", ",a", "a,,b", "a\0"]),
            (ParameterKind::Secret, &["x"], &[""]),
            (ParameterKind::Users, &["[{\"name\":\"bob\"}]"], &["", "bob", "[{\"name\":\"a b\"}]"]),
            (ParameterKind::Networks, &["[{\"address\":\"dhcp\"}]"], &["", "dhcp", "[{\"address\":\"x\"}]"]),
            (
                ParameterKind::Hostname,
                &["a", "web-1.example.org", "1", &long],
                &["", ".", "a.", "-a", "a-", "a_b", "a b", "a/b", &"a".repeat(64), &format!("{long}.{long}")],
            ),
            (
                ParameterKind::Timezone,
                &["UTC", "Europe/Berlin", "Etc/GMT+5", "America/Argentina/Buenos_Aires"],
                &["", "/UTC", "UTC/", "../x", "a//b", "a.b"],
            ),
        ];
        for (kind, good, bad) in cases {
            assert!(good.iter().all(|value| kind.check(value).is_ok()), "{kind:?} refuses one of {good:?}");
            assert!(bad.iter().all(|value| kind.check(value).is_err()), "{kind:?} takes one of {bad:?}");
        }
    }
}
