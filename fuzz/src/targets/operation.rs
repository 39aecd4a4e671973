//! Operation files: what is accepted can be carried out and written out again.

use guestseal::guest::glob::Pattern;
use guestseal::operation::schema::Action;
use guestseal::operation::{Operation, parse};

use crate::targets::check_error;

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let operation = match parse(text, "x.toml") {
        Ok(operation) => operation,
        Err(error) => {
            assert_eq!(error.kind(), guestseal::ErrorKind::Usage);
            assert!(error.chain().contains("x.toml"));
            return;
        }
    };
    for glob in globs(&operation) {
        if let Err(error) = Pattern::parse(glob) {
            check_error(&error);
            panic!("a glob passed the check of operation files, and is refused when it runs: {error:?}");
        }
    }
    let printed = toml::to_string(&operation).expect("an operation can be written");
    let again = parse(&printed, "printed").unwrap_or_else(|error| panic!("{}\n{printed}", error.chain()));
    assert_eq!(format!("{again:?}"), format!("{operation:?}"), "{printed}");
}

fn globs(operation: &Operation) -> impl Iterator<Item = &String> {
    operation.actions.iter().flat_map(|action| {
        let lists: [&[String]; 2] = match action {
            Action::Remove(verb) => [&verb.paths, &verb.keep],
            Action::Truncate(verb) => [&verb.paths, &verb.keep],
            Action::Edit(verb) => [&verb.paths, &verb.keep],
            Action::Detect(verb) => [&verb.paths, &verb.keep],
            _ => [&[], &[]],
        };
        lists.into_iter().flatten()
    })
}
