//! The worker that edits a guest: confined, gone after every run, and its death is no loss. Scripts of the host run while
//! the worker waits for them, so they are where it can be looked at and killed.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use guestseal::sys::confine::Confinement;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::common::{GUESTSEAL, command, finish, ready, shell};
use crate::guests::guest;
use crate::leftovers::nothing_left;
use crate::stage::Stage;

const PATIENCE: Duration = Duration::from_secs(20);
/// Finds the worker from within a script: the other child of guestseal, by its one argument.
const FIND: &str = r#"
for dir in /proc/[0-9]*; do
    line=$(tr '\0' ' ' 2>/dev/null <"$dir/cmdline") || continue
    parent=$(sed -n 's/^PPid:\t//p' "$dir/status" 2>/dev/null) || continue
    [ "$line" != '/proc/self/exe --guestseal-worker ' ] || [ "$parent" != "$PPID" ] || worker=${dir#/proc/}
done
[ -n "$worker" ] || exit 9
"#;

/// An operation that runs a script, in the middle of others.
const OPERATION: &str = r#"
name = "middle"
summary = "s"
reason = "r"
default = false
order = 50
[parameters.scripts]
summary = "s"
kind = "list"
required = true
[[action]]
[action.script]
"#;

/// The words of a run that removes files, runs this script, and would go on.
fn script(stage: &Stage, body: &str) -> String {
    let out = stage.path("out").display().to_string();
    let text = format!("#!/bin/bash\nout='{out}'\n{FIND}\necho $worker >\"$out.pid\"\n{body}\n");
    let script = stage.write("script.sh", 0o755, &text);
    let _ = fs::create_dir(stage.path("operations"));
    stage.write("operations/middle.toml", 0o644, OPERATION);
    stage.write("out.pid", 0o644, "");
    format!(
        "seal --digest none --operations-dir {} --enable logfiles,middle,machine-id --set middle.scripts={}",
        stage.path("operations").display(),
        script.display()
    )
}

fn stage() -> Stage {
    Stage::convert(&guest("arch").image, "qcow2", &[])
}

fn worker_of(stage: &Stage) -> String {
    fs::read_to_string(stage.path("out.pid")).unwrap().trim().to_owned()
}

#[track_caller]
fn gone(pid: &str) {
    let deadline = Instant::now() + PATIENCE;
    let is_worker = || {
        fs::read(Path::new("/proc").join(pid).join("cmdline"))
            .is_ok_and(|line| line.ends_with(b"--guestseal-worker\0"))
    };
    while is_worker() {
        assert!(Instant::now() < deadline, "the worker {pid} is still there");
        std::thread::yield_now();
    }
}

#[test]
fn it_is_confined_while_it_works_and_gone_afterwards() {
    if !ready() {
        return;
    }
    let stage = stage();
    let words = script(
        &stage,
        "cat /proc/$worker/status >\"$out\"; ls -l /proc/$worker/fd /proc/$worker/cwd >>\"$out\"; pwd >>\"$out\"; touch by-script",
    );
    let report = stage.guestseal(&format!("{words} --json")).expect(0).result();
    gone(&worker_of(&stage));
    nothing_left(stage.folder(), Duration::ZERO);
    let text = fs::read_to_string(stage.path("out")).unwrap();
    let status: BTreeMap<_, _> = text.lines().filter_map(|line| line.split_once(":\t")).collect();
    // CHOWN, DAC_OVERRIDE, FOWNER, FSETID, LINUX_IMMUTABLE, SYS_ADMIN, SETFCAP, MAC_ADMIN.
    let caps = "000000028020021b";
    for (key, value) in [
        ("CapEff", caps),
        ("CapPrm", caps),
        ("CapBnd", caps),
        ("CapInh", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("Threads", "1"),
    ] {
        assert_eq!(status.get(key), Some(&value), "{key} in\n{text}");
    }
    assert!(text.contains("/proc/") && text.contains("cwd -> /run/guestseal/root"), "{text}");
    let confinement: Confinement = serde_json::from_value(report["confinement"].clone()).unwrap();
    assert!(confinement.seccomp && confinement.landlock.is_some(), "{confinement:?}");
    assert_eq!(confinement.capabilities.len(), 8);
    let record = fs::read_to_string(format!("{}.seal.json", stage.image.display())).unwrap();
    let record: serde_json::Value = serde_json::from_str(&record).unwrap();
    assert_eq!(record["predicate"]["confinement"], report["confinement"]);
    let seen = stage.guestseal("inspect --json --enable machine-id").expect(0).result();
    assert_eq!(seen["confinement"], report["confinement"]);
}

#[test]
fn a_worker_that_is_killed_fails_the_run_and_changes_nothing() {
    if !ready() {
        return;
    }
    let stage = stage();
    for signal in ["KILL", "TERM"] {
        let words = script(&stage, &format!("kill -{signal} $worker"));
        let ran = stage.unchanged_by(&words, 1);
        ran.says(&["the worker that edits the guest failed", &format!("SIG{signal}")]);
        gone(&worker_of(&stage));
    }
}

#[test]
fn the_worker_dies_with_guestseal() {
    if !ready() {
        return;
    }
    let stage = stage();
    // Stopped, it cannot end by itself: only the kernel's signal at its parent's death ends it.
    let words = script(&stage, "kill -STOP $worker; kill -KILL $PPID; sleep 100");
    let before = crate::common::fingerprint(&stage.image);
    let mut run = command(GUESTSEAL);
    run.args(words.split_whitespace()).arg(&stage.image).stdout(Stdio::null()).stderr(Stdio::null());
    let status = run.status().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9), "{status}");
    gone(&worker_of(&stage));
    nothing_left(stage.folder(), PATIENCE);
    assert_eq!(crate::common::fingerprint(&stage.image), before);
}

#[test]
fn errors_of_the_worker_and_of_scripts_are_told_as_they_are() {
    if !ready() {
        return;
    }
    let stage = stage();
    let words = script(&stage, "echo because of this >&2; exit 3");
    stage.unchanged_by(&words, 1).says(&["the operation middle failed", "exit status: 3", "because of this"]);
    gone(&worker_of(&stage));
    stage.unchanged_by("seal --enable timezone --timezone No/Where", 2).says(&[
        "the operation timezone failed: the guest has no time zone",
        "what to do: its zones are below",
    ]);
}

#[test]
fn changes_are_traced_as_they_happen() {
    if !ready() {
        return;
    }
    let stage = stage();
    let words = script(&stage, "exit 3");
    let ran = stage.unchanged_by(&format!("{words} --trace"), 1);
    // Whatever came before the failure is told, each change and each finished operation.
    let changes = ran.stderr.lines().filter(|line| line.starts_with("  service-logs: ")).count();
    assert!(changes > 0, "{ran:#?}");
    assert!(ran.stdout.lines().any(|line| line.starts_with("  service-logs ")), "{ran:#?}");
    assert!(!ran.stdout.contains("  machine-id"), "it comes after the script\n{ran:#?}");
}

/// Runs on a kernel without Landlock as far as guestseal can tell: its system calls do not exist.
#[test]
fn a_kernel_without_landlock_is_told() {
    if !ready() {
        return;
    }
    let stage = stage();
    let image = stage.image.clone();
    let run = std::thread::spawn(move || {
        // landlock_create_ruleset, landlock_add_rule, landlock_restrict_self.
        let rules = (444..=446).map(|call| (call, Vec::new())).collect();
        let missing = SeccompAction::Errno(nix::libc::ENOSYS.unsigned_abs());
        let machine = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, missing, machine).unwrap();
        // For this thread and what it starts.
        seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
        let mut guestseal = command(GUESTSEAL);
        guestseal.args(["seal", "--json", "--digest", "none", "--enable", "machine-id"]).arg(image);
        finish(guestseal)
    });
    let ran = run.join().unwrap().expect(0);
    ran.says(&["warning: this host's kernel has no Landlock"]);
    let confinement = ran.result()["confinement"].clone();
    assert!(confinement["landlock"].is_null() && confinement["seccomp"] == true, "{confinement}");
}

#[test]
fn nobody_starts_a_worker_by_accident() {
    let ran = shell(&format!(
        "cd /; for input in /dev/null /etc/passwd; do '{GUESTSEAL}' --guestseal-worker <$input | tr '\\0' ' '; echo; done"
    ));
    assert_eq!(ran.matches("the parent is not understood").count(), 2, "{ran}");
    for words in [&["--help"][..], &["completions", "bash"], &["completions", "zsh"], &["man"]] {
        let mut run = command(GUESTSEAL);
        run.args(words);
        assert!(!finish(run).expect(0).stdout.contains("worker"), "{words:?}");
    }
    let mut run = command(GUESTSEAL);
    run.args(["--guestseal-worker", "image"]);
    finish(run).expect(2).says(&["unexpected argument"]);
}
