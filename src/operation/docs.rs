//! The reference table of operations, made from the catalogue itself.

#![forbid(unsafe_code)]

use std::fmt::Write as _;

use super::catalogue::Catalogue;
use super::schema::{Group, Operation};

/// What stands above the table.
const HEAD: &str = "\
# Operations

What guestseal can do to a guest, in the order of names. This file is generated from the operations themselves:
`UPDATE_DOCS=1 cargo test --test operations` writes it again.

*Default* says whether an operation runs when nothing is selected. Operations that only report change nothing.
*Groups* are those of `--remove`. An operation that includes others stands for them and does nothing of its own.

| Name | Default | Groups | What it does | Why it is on or off |
|---|---|---|---|---|
";

/// The text of `docs/operations.md` for these operations.
pub fn reference(catalogue: &Catalogue) -> String {
    let mut operations = catalogue.sorted();
    operations.sort_by(|one, other| one.name.cmp(&other.name));
    operations.into_iter().fold(HEAD.to_owned(), |mut text, operation| {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{}", row(operation));
        text
    })
}

fn row(operation: &Operation) -> String {
    let groups: Vec<&str> = operation.groups.iter().copied().map(Group::name).collect();
    let mut what = operation.summary.clone();
    if !operation.includes.is_empty() {
        let _ = write!(what, " (includes {})", operation.includes.join(", "));
    }
    let default = if operation.default { "on" } else { "off" };
    let cells = [&format!("`{}`", operation.name), default, &groups.join(", "), &what, &operation.reason];
    format!("| {} |", cells.map(escape).join(" | "))
}

/// Keeps Markdown from reading text as its own marks.
fn escape(text: &str) -> String {
    text.replace('|', "\\|").replace('*', "\\*").replace('<', "&lt;").replace('~', "\\~")
}
