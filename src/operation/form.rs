//! Checks of single values in an operation file. They run while serde reads the value, so that an error of the toml
//! crate points at the value itself.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;

use super::network::{check_address, check_interface, check_ip};
use super::perl::Program;
use super::user::check_account_path;
use crate::guest::glob::Pattern;
use globset::GlobBuilder;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};

/// Longest name of an operation or parameter, in bytes: keeps the columns of a listing readable.
const NAME_MAX: usize = 40;

/// Longest name of a user or group: the limit of useradd(8).
const USER_MAX: usize = 32;

/// Names that select sets of operations and so cannot name one.
pub(super) const RESERVED: [&str; 2] = ["all", "defaults"];

/// Says what is wrong with a text.
type Check = fn(&str) -> Result<(), String>;

thread_local! {
    static UNCHECKED: Cell<bool> = const { Cell::new(false) };
}

/// Reads operations without these checks: for those that were checked when their files were read, and come back from
/// this program itself. Compiling every expression once more takes longer than starting the worker.
pub(crate) fn unchecked<T>(read: impl FnOnce() -> T) -> T {
    let before = UNCHECKED.replace(true);
    let result = read();
    UNCHECKED.set(before);
    result
}

/// Reads one text and checks it before the reader of the value has returned: only then does the reader add the place.
#[derive(Clone, Copy)]
struct Text(Check);

impl Visitor<'_> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        if !UNCHECKED.get() {
            (self.0)(text).map_err(E::custom)?;
        }
        Ok(text.to_owned())
    }
}

impl<'de> DeserializeSeed<'de> for Text {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<String, D::Error> {
        reader.deserialize_str(self)
    }
}

/// Reads a list of such texts.
struct Texts {
    check: Check,
    may_be_empty: bool,
}

impl<'de> Visitor<'de> for Texts {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of strings")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<String>, A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = items.next_element_seed(Text(self.check))? {
            texts.push(text);
        }
        if texts.is_empty() && !self.may_be_empty {
            return Err(A::Error::custom("an empty list does nothing"));
        }
        Ok(texts)
    }
}

pub(super) fn name<'de, D: Deserializer<'de>>(reader: D) -> Result<String, D::Error> {
    reader.deserialize_str(Text(check_name))
}

pub(super) fn one_line<'de, D: Deserializer<'de>>(reader: D) -> Result<String, D::Error> {
    reader.deserialize_str(Text(check_one_line))
}

pub(super) fn path<'de, D: Deserializer<'de>>(reader: D) -> Result<String, D::Error> {
    reader.deserialize_str(Text(check_path))
}

pub(super) fn place<'de, D: Deserializer<'de>>(reader: D) -> Result<String, D::Error> {
    reader.deserialize_str(Text(check_place))
}

pub(super) fn glob<'de, D: Deserializer<'de>>(reader: D) -> Result<String, D::Error> {
    reader.deserialize_str(Text(check_glob))
}

pub(super) fn line<'de, D: Deserializer<'de>>(reader: D) -> Result<String, D::Error> {
    reader.deserialize_str(Text(check_line))
}

pub(super) fn some_line<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<String>, D::Error> {
    one_line(reader).map(Some)
}

pub(super) fn user<'de, D: Deserializer<'de>>(reader: D) -> Result<String, D::Error> {
    reader.deserialize_str(Text(check_user))
}

pub(super) fn users<'de, D: Deserializer<'de>>(reader: D) -> Result<Vec<String>, D::Error> {
    reader.deserialize_seq(Texts { check: check_user, may_be_empty: true })
}

pub(super) fn some_account_path<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<String>, D::Error> {
    reader.deserialize_str(Text(check_account_path)).map(Some)
}

pub(super) fn some_account_field<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<String>, D::Error> {
    reader.deserialize_str(Text(check_account_field)).map(Some)
}

pub(super) fn address<'de, D: Deserializer<'de>>(reader: D) -> Result<String, D::Error> {
    reader.deserialize_str(Text(check_address))
}

pub(super) fn some_interface<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<String>, D::Error> {
    reader.deserialize_str(Text(check_interface)).map(Some)
}

pub(super) fn some_ip<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<String>, D::Error> {
    reader.deserialize_str(Text(check_ip)).map(Some)
}

pub(super) fn ips<'de, D: Deserializer<'de>>(reader: D) -> Result<Vec<String>, D::Error> {
    reader.deserialize_seq(Texts { check: check_ip, may_be_empty: true })
}

pub(super) fn octal<'de, D: Deserializer<'de>>(reader: D) -> Result<String, D::Error> {
    reader.deserialize_str(Text(check_mode))
}

pub(super) fn expression<'de, D: Deserializer<'de>>(reader: D) -> Result<String, D::Error> {
    reader.deserialize_str(Text(check_expression))
}

pub(super) fn mode<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<String>, D::Error> {
    reader.deserialize_str(Text(check_mode)).map(Some)
}

pub(super) fn pad<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<char>, D::Error> {
    Ok(reader.deserialize_str(Text(check_pad))?.chars().next())
}

pub(super) fn regex<'de, D: Deserializer<'de>>(reader: D) -> Result<String, D::Error> {
    reader.deserialize_str(Text(check_regex))
}

pub(super) fn some_regex<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<String>, D::Error> {
    regex(reader).map(Some)
}

pub(super) fn regexes<'de, D: Deserializer<'de>>(reader: D) -> Result<Vec<String>, D::Error> {
    reader.deserialize_seq(Texts { check: check_regex, may_be_empty: true })
}

pub(super) fn globs<'de, D: Deserializer<'de>>(reader: D) -> Result<Vec<String>, D::Error> {
    reader.deserialize_seq(Texts { check: check_glob, may_be_empty: true })
}

pub(super) fn some_globs<'de, D: Deserializer<'de>>(reader: D) -> Result<Vec<String>, D::Error> {
    reader.deserialize_seq(Texts { check: check_glob, may_be_empty: false })
}

pub(super) fn packages<'de, D: Deserializer<'de>>(reader: D) -> Result<Vec<String>, D::Error> {
    reader.deserialize_seq(Texts { check: check_package, may_be_empty: true })
}

pub(super) fn some_text<'de, D: Deserializer<'de>>(reader: D) -> Result<String, D::Error> {
    reader.deserialize_str(Text(check_some_text))
}

/// The name of an operation or a parameter.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(inner) {
        return Err(format!("a name has 1 to {NAME_MAX} lower case letters, digits and dashes"));
    }
    if name.starts_with('-') || name.ends_with('-') {
        return Err("a name neither starts nor ends with a dash".into());
    }
    if RESERVED.contains(&name) {
        return Err(format!("`{name}` stands for a set of operations"));
    }
    Ok(())
}

/// Whether it is one line for people.
pub(super) fn check_one_line(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("must not be empty".into());
    }
    if text.contains(char::is_control) {
        Err("must be one line without control characters".into())
    } else {
        Ok(())
    }
}

/// A pattern of paths in the guest; the rules are at [`super::schema::Remove`].
pub(super) fn check_glob(glob: &str) -> Result<(), String> {
    let below = glob.strip_prefix("~/").or_else(|| glob.strip_prefix('/'));
    let below = below.ok_or("a glob starts with `/` or `~/`")?;
    let first = below.split('/').next().unwrap_or_default();
    if glob.starts_with('/') && !first.contains(|c: char| c.is_ascii_alphanumeric()) {
        return Err("the first folder of a glob must be named, or it could take the whole guest".into());
    }
    check_components(below)?;
    if below.split('/').any(|part| part.contains("**") && part != "**") {
        return Err("`**` stands for whole folders: put it between slashes".into());
    }
    if below.split('/').any(|part| part.matches('{').count() != part.matches('}').count()) {
        return Err("`{a,b}` holds no slash: each folder of a glob is matched by itself".into());
    }
    if ["{,", ",,", ",}", "{}"].iter().any(|empty| below.contains(empty)) {
        return Err("an empty alternative in `{a,b}` matches nothing: write both globs out".into());
    }
    let built = GlobBuilder::new(glob).literal_separator(true).backslash_escape(true).build();
    built.map(drop).map_err(|error| error.kind().to_string())?;
    // Its way of reading globs is another one, and the one that counts when the operation runs.
    Pattern::parse(glob).map(drop).map_err(|error| error.to_string())
}

/// A plain absolute path in the guest.
fn check_path(path: &str) -> Result<(), String> {
    let below = path.strip_prefix('/').ok_or("a path starts with `/`")?;
    check_components(below)?;
    if path.contains(['*', '?', '[', '{', '\\']) {
        Err("a path, not a glob, is wanted here".into())
    } else {
        Ok(())
    }
}

/// A path in the guest, `/` and signs of globs included.
pub(super) fn check_place(path: &str) -> Result<(), String> {
    match path.strip_prefix('/') {
        None => Err("a path in the guest starts with `/`".into()),
        Some("") => Ok(()),
        Some(below) => check_components(below),
    }
}

pub(super) fn check_line(line: &str) -> Result<(), String> {
    let control = line.contains(|letter: char| letter.is_control() && letter != '\t');
    if control { Err("must be one line without control characters".into()) } else { Ok(()) }
}

/// The name of a user or group, as useradd(8) takes it.
pub(super) fn check_user(name: &str) -> Result<(), String> {
    let first = |letter: char| letter.is_ascii_lowercase() || letter == '_';
    let known =
        |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || "_-.".contains(letter);
    if name.len() <= USER_MAX && name.starts_with(first) && name.chars().all(known) {
        return Ok(());
    }
    Err(format!("a name has 1 to {USER_MAX} of a-z, 0-9, `_`, `-` and `.`, and begins with a letter or `_`"))
}

/// What may stand in a field of passwd(5).
pub(super) fn check_account_field(text: &str) -> Result<(), String> {
    if text.contains(|letter: char| letter.is_control() || letter == ':') {
        return Err("must not have colons and control characters".into());
    }
    Ok(())
}

pub(super) fn check_expression(expression: &str) -> Result<(), String> {
    Program::parse(expression).map(drop)
}

/// Refuses whatever could leave the guest's root or name nothing: `..`, `.`, `//`, control characters.
fn check_components(below: &str) -> Result<(), String> {
    if below.contains(char::is_control) {
        return Err("a path has no control characters".into());
    }
    if below.split('/').any(str::is_empty) {
        return Err("a path has no empty folder name and no slash at its end".into());
    }
    if below.split('/').any(|part| part == ".") || below.split(['/', '{', '}', ',']).any(|part| part == "..")
    {
        return Err("a path has no `.` and no `..`".into());
    }
    Ok(())
}

fn check_regex(pattern: &str) -> Result<(), String> {
    if pattern.is_empty() {
        return Err("an empty expression matches every line".into());
    }
    regex::Regex::new(pattern).map(drop).map_err(|error| error.to_string())
}

pub(crate) fn check_some_text(text: &str) -> Result<(), String> {
    if text.trim().is_empty() { Err("must not be empty".into()) } else { Ok(()) }
}

/// The name of a package, as package managers take it: with a version, an architecture, or a pattern.
pub(crate) fn check_package(name: &str) -> Result<(), String> {
    let known = |sign: char| sign.is_ascii_alphanumeric() || "+-._:@/=~^*<>".contains(sign);
    if name.is_empty() || name.starts_with('-') || !name.chars().all(known) {
        return Err("a package has letters, digits and signs such as + - . and does not begin with -".into());
    }
    Ok(())
}

pub(super) fn check_mode(mode: &str) -> Result<(), String> {
    let octal = matches!(mode.len(), 3 | 4) && mode.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
    if octal { Ok(()) } else { Err("a mode has three or four octal digits, such as 0644".into()) }
}

fn check_pad(pad: &str) -> Result<(), String> {
    let good = pad.len() == 1 && pad.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if good { Ok(()) } else { Err("one printable ASCII character is wanted here".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_left_out_only_where_that_is_said() {
        let reader = || serde_json::Deserializer::from_str("[\"../x\"]");
        let read = || globs(&mut reader()).is_ok();
        assert!(!read());
        assert!(unchecked(read));
        assert!(!read());
    }

    #[test]
    fn globs_stay_inside_the_guest() {
        for good in [
            "/etc/a*",
            "~/.ssh/*",
            "/var/log/**",
            "/var/**/*.log",
            "/x/{a,b}/[!0-9]?",
            "/.unconfigured",
            "/x/a..b",
        ] {
            assert_eq!(check_glob(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "/",
            "~",
            "~/",
            "etc/x",
            "../x",
            "/etc/../x",
            "/etc/./x",
            "/etc/{..,a}/x",
            "/etc//x",
            "/etc/",
            "/*",
            "/**",
            "/{*,?}/x",
            "/etc/a**",
            "/etc/a\0",
            "/etc/a\n",
            "/etc/[a",
            "/etc/{a",
            "/x/{a,b/c}",
            "/x/{,a}",
            "/x/{a,}",
            "~root/x",
        ] {
            assert!(check_glob(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_are_words_of_the_command_line() {
        assert_eq!(check_name("ssh-hostkeys"), Ok(()));
        for bad in ["", "-a", "a-", "A", "a_b", "a,b", "all", "defaults", "ä", &"a".repeat(41)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_of_packages_are_no_options_and_no_shell() {
        for good in ["vim", "g++", "libc6:i386", "vim=2:9.0-1", "@development-tools", "./x.rpm", "php-*"] {
            assert_eq!(check_package(good), Ok(()), "{good}");
        }
        for bad in ["", "-y", "a b", "a'b", "a;b", "$x", "a\n", "`x`", "é"] {
            assert!(check_package(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn modes_are_octal_and_paths_are_plain() {
        assert_eq!((check_mode("0644"), check_mode("600")), (Ok(()), Ok(())));
        assert!(["", "64", "0888", "00644", "u+x"].iter().all(|bad| check_mode(bad).is_err()));
        assert_eq!(check_path("/etc/x"), Ok(()));
        assert_eq!(check_pad("#"), Ok(()));
        assert!(["", "##", "\n", "é"].iter().all(|bad| check_pad(bad).is_err()));
        assert!(["etc/x", "/etc/*", "/etc/../x", "~/x", "/"].iter().all(|bad| check_path(bad).is_err()));
    }
}
