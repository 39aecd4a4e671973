//! Hostile trees: the attacks of tests/hostile that need no disk of their own, in a folder of this host.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::common::{GUESTSEAL, on_path, require, run, tool};
use crate::host::Canary;
use crate::leftovers::nothing_left;
use crate::{Tree, ready};

/// What a script does in the tree, as in tests/hostile.
const LINE: &str = "shopt -s dotglob nullglob; . \"$1\"; cd \"$2\"; HOST=$3 SCRATCH=$5 UP=../../../../../../../../../../..; \
    fail() { echo \"$*\" >&2; exit 1; }; if declare -F \"$4\" >/dev/null; then \"$4\" \"$6\"; fi";

/// Script, its word, and the exit code of sealing.
const ATTACKS: [(&str, &str, i32); 16] = [
    ("links-absolute", "", 0),
    ("links-upwards", "", 0),
    ("links-accounts", "", 0),
    ("links-chain", "", 0),
    ("links-etc", "", 6),
    ("links-folders", "absolute", 0),
    ("links-folders", "upwards", 0),
    ("links-homes", "", 0),
    ("links-magic", "", 0),
    ("links-proc-in-guest", "", 0),
    ("links-shadow", "host", 6),
    ("links-whole-folders", "home", 0),
    ("fifos", "fifo", 0),
    ("fifos", "zero", 0),
    ("names", "", 0),
    ("path-max", "", 0),
];

#[test]
fn a_hostile_tree_reaches_nothing_of_the_host() {
    let tools = ["setfacl", "getfattr"];
    if !ready() || !tools.iter().all(|tool| require(on_path(tool), &format!("needs {tool}"))) {
        return;
    }
    for (name, word, exit) in ATTACKS {
        let what = format!("{name} {word}");
        let tree = Tree::new("alpine");
        let mut canary = Canary::new();
        let scratch = tempfile::tempdir_in("/var/tmp").unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/hostile/trees/{name}.sh"));
        let call = |function: &str, canary: &Canary| {
            let paths = [
                script.as_path(),
                &tree.root,
                canary.path(),
                Path::new(function),
                scratch.path(),
                Path::new(word),
            ];
            let head = ["-euo", "pipefail", "-c", LINE, "attack"].map(Path::new);
            tool("bash", head.into_iter().chain(paths));
        };
        call("attack", &canary);
        let password = scratch.path().join("password");
        fs::write(&password, "correct horse battery staple\n").unwrap();
        canary.watch();
        let words = "seal --hostname sealed --timezone Europe/Berlin --operations defaults,user-account --root-password";
        let mut words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
        words.extend([
            format!("file:{}", password.display()).into(),
            "--tree".into(),
            tree.root.clone().into(),
        ]);
        let sealed = run(GUESTSEAL, &words);
        canary.is_untouched(&what);
        assert_eq!(sealed.code, exit, "{what}: {sealed:#?}");
        assert!(!sealed.stdout.contains(&canary.marker) && !sealed.stderr.contains(&canary.marker), "{what}");
        if exit == 0 {
            tree.guestseal("verify").expect(0);
            canary.is_untouched(&what);
            call("check", &canary);
        } else {
            assert!(!tree.record().exists(), "{what} left a record");
        }
        nothing_left(tree.folder.path(), Duration::ZERO);
    }
}
