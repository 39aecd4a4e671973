//! os-release(5): which distribution a guest is.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

/// What a guest says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct OsRelease {
    /// `ID`, lower case; "linux" when it says none.
    pub id: String,
    /// The words of `ID_LIKE`.
    pub id_like: Vec<String>,
    /// `VERSION_ID`, empty for rolling releases.
    pub version_id: String,
    /// `PRETTY_NAME`, for people.
    pub pretty_name: String,
}

impl OsRelease {
    /// Parses the file. Lines that are no assignments are skipped, as a shell would not.
    pub fn parse(text: &str) -> Self {
        let mut os = Self { id: "linux".into(), ..Self::default() };
        for line in text.lines() {
            let Some((key, value)) = line.trim().split_once('=') else { continue };
            let value = unquote(value);
            match key {
                "ID" if !value.is_empty() => os.id = value.to_ascii_lowercase(),
                "ID_LIKE" => os.id_like = value.split_whitespace().map(str::to_ascii_lowercase).collect(),
                "VERSION_ID" => os.version_id = value,
                "PRETTY_NAME" => os.pretty_name = value,
                _ => {}
            }
        }
        if os.pretty_name.is_empty() {
            os.pretty_name = format!("{} {}", os.id, os.version_id).trim().to_owned();
        }
        os
    }

    /// Whether it is this distribution or one made from it.
    pub fn is_like(&self, id: &str) -> bool {
        self.id == id || self.id_like.iter().any(|like| like == id)
    }
}

/// Takes off a shell's quotes, and control characters; within double quotes a backslash stands before `"`, `$`, `` ` `` and itself.
fn unquote(value: &str) -> String {
    let value = value.trim();
    let shown =
        |letters: &mut dyn Iterator<Item = char>| letters.filter(|letter| !letter.is_control()).collect();
    if let Some(plain) = value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        return shown(&mut plain.chars());
    }
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
    let mut letters = inner.chars();
    let mut plain = String::with_capacity(inner.len());
    while let Some(letter) = letters.next() {
        plain.extend(if letter == '\\' { letters.next() } else { Some(letter) });
    }
    shown(&mut plain.chars())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_likes() {
        let os = OsRelease::parse(
            "ID=\"rocky\"\nID_LIKE='rhel centos fedora'\nVERSION_ID=\"9.4\"\nPRETTY_NAME=\"Rocky \\\"9\\\"\"\n",
        );
        assert_eq!((os.id.as_str(), os.version_id.as_str()), ("rocky", "9.4"));
        assert!(os.is_like("rhel") && os.is_like("rocky") && !os.is_like("debian"));
        assert_eq!(os.pretty_name, "Rocky \"9\"");
        assert_eq!(OsRelease::parse("").id, "linux");
    }

    #[test]
    fn control_characters_go_whatever_the_quotes() {
        for quote in ["", "'", "\""] {
            let os = OsRelease::parse(&format!("PRETTY_NAME={quote}a\u{1b}[31mb\u{7}{quote}\n"));
            assert_eq!(os.pretty_name, "a[31mb", "{quote}");
        }
    }
}
