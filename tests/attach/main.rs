//! Sealing through each way of attaching that this kernel has: one image, ten at once, and a server that is killed in
//! the middle. Needs root. nbd is tested where the kernel has it: scripts/vm-run gives it one that does.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test drives the program from outside")]

mod data;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts");

fn guestseal(arguments: &[&str], image: &Path) -> Output {
    let mut command = Command::new("timeout");
    command.args(["120", env!("CARGO_BIN_EXE_guestseal")]).args(arguments).arg(image);
    command.stdin(Stdio::null()).output().unwrap()
}

fn shown(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n--- stdout\n{}\n--- stderr\n{}", output.status, text(&output.stdout), text(&output.stderr))
}

/// The ways to test here: nbd in a virtual machine that has it (`GUESTSEAL_TEST_NBD`), FUSE everywhere else.
fn ways() -> [&'static str; 1] {
    assert!(nix::unistd::geteuid().is_root(), "attaching needs root");
    [if std::env::var_os("GUESTSEAL_TEST_NBD").is_some() { "nbd" } else { "fuse" }]
}

/// What is left of a run cannot be told from what another one uses: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A small guest; in a virtual machine, which cannot make one, it is named.
fn original() -> PathBuf {
    if let Some(path) = std::env::var_os("GUESTSEAL_TEST_GUEST") {
        return path.into();
    }
    let made = Command::new(format!("{SCRIPTS}/make-guest")).arg("alpine").output().unwrap();
    assert!(made.status.success(), "{}", shown(&made));
    String::from_utf8(made.stdout).unwrap().trim().into()
}

/// Copies of a small guest as qcow2, in a folder of their own.
fn guests(count: usize) -> (tempfile::TempDir, Vec<PathBuf>) {
    let folder = tempfile::Builder::new().prefix("guestseal-attach-").tempdir().unwrap();
    let original = original();
    let paths: Vec<PathBuf> =
        (0..count).map(|number| folder.path().join(format!("guest{number}.qcow2"))).collect();
    let (first, others) = paths.split_first().unwrap();
    let converted = Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "qcow2"])
        .arg(&original)
        .arg(first)
        .output();
    assert!(converted.as_ref().unwrap().status.success(), "{}", shown(&converted.unwrap()));
    others.iter().for_each(|path| assert!(fs::copy(first, path).unwrap() > 0));
    (folder, paths)
}

/// What a run must not leave: loop devices over its disks, servers, devices.
fn nothing_is_left(folder: &Path) {
    let loops = Command::new("losetup").arg("--all").output().unwrap();
    assert!(!String::from_utf8_lossy(&loops.stdout).contains("guestseal"), "{}", shown(&loops));
    let servers = Command::new("pgrep").args(["-f", "--", &folder.display().to_string()]).output().unwrap();
    assert!(servers.stdout.is_empty(), "servers are left: {}", shown(&servers));
    for name in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
        assert!(!name.starts_with(".guestseal") && !name.contains("overlay"), "{name} is left");
    }
}

#[test]
fn each_way_seals_and_says_so() {
    let _alone = alone();
    for way in ways() {
        let (folder, images) = guests(1);
        let sealed = guestseal(&["seal", "--attach", way], &images[0]);
        assert!(sealed.status.success(), "{way}: {}", shown(&sealed));
        let record = fs::read_to_string(folder.path().join("guest0.qcow2.seal.json")).unwrap();
        assert!(record.contains(&format!("\"attached\": \"{way}\"")), "{record}");
        let verified = guestseal(&["verify", "--attach", way], &images[0]);
        assert!(verified.status.success(), "{way}: {}", shown(&verified));
        nothing_is_left(folder.path());
    }
}

#[test]
fn ten_at_once_do_not_meet() {
    let _alone = alone();
    for way in ways() {
        let (folder, images) = guests(10);
        let start = |image: &PathBuf| {
            let mut command = Command::new("timeout");
            command.args(["300", env!("CARGO_BIN_EXE_guestseal"), "seal", "-q", "--attach", way]).arg(image);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let runs: Vec<_> = images.iter().map(start).collect();
        for run in runs {
            let output = run.wait_with_output().unwrap();
            assert!(output.status.success(), "{way}: {}", shown(&output));
        }
        let verified = guestseal(&["verify", "--attach", way], &images[9]);
        assert!(verified.status.success(), "{way}: {}", shown(&verified));
        nothing_is_left(folder.path());
    }
}

#[test]
fn a_server_that_is_killed_costs_nothing_but_the_run() {
    let _alone = alone();
    for way in ways() {
        let (folder, images) = guests(1);
        let before = fs::read(&images[0]).unwrap();
        let script = folder.path().join("kill-the-server");
        // The script's parent is guestseal, and the server is a child of the same.
        fs::write(&script, "#!/bin/sh\nfor server in $(pgrep -P $PPID qemu); do kill -9 $server; done\n")
            .unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&script, mode).unwrap();
        let run = guestseal(&["seal", "--attach", way, "--script", script.to_str().unwrap()], &images[0]);
        assert_eq!(run.status.code(), Some(1), "{way}: {}", shown(&run));
        assert!(fs::read(&images[0]).unwrap() == before, "{way}: the image changed");
        nothing_is_left(folder.path());
        let again = guestseal(&["seal", "--attach", way], &images[0]);
        assert!(again.status.success(), "{way}: {}", shown(&again));
    }
}
