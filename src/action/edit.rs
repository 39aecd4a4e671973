//! Editing text files line by line.

#![forbid(unsafe_code)]

use regex::bytes::Regex;

use super::{Findings, View, find, meets};
use crate::error::{Context, Result};
use crate::guest::FileKind;
use crate::guest::change::Change;
use crate::operation::schema::Edit;

pub(super) fn edit(verb: &Edit, view: View<'_>) -> Result<Findings> {
    let mut findings = Findings::default();
    if !meets(&verb.when, view)? {
        return Ok(findings);
    }
    let script = Script::compile(verb, view)?;
    for entry in find(&verb.paths, &verb.keep, view)? {
        let entry = if entry.kind == FileKind::Link { view.root.resolve(&entry.path)? } else { Some(entry) };
        let Some(entry) = entry.filter(|entry| entry.kind == FileKind::File) else { continue };
        let Some(content) = view.root.read(&entry.path)? else { continue };
        if let Some(content) = script.run(&content) {
            findings.changes.push(Change::rewrite(entry, content));
        }
    }
    Ok(findings)
}

struct Script {
    delete: Vec<Regex>,
    replace: Vec<(Regex, Vec<u8>)>,
    pad: Option<char>,
}

impl Script {
    fn compile(verb: &Edit, view: View<'_>) -> Result<Self> {
        let regex =
            |text: &str| Regex::new(text).context(|| format!("the regular expression {text:?} is wrong"));
        let delete = verb.delete.iter().map(|text| regex(text)).collect::<Result<_>>()?;
        let replace = verb
            .replace
            .iter()
            .map(|rule| Ok((regex(&rule.pattern)?, view.settings.fill(&rule.with).into_bytes())));
        Ok(Self { delete, replace: replace.collect::<Result<_>>()?, pad: verb.pad })
    }

    /// The new content, or None when nothing changes.
    fn run(&self, content: &[u8]) -> Option<Vec<u8>> {
        let mut new = Vec::with_capacity(content.len());
        for line in content.split_inclusive(|byte| *byte == b'\n') {
            let ending = if line.ends_with(b"\r\n") { 2 } else { usize::from(line.ends_with(b"\n")) };
            let (text, ending) = line.split_at(line.len() - ending);
            if self.delete.iter().any(|regex| regex.is_match(text)) {
                continue;
            }
            let mut text = text.to_vec();
            for (regex, with) in &self.replace {
                text = regex.replace_all(&text, with.as_slice()).into_owned();
            }
            new.extend(text);
            new.extend(ending);
        }
        if let Some(pad) =
            self.pad.and_then(|pad| u8::try_from(pad).ok()).filter(|_| new.len() < content.len())
        {
            new.resize(content.len(), pad);
        }
        (new != content).then_some(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_or_change_and_their_endings_stay() {
        let script = Script {
            delete: vec![Regex::new("^HWADDR=").unwrap()],
            replace: vec![(Regex::new("^(NAME=).*").unwrap(), b"${1}eth0".to_vec())],
            pad: None,
        };
        let new = script.run(b"NAME=old\r\nHWADDR=52:54\nONBOOT=yes\n\xff no text").unwrap();
        assert_eq!(new, b"NAME=eth0\r\nONBOOT=yes\n\xff no text");
        assert_eq!(script.run(b"ONBOOT=yes"), None);
    }
}
