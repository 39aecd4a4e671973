//! Killed at any moment, guestseal leaves nothing on the host, and the image is what it was or one command from sealed.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::common::{GUESTSEAL, command, fingerprint, ready};
use crate::formats::is_sealed;
use crate::guests::guest;
use crate::leftovers::nothing_left;
use crate::stage::Stage;

/// How long the kernel may take to clean up behind a killed run.
const PATIENCE: Duration = Duration::from_secs(20);

fn start(stage: &Stage) -> Child {
    let mut run = command(GUESTSEAL);
    run.args(["seal", "--quiet"]).arg(&stage.image).stdout(Stdio::null()).stderr(Stdio::null());
    run.spawn().unwrap()
}

#[expect(clippy::disallowed_methods, reason = "a kill at a random moment has no event to wait for")]
fn wait(time: Duration) {
    std::thread::sleep(time);
}

/// What a kill left: the image as it was, or sealed after `recover`.
fn whole_or_recoverable(stage: &Stage, before: &str, format: &str) -> &'static str {
    let journal = journal(stage);
    let state = if journal.exists() {
        stage.guestseal("seal").expect(4).says(&["interrupted", "what to do", "guestseal recover"]);
        stage.guestseal("recover").expect(0);
        assert!(!journal.exists());
        "recovered"
    } else if fingerprint(&stage.image) == before {
        return "unchanged";
    } else {
        "sealed"
    };
    let report = stage.guestseal("inspect --json").expect(0).result();
    for operation in report["operations"].as_array().unwrap() {
        assert_ne!(operation["outcome"], "changed", "{state}: {operation:#}");
    }
    is_sealed(&stage.image, format, &report["inspection"]);
    assert!(stage.guestseal("recover").expect(0).stdout.contains("nothing to recover"));
    state
}

fn journal(stage: &Stage) -> PathBuf {
    let name = stage.image.file_name().unwrap().to_str().unwrap();
    stage.path(&format!(".{name}.guestseal-journal"))
}

#[test]
fn killed_at_ten_moments() {
    if !ready() {
        return;
    }
    let original = Stage::convert(&guest("arch").image, "qcow2", &[]);
    let trial = Stage::copy(&original.image);
    let began = Instant::now();
    assert!(start(&trial).wait().unwrap().success());
    let whole = began.elapsed();
    let mut states = Vec::new();
    for tenth in 0..10_u32 {
        let stage = Stage::copy(&original.image);
        let before = fingerprint(&stage.image);
        let mut run = start(&stage);
        let [jitter] = getrandom_byte();
        wait(whole * tenth / 10 + whole * u32::from(jitter) / 2560);
        run.kill().unwrap();
        run.wait().unwrap();
        nothing_left(stage.folder(), PATIENCE);
        states.push(whole_or_recoverable(&stage, &before, "qcow2"));
        let named = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("guest.qcow2");
        let stray: Vec<_> = stage.print().names.into_iter().filter(|name| !named(name)).collect();
        // An overlay whose journal is gone goes with the next run.
        assert!(stray.iter().all(|name| name == ".guest.qcow2.guestseal-overlay"), "{stray:?}");
    }
    println!("a run of {whole:?} killed at ten moments: {states:?}");
    assert!(states.contains(&"unchanged"), "no kill came before the commit: {states:?}");
}

fn getrandom_byte() -> [u8; 1] {
    let mut byte = [0];
    getrandom::fill(&mut byte).unwrap();
    byte
}

/// The commit is short, so it is caught by the journal that stands while it runs.
#[test]
fn killed_in_the_commit() {
    if !ready() {
        return;
    }
    for format in ["qcow2", "raw"] {
        let original = Stage::convert(&guest("arch").image, format, &[]);
        let caught = (0..10).any(|_| {
            let stage = Stage::copy(&original.image);
            let before = fingerprint(&stage.image);
            let mut run = start(&stage);
            let journal = journal(&stage);
            while run.try_wait().unwrap().is_none() && fs::symlink_metadata(&journal).is_err() {
                std::thread::yield_now();
            }
            run.kill().unwrap();
            run.wait().unwrap();
            nothing_left(stage.folder(), PATIENCE);
            whole_or_recoverable(&stage, &before, format) == "recovered"
        });
        assert!(caught, "no kill came into the commit of a {format}");
    }
}
