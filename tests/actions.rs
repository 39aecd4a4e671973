//! Every verb on small trees of guests: what it changes, what it leaves alone, and that doing it again changes nothing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use guestseal::action::{Findings, Settings, View, look};
use guestseal::guest::GuestRoot;
use guestseal::inspect::guest::Guest;
use guestseal::operation::parse;
use guestseal::operation::schema::Action;
use guestseal::{ErrorKind, Result};
use tempfile::TempDir;

#[path = "actions/builtin.rs"]
mod builtin;
#[path = "actions/declared.rs"]
mod declared;
#[path = "actions/steps.rs"]
mod steps;
#[path = "actions/system.rs"]
mod system;

/// A guest's files in a temporary folder.
struct Tree(TempDir);

impl Tree {
    /// Path and content; `-> target` makes a link, a slash at the end a folder.
    fn new(files: &[(&str, &str)]) -> Self {
        let tree = Self(TempDir::new().unwrap());
        files.iter().for_each(|(path, content)| tree.put(path, content));
        tree
    }

    fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(path.as_ref().strip_prefix("/").unwrap_or(path.as_ref()))
    }

    fn put(&self, path: &str, content: &str) {
        let at = self.at(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        match content.strip_prefix("-> ") {
            _ if path.ends_with('/') => fs::create_dir_all(at).unwrap(),
            Some(target) => symlink(target, at).unwrap(),
            None => fs::write(at, content).unwrap(),
        }
    }

    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn has(&self, path: &str) -> bool {
        self.at(path).symlink_metadata().is_ok()
    }

    fn look(&self, action: &Action, settings: &Settings) -> Result<Findings> {
        let root = GuestRoot::open(self.0.path())?;
        let guest = Guest::examine(&root)?;
        look(action, View { root: &root, guest: &guest, settings })
    }

    /// Looks, makes the changes, looks again and finds nothing; what was changed, as `Verb path`, and the notes.
    #[track_caller]
    fn run(&self, action: &str, values: &[(&str, &str)]) -> (Vec<String>, String) {
        let (action, settings) = (verb(action), settings(values));
        let findings = self.look(&action, &settings).unwrap_or_else(|error| panic!("{error:?}"));
        let root = GuestRoot::open(self.0.path()).unwrap();
        for change in &findings.changes {
            change.make(&root).unwrap_or_else(|error| panic!("{change:?}: {error:?}"));
        }
        let again = self
            .look(&action, &Settings { recorded: true, ..settings })
            .unwrap_or_else(|error| panic!("{error:?}"));
        assert!(again.changes.is_empty(), "a second time it would still {:?}", again.changes);
        let changed =
            findings.changes.iter().map(|change| format!("{:?} {}", change.verb(), change.path().display()));
        let notes: Vec<_> = findings.notes.iter().map(|note| note.message.as_str()).collect();
        (changed.collect(), notes.join("\n"))
    }

    #[track_caller]
    fn refuses(&self, action: &str, values: &[(&str, &str)], kind: ErrorKind, words: &str) {
        let error = self.look(&verb(action), &settings(values)).expect_err(action);
        assert!(error.kind() == kind && error.chain().contains(words), "{error:?}");
    }
}

fn settings(values: &[(&str, &str)]) -> Settings {
    let values: BTreeMap<_, _> =
        values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Settings { values, ..Settings::default() }
}

/// An action as an operation file has it.
#[track_caller]
fn verb(action: &str) -> Action {
    let kinds = [
        ("users", "users"),
        ("networks", "networks"),
        ("hostname", "hostname"),
        ("timezone", "timezone"),
        ("regenerate", "flag"),
        ("keep", "list"),
        ("remove", "list"),
    ];
    let parameters = kinds
        .map(|(name, kind)| format!("[parameters.{name}]\nsummary = \"s\"\nkind = \"{kind}\"\n"))
        .concat();
    let head =
        format!("name = \"test\"\nsummary = \"s\"\nreason = \"r\"\ndefault = true\n{parameters}[[action]]\n");
    parse(&format!("{head}{action}"), "test.toml")
        .unwrap_or_else(|error| panic!("{error:?}"))
        .actions
        .remove(0)
}

#[test]
fn remove_takes_what_matches_and_leaves_folders_and_what_is_kept() {
    let files = [
        ("/d/a.log", "12345"),
        ("/d/b.txt", ""),
        ("/d/folder/x.log", "x"),
        ("/d/link.log", "-> b.txt"),
        ("/d/gone.log", "-> nowhere"),
        ("/d/keep.log", "k"),
    ];
    let tree = Tree::new(&files);
    let (changed, _) = tree.run(
        "[action.remove]\npaths = [\"/d/*.log\", \"/d/*.log\", \"/d/folder\"]\nkeep = [\"/d/keep*\"]\n",
        &[],
    );
    assert_eq!(changed, ["Remove /d/a.log", "Remove /d/gone.log", "Remove /d/link.log"]);
    assert!(tree.has("/d/b.txt") && tree.has("/d/keep.log") && tree.has("/d/folder/x.log"));

    let tree = Tree::new(&files);
    let (changed, _) = tree.run(
        "[action.remove]\npaths = [\"/d/*\"]\nlinks = false\nrecursive = true\nkeep = [\"/d/keep.log\"]\n",
        &[],
    );
    assert_eq!(changed, ["Remove /d/a.log", "Remove /d/b.txt", "Remove /d/folder"]);
    assert!(tree.has("/d/link.log") && tree.has("/d/keep.log"));
}

/// A folder that holds something to be kept must not go as a whole.
#[test]
fn recursive_removal_spares_what_is_kept_deep_inside() {
    let tree = Tree::new(&[
        ("/d/a/b/keep/x", "k"),
        ("/d/a/b/go", "g"),
        ("/d/a/go/x", "g"),
        ("/d/c/x", "g"),
        ("/d/e", "g"),
    ]);
    let (changed, _) =
        tree.run("[action.remove]\npaths = [\"/d/*\"]\nrecursive = true\nkeep = [\"/d/a/b/keep\"]\n", &[]);
    assert!(tree.has("/d/a/b/keep/x"), "{changed:?}");
    assert!(
        !tree.has("/d/c") && !tree.has("/d/e") && !tree.has("/d/a/go") && !tree.has("/d/a/b/go"),
        "{changed:?}"
    );
}

#[test]
fn homes_are_those_of_passwd_and_the_folders_of_home() {
    let passwd = "root:x:0:0::/root:/bin/sh\nbob:x:1000:1000::/srv/people/bob:/bin/sh\n";
    let tree = Tree::new(&[
        ("/etc/passwd", passwd),
        ("/root/.history", ""),
        ("/srv/people/bob/.history", ""),
        ("/home/ldap/.history", ""),
        ("/srv/people/eve/.history", ""),
    ]);
    let (changed, _) = tree.run("[action.remove]\npaths = [\"~/.history\"]\n", &[]);
    assert_eq!(
        changed,
        ["Remove /home/ldap/.history", "Remove /root/.history", "Remove /srv/people/bob/.history"]
    );
}

#[test]
fn truncate_keeps_the_file_and_never_touches_hard_links() {
    let tree = Tree::new(&[
        ("/log/a", "text"),
        ("/log/empty", ""),
        ("/etc/shadow", "secret"),
        ("/log/link", "-> /etc/shadow"),
    ]);
    fs::hard_link(tree.at("/etc/shadow"), tree.at("/log/hard")).unwrap();
    let inode = fs::metadata(tree.at("/log/a")).unwrap().ino();
    let (changed, notes) = tree.run("[action.truncate]\npaths = [\"/log/*\"]\n", &[]);
    assert_eq!(changed, ["Truncate /log/a"]);
    assert!(notes.contains("2 names"), "{notes}");
    assert_eq!(tree.text("/etc/shadow"), "secret");
    assert_eq!((tree.text("/log/a").as_str(), fs::metadata(tree.at("/log/a")).unwrap().ino()), ("", inode));
}

#[test]
fn write_makes_a_file_only_when_told_and_follows_links_inside() {
    let tree = Tree::new(&[("/etc/there", "old"), ("/etc/link", "-> /run/real"), ("/run/real", "old")]);
    let write = |path: &str, create: bool| {
        format!(
            "[action.write]\npath = \"{path}\"\ncontent = \"name={{{{hostname}}}}\\n\"\ncreate = {create}\nmode = \"0600\"\n"
        )
    };
    let run = |path: &str, create: bool| tree.run(&write(path, create), &[("hostname", "web")]).0;
    assert_eq!(run("/etc/there", false), ["Write /etc/there"]);
    assert_eq!(tree.text("/etc/there"), "name=web\n");
    assert!(run("/etc/new", false).is_empty() && !tree.has("/etc/new"));
    assert_eq!(run("/etc/new", true), ["Write /etc/new"]);
    assert_eq!(fs::metadata(tree.at("/etc/new")).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(run("/etc/link", false), ["Write /run/real"]);
    assert_eq!(tree.text("/run/real"), "name=web\n");
}

#[test]
fn edit_changes_lines_and_nothing_else() {
    let tree = Tree::new(&[
        ("/etc/a.conf", "keep\nHWADDR=1\nNAME=old\n"),
        ("/etc/b.conf", "keep\n"),
        ("/etc/l.conf", "-> a.conf"),
    ]);
    let edit = "[action.edit]\npaths = [\"/etc/*.conf\"]\ndelete = ['^HWADDR=']\nreplace = [{ match = '^(NAME)=.*$', with = '$1=new' }]\n";
    assert_eq!(tree.run(edit, &[]).0[0], "Write /etc/a.conf");
    assert_eq!(tree.text("/etc/a.conf"), "keep\nNAME=new\n");
    let tree = Tree::new(&[("/etc/grubenv", "a=1\nb=2\n####")]);
    tree.run("[action.edit]\npaths = [\"/etc/grubenv\"]\ndelete = ['^a=']\npad = \"#\"\n", &[]);
    assert_eq!(tree.text("/etc/grubenv"), "b=2\n########");
}

#[test]
fn link_replaces_files_and_refuses_folders() {
    let tree = Tree::new(&[
        ("/etc/file", "x"),
        ("/etc/old", "-> /wrong"),
        ("/etc/folder/x", ""),
        ("/etc/right", "-> /right"),
    ]);
    let link = |name: &str| format!("[action.link]\npath = \"/etc/{name}\"\ntarget = \"/right\"\n");
    for name in ["file", "old", "new"] {
        assert_eq!(tree.run(&link(name), &[]).0, [format!("Link /etc/{name}")]);
        assert_eq!(fs::read_link(tree.at(format!("/etc/{name}"))).unwrap(), Path::new("/right"));
    }
    assert!(tree.run(&link("right"), &[]).0.is_empty());
    tree.refuses(&link("folder"), &[], ErrorKind::Unsupported, "is a folder");
}

#[test]
fn detect_only_tells() {
    let tree = Tree::new(&[("/etc/a", "password=x\n"), ("/etc/b", "nothing\n")]);
    let (changed, notes) = tree.run(
        "[action.detect]\npaths = [\"/etc/*\"]\ncontaining = '^password='\nmessage = \"look here\"\n",
        &[],
    );
    assert!(changed.is_empty() && notes == "look here", "{changed:?} {notes}");
}

#[test]
fn every_verb_that_takes_a_condition_obeys_it() {
    let verbs = [
        "[action.remove]\npaths = [\"/x/a\"]\n",
        "[action.truncate]\npaths = [\"/x/a\"]\n",
        "[action.write]\npath = \"/x/a\"\ncontent = \"new\"\n",
        "[action.edit]\npaths = [\"/x/a\"]\ndelete = ['old']\n",
        "[action.link]\npath = \"/x/a\"\ntarget = \"b\"\n",
        "[action.detect]\npaths = [\"/x/a\"]\nmessage = \"there\"\n",
        "[action.machine-id]\npolicy = \"empty\"\n",
    ];
    for verb in verbs {
        for (condition, holds) in [("exists = [\"/x/a\"]", true), ("missing = [\"/x/a\"]", false)] {
            let tree = system::debian("12");
            tree.put("/x/a", "old\n");
            tree.put("/etc/machine-id", "0123456789abcdef0123456789abcdef\n");
            let (changed, notes) = tree.run(&format!("{verb}when.{condition}\n"), &[]);
            assert_eq!(!changed.is_empty() || !notes.is_empty(), holds, "{verb} {condition}: {changed:?}");
        }
    }
}

#[test]
fn conditions_decide_whether_anything_is_done() {
    let cases = [
        ("distro = [\"debian\"]", true),
        ("distro = [\"fedora\"]", false),
        ("package-manager = [\"apt\"]", true),
        ("package-manager = [\"dnf\", \"yum\"]", false),
        ("init = [\"systemd\"]", true),
        ("init = [\"openrc\"]", false),
        ("exists = [\"/etc/*-release\"]", true),
        ("exists = [\"/etc/none\"]", false),
        ("missing = [\"/etc/none\"]", true),
        ("missing = [\"/etc/none\", \"/etc/os-release\"]", false),
        ("unless-line = [{ files = [\"/etc/os-release\"], matches = '^ID=' }]", false),
        ("unless-line = [{ files = [\"/etc/os-release\"], matches = '^NONE=' }]", true),
    ];
    for (condition, holds) in cases {
        let tree = system::debian("12");
        tree.put("/x/a", "");
        let (changed, _) = tree.run(&format!("[action.remove]\npaths = [\"/x/a\"]\nwhen.{condition}\n"), &[]);
        assert_eq!(!changed.is_empty(), holds, "{condition}");
    }
}
