//! `--tree`: folders as guests, sealed, verified and looked at by the built program. Needs root.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails or says so")]

#[path = "../images/common.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod common;
#[path = "../images/guests.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod guests;
#[path = "../hostile/host.rs"]
mod host;
#[path = "../images/leftovers.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod leftovers;

mod hostile;
mod labels;
mod refused;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{GUESTSEAL, Ran, require, run, shell, tool};
use crate::leftovers::nothing_left;

/// A copy of a hand-made tree in a folder of its own.
struct Tree {
    folder: TempDir,
    root: PathBuf,
}

impl Tree {
    fn new(name: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("guestseal-tree-").tempdir_in("/var/tmp").unwrap();
        let root = folder.path().join("tree");
        tool("cp", [Path::new("-a"), &made(name), &root]);
        Self { folder, root }
    }

    /// Runs guestseal on the tree, which must leave nothing on the host.
    #[track_caller]
    fn guestseal(&self, words: &str) -> Ran {
        let words = words.split_whitespace().map(PathBuf::from);
        let ran = run(GUESTSEAL, words.chain(["--tree".into(), self.root.clone()]));
        nothing_left(self.folder.path(), Duration::ZERO);
        ran
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn record(&self) -> PathBuf {
        self.folder.path().join("tree.seal.json")
    }

    /// All that can be seen of the tree and of what is beside it, times of change included.
    fn print(&self) -> String {
        let folder = self.folder.path().display();
        shell(&format!(
            "cd {folder}; find . -printf '%P %y %m %U %G %s %l %T@ %C@\\n' | LC_ALL=C sort; \
             find . -type f -exec sha256sum {{}} + | LC_ALL=C sort"
        ))
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // Attacks leave immutable files.
        run("chattr", [Path::new("-R"), Path::new("-ia"), &self.root]);
    }
}

/// The tree, made once in a run.
fn made(name: &str) -> PathBuf {
    static TREES: [OnceLock<TempDir>; 2] = [const { OnceLock::new() }; 2];
    let index = ["alpine", "fedora"].iter().position(|known| *known == name).unwrap();
    let folder = TREES[index].get_or_init(|| {
        let folder = TempDir::new_in("/var/tmp").unwrap();
        guests::tree(name, folder.path());
        folder
    });
    folder.path().join("tree")
}

fn ready() -> bool {
    require(nix::unistd::geteuid().is_root(), "needs root")
        && ["python3", "ssh-keygen", "chattr"]
            .iter()
            .all(|tool| require(common::on_path(tool), &format!("needs {tool}")))
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_tree_is_sealed_verified_and_sealed_again() {
    if !ready() {
        return;
    }
    for name in ["alpine", "fedora"] {
        let tree = Tree::new(name);
        let before = tree.print();
        for words in ["inspect", "seal --dry-run", "--dry-run --operations defaults,user-account"] {
            tree.guestseal(words).expect(0);
            assert_eq!(tree.print(), before, "{name}: {words} changed something");
        }
        let looked = tree.guestseal("inspect --json").result();
        assert_eq!(looked["guest"]["os"]["id"], name);

        let sealed = tree.guestseal("seal --json --hostname sealed").expect(0);
        let report = sealed.result();
        assert_eq!(fs::read_to_string(tree.at("/etc/hostname")).unwrap().trim(), "sealed");
        assert_eq!(report["erasure"]["policy"], "none");
        let list = tree_canaries(name);
        assert!(list.len() > 50, "{name} has hardly any secrets");
        let left: Vec<_> = list.iter().filter(|marker| holds(&tree.root, marker)).collect();
        assert!(left.is_empty(), "{name} still has {left:?}");

        let record = json(&tree.record());
        let digest = &record["subject"][0]["digest"]["guestsealTree1"];
        assert_eq!(record["subject"][0]["name"], "tree");
        assert_eq!(digest, &report["digest"]);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tree/listing.py");
        let other = tool("python3", [script.as_path(), &tree.root]);
        assert_eq!(
            digest.as_str().unwrap(),
            other.trim(),
            "{name}: the form is not that of the documentation"
        );
        let predicate = &record["predicate"];
        assert_eq!((&predicate["attached"], &predicate["commit"]["mode"]), (&"tree".into(), &"tree".into()));
        assert!(predicate["erasure"]["notes"][0].as_str().unwrap().contains("read back"), "{predicate:#}");

        tree.guestseal("verify").expect(0);
        let after = shell(&format!("find {} -printf '%P %y %m %U %G %s %T@ %C@ %i\\n'", tree.root.display()));
        let again = tree.guestseal("seal --json --hostname sealed").expect(0).result();
        let outcomes = again["operations"].as_array().unwrap();
        assert!(outcomes.iter().all(|operation| operation["outcome"] != "changed"), "{outcomes:#?}");
        let now = shell(&format!("find {} -printf '%P %y %m %U %G %s %T@ %C@ %i\\n'", tree.root.display()));
        assert_eq!(after, now, "{name}: the second run changed something");
        tree.guestseal("verify").expect(0);
    }
}

/// Markers of the secrets that go by default, other than log lines, of which there are thousands.
fn tree_canaries(name: &str) -> Vec<String> {
    let list = fs::read_to_string(made(name).with_extension("canaries")).unwrap();
    let fields = list.lines().map(|line| line.split('\t').collect::<Vec<_>>());
    let wanted = fields.filter(|fields| {
        // Users' crontabs are part of many templates, and an initiator name goes only where a new one is made.
        fields[2] == "default"
            && fields[3] != "-"
            && !["log-line", "cron-spool", "iscsi"].contains(&fields[1])
    });
    wanted.map(|fields| fields[0].to_owned()).collect()
}

fn holds(root: &Path, marker: &str) -> bool {
    run("grep", [Path::new("-rqaFw"), Path::new(marker), root]).code == 0
}

#[test]
fn verify_finds_what_changed_since() {
    if !ready() {
        return;
    }
    let changes: [(&str, &str, &str); 6] = [
        ("", "touch usr/new", "digest"),
        ("", "chmod 700 usr/bin", "digest"),
        ("", "setfattr -n user.x -v y usr/bin/bash", "digest"),
        ("", "ln -sfn /elsewhere etc/localtime", "digest"),
        ("", "mv etc/hosts etc/hosts2", "digest"),
        ("--digest none", "echo ls >root/.bash_history", ".bash_history"),
    ];
    for (words, change, found) in changes {
        let tree = Tree::new("alpine");
        tree.guestseal(&format!("seal {words}")).expect(0);
        tree.guestseal("verify").expect(0);
        shell(&format!("cd {}; {change}", tree.root.display()));
        let ran = tree.guestseal("verify").expect(5);
        assert!(ran.stdout.contains(found) || ran.stderr.contains(found), "{change}: {ran:#?}");
        assert!(ran.stdout.contains("not sealed any more"), "{change}: {ran:#?}");
    }
    // A time of change is no content.
    let tree = Tree::new("alpine");
    tree.guestseal("seal").expect(0);
    shell(&format!("touch {}/etc/hosts", tree.root.display()));
    tree.guestseal("verify").expect(0);
    fs::remove_file(tree.record()).unwrap();
    tree.guestseal("verify").expect(1).says(&["cannot read the record"]);
}

/// What a builder has mounted in its tree is neither entered nor lost, and is named.
#[test]
fn what_is_mounted_below_is_left_alone_and_named() {
    if !ready() {
        return;
    }
    let tree = Tree::new("alpine");
    // In the namespace of a shell: the mounts of this process stay as they are.
    let line = format!(
        "root={}; mkdir $root/tmp/dir $root/tmp/plain
         for point in proc tmp/dir var/cache; do mount -t tmpfs none $root/$point; echo $point >$root/$point/file; done
         {GUESTSEAL} seal --tree $root 2>&1; {GUESTSEAL} verify --tree $root 2>&1
         for point in proc tmp/dir var/cache; do mountpoint -q $root/$point; cat $root/$point/file; done",
        tree.root.display()
    );
    let ran = tool("unshare", ["-m", "bash", "-euc", &line]);
    for point in ["proc", "tmp/dir", "var/cache"] {
        let name = format!("something is mounted at {}:", tree.at(point).display());
        assert_eq!(ran.matches(&name).count(), 2, "{point}: {ran}");
    }
    assert!(!tree.at("tmp/plain").exists() && tree.at("tmp/dir").exists(), "{ran}");
    assert!(ran.ends_with("proc\ntmp/dir\nvar/cache\n"), "{ran}");
}

#[cfg(feature = "fault-points")]
#[test]
fn a_failure_half_way_says_so_and_one_before_changes_nothing() {
    if !ready() {
        return;
    }
    for (point, half) in
        [("mounted", false), ("first-operation", true), ("applied", true), ("record-written", true)]
    {
        let tree = Tree::new("alpine");
        let before = tree.print();
        let mut seal = common::command(GUESTSEAL);
        seal.env("GUESTSEAL_FAULT", format!("{point}=fail")).args(["seal", "--tree"]).arg(&tree.root);
        let ran = common::finish(seal).expect(1);
        assert_eq!(ran.stderr.contains("may be half edited"), half, "{point}: {ran:#?}");
        assert_eq!(ran.stderr.contains("--tree undoes nothing"), half, "{point}: {ran:#?}");
        assert!(!tree.record().exists(), "{point} left a record");
        if !half {
            assert_eq!(tree.print(), before, "{point}");
        }
        nothing_left(tree.folder.path(), Duration::ZERO);
        tree.guestseal("seal").expect(0);
        tree.guestseal("verify").expect(0);
    }
}
