//! Steps about lines of text files.

#![forbid(unsafe_code)]

use std::path::Path;

use super::{existing, place, wrong_kind};
use crate::action::{Findings, View};
use crate::error::{Error, Result};
use crate::guest::FileKind;
use crate::guest::change::{Change, Content, NewFile};
use crate::operation::perl::Program;
use crate::operation::step::{AppendLine, Substitute};

pub(super) fn append_line(step: &AppendLine, view: View<'_>) -> Result<Findings> {
    let path = place(Path::new(&step.path), view)?;
    let entry = view.root.lookup(&path)?;
    if entry.is_some_and(|entry| entry.kind != FileKind::File) {
        return Err(wrong_kind(&path, "a regular file"));
    }
    let old = view.root.read(&path)?.unwrap_or_default();
    let content = Content(with_line(&old, step.line.as_bytes()));
    Ok(vec![Change::Replace { path, content, new: NewFile::root(0o644) }].into())
}

/// The line ends as the first one of the file does.
fn with_line(old: &[u8], line: &[u8]) -> Vec<u8> {
    let first = old.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
    let ending: &[u8] = if first.ends_with(b"\r\n") { b"\r\n" } else { b"\n" };
    let gap = if old.is_empty() || old.ends_with(b"\n") { &[][..] } else { ending };
    [old, gap, line, ending].concat()
}

pub(super) fn substitute(step: &Substitute, view: View<'_>) -> Result<Findings> {
    let wrong = |what: String| Error::usage(format!("the expression {:?}: {what}", step.expression));
    let program = Program::parse(&step.expression).map_err(wrong)?;
    let entry = existing(&step.path, view)?;
    let content = view.root.read(&entry.path)?.ok_or_else(|| wrong_kind(&entry.path, "a regular file"))?;
    let new = program.run(&content).map_err(wrong)?;
    if new == content {
        return Ok(Findings::default());
    }
    Ok(vec![Change::rewrite(entry, new)].into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_appended_as_the_others_end() {
        for (old, new) in
            [("", "x\n"), ("a\n", "a\nx\n"), ("a", "a\nx\n"), ("a\r\nb", "a\r\nb\r\nx\r\n"), ("\n", "\nx\n")]
        {
            assert_eq!(String::from_utf8(with_line(old.as_bytes(), b"x")).unwrap(), new, "{old:?}");
        }
    }
}
