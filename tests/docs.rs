//! The documentation is held against the program: the operations it shows are good ones, the exit codes and options it
//! names are there, and its links lead somewhere.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use guestseal::cli::args::Cli;
use guestseal::operation::parse;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn pages() -> Vec<PathBuf> {
    let docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<PathBuf> =
        docs.filter(|path| path.extension().is_some_and(|end| end == "md")).collect();
    pages.extend(["README.md", "CHANGELOG.md"].map(|name| root().join(name)));
    pages
}

/// The fenced blocks of a page that are marked with this language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(mark) = line.strip_prefix("```").filter(|mark| !mark.is_empty()) {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            if mark == language {
                found.push(block.join("\n"));
            }
        }
    }
    found
}

#[test]
fn the_operations_in_the_documentation_are_good_ones() {
    let page = fs::read_to_string(root().join("docs/operations-format.md")).unwrap();
    let examples = blocks(&page, "toml");
    assert!(examples.len() >= 2, "the page shows only {} examples", examples.len());
    for (number, example) in examples.iter().enumerate() {
        parse(example, &format!("example {}", number + 1))
            .unwrap_or_else(|error| panic!("{}", error.chain()));
    }
}

#[test]
fn the_profiles_in_the_documentation_are_good_ones() {
    let page = fs::read_to_string(root().join("docs/operations-format.md")).unwrap();
    let examples = blocks(&page, "toml profile");
    assert!(!examples.is_empty(), "the page shows no profile");
    for example in examples {
        let profile = guestseal::operation::profile::parse(&example, "example");
        assert!(profile.unwrap_or_else(|error| panic!("{}", error.chain())).actions.len() > 1);
    }
}

#[test]
fn the_page_about_the_form_names_every_verb() {
    let page = fs::read_to_string(root().join("docs/operations-format.md")).unwrap();
    let schema = serde_json::to_value(guestseal::operation::json_schema()).unwrap();
    let verbs: Vec<&str> = schema["$defs"]["Action"]["oneOf"]
        .as_array()
        .unwrap()
        .iter()
        .map(|verb| verb["required"][0].as_str().unwrap())
        .collect();
    assert!(verbs.len() > 10, "{verbs:?}");
    let missing: Vec<_> = verbs.iter().filter(|verb| !page.contains(&format!("| `{verb}` |"))).collect();
    assert!(missing.is_empty(), "not in the table of verbs: {missing:?}");
}

#[test]
fn options_in_the_readme_are_options_of_the_program() {
    let text = fs::read_to_string(root().join("README.md")).unwrap();
    let command = Cli::command();
    let commands: Vec<_> = std::iter::once(&command).chain(command.get_subcommands()).collect();
    let known = |name: &str| {
        let has = |command: &&clap::Command| command.get_arguments().any(|arg| arg.get_long() == Some(name));
        commands.iter().any(has)
    };
    // Lines that start guestseal; options of other tools are elsewhere.
    let lines = text.lines().filter(|line| line.contains("guestseal ") && line.starts_with(['$', '#', '|']));
    let options: Vec<&str> = lines
        .flat_map(|line| line.split([' ', '`', '=', ',']))
        .filter_map(|word| word.strip_prefix("--"))
        .filter(|name| !name.is_empty())
        .collect();
    assert!(options.len() > 3, "{options:?}");
    let unknown: Vec<_> = options.into_iter().filter(|name| !known(name)).collect();
    assert!(unknown.is_empty(), "the README names options that are not there: {unknown:?}");
}

#[test]
fn links_of_the_documentation_lead_somewhere() {
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || link.contains("://") {
                continue;
            }
            assert!(page.parent().unwrap().join(file).exists(), "{}: {link}", page.display());
        }
    }
}
