//! Globs against a small tree of files that is made once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use globset::GlobBuilder;
use guestseal::guest::GuestRoot;
use guestseal::guest::glob::{KeepSet, Pattern};
use guestseal::operation;

use crate::targets::check_error;

const FILES: [&str; 12] = [
    "/a",
    "/ab",
    "/.hidden",
    "/etc/ssh/key",
    "/etc/ssh/key.pub",
    "/etc/[x]",
    "/etc/a b",
    "/etc/-x",
    "/home/bob/.ssh/id",
    "/home/eve/a/b/c/d",
    "/var/log/a.log",
    "/var/log/old/a.1",
];
/// Matches that one glob may give for each file: its braces may name one several times.
const ALTERNATIVES: usize = 1024;

struct Tree {
    folder: tempfile::TempDir,
    root: GuestRoot,
    paths: BTreeSet<PathBuf>,
}

fn tree() -> &'static Tree {
    static TREE: OnceLock<Tree> = OnceLock::new();
    TREE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let mut paths = BTreeSet::new();
        for file in FILES {
            let place = folder.path().join(&file[1..]);
            std::fs::create_dir_all(place.parent().expect("it is below the folder"))
                .expect("folders can be made");
            std::fs::write(place, file).expect("a file can be made");
            paths.extend(Path::new(file).ancestors().map(Path::to_path_buf));
        }
        paths.remove(Path::new("/"));
        let root = GuestRoot::open(folder.path()).expect("the folder can be opened");
        Tree { folder, root, paths }
    })
}

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let pattern = match Pattern::parse(text) {
        Ok(pattern) => pattern,
        Err(error) => return check_error(&error),
    };
    let Tree { folder, root, paths } = tree();
    assert!(folder.path().is_absolute());
    let homes = [PathBuf::from("/home/bob"), PathBuf::from("/home/eve")];
    let mut found = Vec::new();
    pattern.find(root, &homes, &mut found).expect("the tree can be read");
    assert!(found.len() <= paths.len() * ALTERNATIVES * 2);
    let found: BTreeSet<PathBuf> = found.into_iter().map(|entry| entry.path).collect();
    assert!(found.is_subset(paths), "{text:?} found {found:?}");
    kept(text, &homes, &found);
    // Where the two mean the same, another reader of globs must find the same.
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-*?".contains(letter);
    if text.starts_with('/') && text.chars().all(plain) && !text.contains("**") {
        let other =
            GlobBuilder::new(text).literal_separator(true).build().expect("it is a glob").compile_matcher();
        let expected: BTreeSet<PathBuf> = paths.iter().filter(|path| other.is_match(path)).cloned().collect();
        assert_eq!(found, expected, "{text:?}");
    }
}

/// What a glob finds is kept by the same glob, where an operation file may have it.
fn kept(text: &str, homes: &[PathBuf], found: &BTreeSet<PathBuf>) {
    let quoted = serde_json::to_string(text).expect("a text can be quoted");
    let file = format!(
        "name = \"x\"\nsummary = \"s\"\nreason = \"r\"\ndefault = true\n[[action]]\n[action.remove]\npaths = [{quoted}]\n"
    );
    if operation::parse(&file, "x.toml").is_err() {
        return;
    }
    let keep = KeepSet::new(&[text.to_owned()], homes).expect("an operation file may have it");
    let mut keeper = keep.ask();
    for path in found {
        assert!(keeper.keeps(path), "{text:?} finds {path:?} and would not keep it");
    }
}
