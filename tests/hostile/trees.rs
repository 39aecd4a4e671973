//! The corpus of hostile trees: every script in `trees/` changes a real guest, which is then sealed end to end with the
//! default operations and all that edit. A script's head says what it attacks and what must come of it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::bases::base;
use crate::common::{ready, require, tool};
use crate::host::Canary;
use crate::leftovers::{no_loops, nothing_of};
use crate::measured::{Measured, guestseal};
use crate::mounts::{check_filesystems, in_private_mounts};
use crate::stage::Stage;

/// What a terminal would act on.
const HARMFUL: [char; 4] = ['\u{1b}', '\u{9b}', '\u{7}', '\u{202e}'];

/// How many attacks run side by side.
const WORKERS: usize = 3;

/// btrfs knows a filesystem by its UUID: two copies of one guest cannot be mounted at a time.
static BTRFS: Mutex<()> = Mutex::new(());

/// One attack: a script, and what its head says.
#[derive(Debug, Clone)]
struct Attack {
    script: PathBuf,
    name: String,
    /// ext4, xfs, btrfs or disk.
    guest: String,
    /// The script runs once for each of these words.
    each: Vec<String>,
    exit: i32,
    verify: i32,
    says: Vec<String>,
    /// The most MiB of memory.
    memory: u64,
    /// The most seconds.
    seconds: u64,
    /// More options for `seal`.
    options: Vec<String>,
}

impl Attack {
    fn read(script: &Path) -> Self {
        let text = fs::read_to_string(script).unwrap();
        let name = script.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(text.starts_with("# Attacks: "), "{name} does not say what it attacks");
        let head: Vec<(&str, &str)> = text
            .lines()
            .take_while(|line| line.starts_with('#'))
            .filter_map(|line| line.trim_start_matches("# ").split_once(": "))
            .collect();
        let known = ["Attacks", "Guest", "Each", "Exit", "Verify", "Says", "Memory", "Seconds", "Options"];
        for (key, _) in &head {
            assert!(known.contains(key) || key.contains(' '), "{name}: what is {key:?}?");
        }
        let value = |key: &str| head.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
        let words =
            |key: &str| value(key).unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        let number = |key: &str, other: u64| value(key).map_or(other, |value| value.parse().unwrap());
        let mut each: Vec<String> = words("Each");
        if each.is_empty() {
            each.push(String::new());
        }
        Self {
            script: script.to_path_buf(),
            guest: value("Guest").unwrap_or("ext4").to_owned(),
            each,
            exit: i32::try_from(number("Exit", 0)).unwrap(),
            verify: i32::try_from(number("Verify", 0)).unwrap(),
            says: head
                .iter()
                .filter(|(key, _)| *key == "Says")
                .map(|(_, value)| (*value).to_owned())
                .collect(),
            memory: number("Memory", 100),
            seconds: number("Seconds", 100),
            options: words("Options"),
            name,
        }
    }

    /// Runs a function of the script in the guest's root.
    fn call(&self, function: &str, word: &str, image: &Path, canary: &Canary, scratch: &Path) {
        in_private_mounts(|| {
            let folder = tempfile::tempdir_in("/var/tmp").unwrap();
            let offset =
                if self.guest == "disk" { "loop,offset=1048576,sizelimit=134217728" } else { "loop" };
            let kind = if self.guest == "disk" { "ext4" } else { &self.guest };
            // Copies of one filesystem are mounted at the same time.
            let again = if kind == "xfs" { ",nouuid" } else { "" };
            let access = if function == "check" { "ro," } else { "" };
            let options = format!("{access}{offset}{again}");
            tool(
                "mount",
                [
                    Path::new("-t"),
                    Path::new(kind),
                    Path::new("-o"),
                    Path::new(&options),
                    image,
                    folder.path(),
                ],
            );
            let line = "exec 3<&-; shopt -s dotglob nullglob; . \"$1\"; cd \"$2\"; HOST=$3 SCRATCH=$5 UP=../../../../../../../../../../..; \
                 fail() { echo \"$*\" >&2; exit 1; }; has() { declare -F \"$1\" >/dev/null; }; \
                 if has \"$4\"; then \"$4\" \"$6\"; fi";
            let args = ["-euo", "pipefail", "-c", line, "attack"].map(PathBuf::from).into_iter();
            let paths =
                [&self.script, &folder.path().to_path_buf(), &canary.path().to_path_buf()].map(Clone::clone);
            tool("bash", args.chain(paths).chain([function.into(), scratch.into(), word.into()]));
            tool("umount", [folder.path()]);
        });
    }

    /// Puts the attack into a guest and seals that; what came of it must be what the head of the script says.
    fn run(&self, word: &str) -> Measured {
        let _one = (self.guest == "btrfs").then(|| BTRFS.lock().unwrap_or_else(PoisonError::into_inner));
        let stage = Stage::new("guest.raw");
        let scratch = tempfile::tempdir_in("/var/tmp").unwrap();
        let what = format!("{} {word}", self.name);
        base(&self.guest, &stage.image);
        let mut canary = Canary::new();
        self.call("attack", word, &stage.image, &canary, scratch.path());
        let password = scratch.path().join("password");
        fs::write(&password, "correct horse battery staple\n").unwrap();
        let before = stage.print();
        canary.watch();
        let look =
            guestseal(&["inspect".into(), "--json".into()], &stage.image, self.seconds, scratch.path());
        let looked = [0, 6, 1].contains(&look.ran.code) && (self.exit != 0 || look.ran.code == 0);
        assert!(looked, "{what}: {look:#?}");
        assert_eq!(stage.print(), before, "{what}: looking changed something");
        let mut words: Vec<OsString> = "seal --digest none --hostname sealed --timezone Europe/Berlin --operations defaults,user-account --root-password"
            .split(' ')
            .map(OsString::from)
            .collect();
        words.push(format!("file:{}", password.display()).into());
        words.extend(self.options.iter().map(OsString::from));
        if self.name.starts_with("names") {
            let text = guestseal(&["inspect".into()], &stage.image, self.seconds, scratch.path());
            assert!(
                !text.ran.stdout.contains(HARMFUL) && !text.ran.stderr.contains(HARMFUL),
                "{what}: {text:?}"
            );
        }
        let sealed = guestseal(&words, &stage.image, self.seconds, scratch.path());
        canary.is_untouched(&what);
        assert_eq!(sealed.ran.code, self.exit, "{what}: {sealed:#?}");
        let says: Vec<&str> = self.says.iter().map(String::as_str).collect();
        sealed.ran.says(&says);
        assert!(
            sealed.mib <= self.memory && look.mib <= self.memory,
            "{what}: {} and {} MiB of memory",
            look.mib,
            sealed.mib
        );
        assert!(
            !sealed.ran.stdout.contains(HARMFUL) && !sealed.ran.stderr.contains(HARMFUL),
            "{what}: {sealed:?}"
        );
        assert!(!sealed.ran.stderr.contains("\nerror: forged"), "{what}: {sealed:?}");
        let leaks = [&look.ran, &sealed.ran]
            .iter()
            .any(|ran| ran.stdout.contains(&canary.marker) || ran.stderr.contains(&canary.marker));
        assert!(!leaks, "{what}: a file of the host was shown\n{look:#?}\n{sealed:#?}");
        if self.exit == 0 {
            self.is_sealed(word, &stage, &canary, scratch.path(), &look);
        } else {
            assert!(sealed.ran.stderr.contains("what to do"), "{what}: {sealed:#?}");
            assert_eq!(stage.print(), before, "{what}");
        }
        nothing_of(stage.folder(), Duration::ZERO);
        sealed
    }

    fn is_sealed(&self, word: &str, stage: &Stage, canary: &Canary, scratch: &Path, look: &Measured) {
        let verified = guestseal(&["verify".into()], &stage.image, self.seconds, scratch);
        assert_eq!(verified.ran.code, self.verify, "{} {word}: {verified:#?}", self.name);
        canary.is_untouched(&self.name);
        check_filesystems(&stage.image, &look.ran.result()["inspection"]);
        assert!(!has_marker(&stage.image, &canary.marker), "{} {word}: it has a file of the host", self.name);
        self.call("check", word, &stage.image, canary, scratch);
    }
}

/// Whether the bytes are anywhere in the image; holes are skipped by grep.
fn has_marker(image: &Path, marker: &str) -> bool {
    crate::common::run("grep", [Path::new("-qaF"), Path::new(marker), image]).code == 0
}

fn attacks() -> Vec<Attack> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile/trees");
    let mut scripts: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.sort();
    scripts.iter().map(|script| Attack::read(script)).collect()
}

/// One attack alone, while it is worked on.
#[expect(clippy::disallowed_methods, reason = "a switch for whoever works on one attack")]
fn wanted() -> Option<String> {
    std::env::var("GUESTSEAL_ATTACK").ok()
}

/// All but those whose names begin with `many-`, or only those.
fn all(many: bool) {
    let tools = ["python3", "getfattr", "setfacl", "chattr"];
    if !ready() || !tools.iter().all(|tool| require(crate::common::on_path(tool), &format!("needs {tool}"))) {
        return;
    }
    let wanted = wanted();
    let cases: Vec<(Attack, String)> = attacks()
        .into_iter()
        .filter(|attack| attack.name.starts_with("many-") == many)
        .filter(|attack| wanted.as_ref().is_none_or(|name| *name == attack.name))
        .flat_map(|attack| attack.each.clone().into_iter().map(move |word| (attack.clone(), word)))
        .collect();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let worker = || {
        while let Some((attack, word)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let name = format!("{} {word}", attack.name);
            match std::panic::catch_unwind(|| attack.run(word)) {
                Ok(run) => println!(
                    "{name:<44} exit {} after {:.2} s with {} MiB",
                    run.ran.code,
                    run.took.as_secs_f32(),
                    run.mib
                ),
                Err(_) => failed.lock().unwrap().push(name),
            }
        }
    };
    std::thread::scope(|scope| (0..WORKERS).for_each(|_| drop(scope.spawn(worker))));
    let failed = failed.into_inner().unwrap();
    println!("{} attacks on guests", cases.len());
    no_loops();
    assert!(failed.is_empty(), "{} attacks had their way: {failed:#?}", failed.len());
}

#[test]
fn every_tree_is_sealed_or_refused() {
    all(false);
}

#[test]
fn trees_of_great_size_are_sealed_or_refused() {
    all(true);
}
