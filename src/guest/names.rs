//! Names that the user gives and the guest must be able to bear: host names and time zones.

#![forbid(unsafe_code)]

use std::net::Ipv4Addr;

use crate::error::{Error, Result};

/// Linux's HOST_NAME_MAX; see gethostname(2).
pub const HOST_NAME_MAX: usize = 64;

/// The longest label of a host name by RFC 1123, section 2.1, and RFC 1035, section 2.3.4.
const LABEL_MAX: usize = 63;

/// Far more than the longest name of the tz database (America/Argentina/ComodRivadavia, 32).
const TIMEZONE_MAX: usize = 128;

/// Checks a host name by RFC 1123 and hostname(7): labels of letters, digits and inner hyphens, joined by dots.
///
/// # Errors
/// A usage error that says which rule is broken.
pub fn check_hostname(name: &str) -> Result<()> {
    let wrong = |why: &str| Err(Error::usage(format!("{name:?} is no host name: {why}")));
    if name.is_empty() {
        return wrong("it is empty");
    }
    if name.len() > HOST_NAME_MAX {
        return wrong("Linux takes at most 64 characters");
    }
    if !name.is_ascii() {
        return wrong(
            "only ASCII letters, digits, hyphens and dots are allowed; write it in punycode (xn--…)",
        );
    }
    if name.parse::<Ipv4Addr>().is_ok() {
        return wrong("it is an IP address");
    }
    for label in name.split('.') {
        if label.is_empty() {
            return wrong("it has a dot at an end or two in a row");
        }
        if label.len() > LABEL_MAX {
            return wrong("a part between dots has more than 63 characters");
        }
        if label.starts_with('-') || label.ends_with('-') {
            return wrong("a part begins or ends with a hyphen");
        }
        if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return wrong("only letters, digits, hyphens and dots are allowed");
        }
    }
    Ok(())
}

/// Checks that a time zone's name can be a file below the guest's zoneinfo folder and nothing else: relative, without
/// `.` or `..`, made of letters, digits, `_`, `-` and `+`. Whether the guest has it is another question.
///
/// # Errors
/// A usage error that says which rule is broken.
pub fn check_timezone(name: &str) -> Result<()> {
    let wrong = |why: &str| {
        Err(Error::usage(format!("{name:?} is no time zone: {why}"))
            .hint("give a name such as Europe/Berlin or Etc/UTC"))
    };
    if name.is_empty() {
        return wrong("it is empty");
    }
    if name.len() > TIMEZONE_MAX {
        return wrong("it is too long");
    }
    if name.starts_with('/') {
        return wrong("it must not begin with a slash");
    }
    for part in name.split('/') {
        if part.is_empty() {
            return wrong("it has a slash at its end or two in a row");
        }
        if part.starts_with('-') {
            return wrong("a part begins with a hyphen");
        }
        if !part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'+')) {
            return wrong("only letters, digits, `_`, `-`, `+` and slashes are allowed");
        }
    }
    Ok(())
}

/// A hint for an unknown name: the nearest of the known ones, or what there is.
pub(crate) fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let nearest = known.clone().map(|one| (strsim::damerau_levenshtein(name, one), one)).min();
    match nearest {
        Some((distance, one)) if distance <= 1 + one.chars().count() / 3 => format!("did you mean {one}?"),
        Some(_) => format!("there are: {}", some(known)),
        None => "there are none".to_owned(),
    }
}

/// The first names of a list, for a hint: a guest may have thousands.
fn some<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const MOST: usize = 20;
    let mut names: Vec<&str> = names.take(MOST + 1).collect();
    if names.len() > MOST {
        names[MOST] = "…";
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn host_names() {
        let (label, longest) = ("a".repeat(63), format!("{}.{}", "a".repeat(32), "b".repeat(31)));
        for good in ["a", "web-01", "Web.Example.COM", "3com", "xn--bcher-kva.example", "1", &label, &longest]
        {
            assert!(check_hostname(good).is_ok(), "{good}");
        }
        let (long_label, long) = ("a".repeat(64), format!("{}.{}", "a".repeat(32), "b".repeat(32)));
        for bad in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "-a",
            "a-",
            "a.-b",
            "a_b",
            "bücher",
            "a b",
            "a\nb",
            "a/b",
            "10.0.0.1",
            &long_label,
            &long,
        ] {
            assert!(check_hostname(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn time_zones() {
        for good in [
            "UTC",
            "Europe/Berlin",
            "Etc/GMT+5",
            "America/Argentina/ComodRivadavia",
            "EST5EDT",
            "posix/GB-Eire",
        ] {
            assert!(check_timezone(good).is_ok(), "{good}");
        }
        let long = "a".repeat(129);
        for bad in [
            "",
            "/etc/passwd",
            "../../etc/passwd",
            "Europe/..",
            "Europe/",
            "a//b",
            "a b",
            "a\0b",
            "./UTC",
            "-x",
            "é",
            &long,
        ] {
            assert!(check_timezone(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hints_name_the_nearest() {
        let known = ["root", "bob", "alice"];
        assert_eq!(did_you_mean("rot", known.into_iter()), "did you mean root?");
        assert_eq!(did_you_mean("zzzzzz", known.into_iter()), "there are: root, bob, alice");
        assert_eq!(did_you_mean("x", std::iter::empty()), "there are none");
        let many: Vec<String> = (0..500).map(|number| format!("account{number:09}")).collect();
        assert!(did_you_mean("q", many.iter().map(String::as_str)).len() < 500);
    }

    proptest! {
        #[test]
        fn any_text_does_no_harm(name in "\\PC{0,80}") {
            let _ = check_hostname(&name);
            if check_timezone(&name).is_ok() {
                let path = std::path::Path::new(&name);
                prop_assert!(path.is_relative() && path.components().all(|part| matches!(part, std::path::Component::Normal(_))));
            }
        }
    }
}
