//! SIGINT, SIGTERM and SIGHUP: everything is undone and reported, and the program ends by the signal.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal::{SIGCONT, SIGHUP, SIGINT, SIGSTOP, SIGTERM};
use nix::sys::signal::{Signal, kill};

use crate::common::{ready, require, tool};
use crate::guests::guest;
use crate::leftovers::nothing_left;
use crate::stage::{Stage, copy};
use crate::stopped::{Run, wait_until};

const SIGNALS: [Signal; 3] = [SIGTERM, SIGINT, SIGHUP];

/// Whether these tests can run: the kernel must list a process's children.
fn can_run() -> bool {
    ready() && require(Path::new("/proc/self/task").exists(), "needs /proc")
}

fn arch() -> Stage {
    Stage::convert(&guest("arch").image, "qcow2", &[])
}

#[test]
fn at_every_place_before_the_commit() {
    if !can_run() {
        return;
    }
    let points = [
        "locked",
        "files-made",
        "attached",
        "mounted",
        "first-operation",
        "applied",
        "unmounted",
        "detached",
    ];
    let stage = arch();
    let before = stage.print();
    for (point, signal) in points.iter().zip(SIGNALS.iter().cycle()) {
        for words in ["seal", "seal --output new.qcow2"] {
            let words = words.replace("new.qcow2", stage.path("new.qcow2").to_str().unwrap());
            let ended = Run::stop_at(point, &words, &[&stage.image]).go_on_with(*signal);
            ended.by(*signal, &["nothing was changed in", "guest.qcow2", "stopped by", signal.as_str()]);
            assert_eq!(stage.print(), before, "{point} {words}");
            nothing_left(stage.folder(), Duration::ZERO);
        }
    }
    stage.guestseal("seal --quiet").expect(0);
    stage.guestseal("verify").expect(0);
}

#[test]
fn while_only_looking() {
    if !can_run() {
        return;
    }
    let stage = arch();
    let before = stage.print();
    for (point, signal) in ["attached", "mounted"].iter().zip(SIGNALS) {
        for words in ["inspect", "seal --dry-run"] {
            let ended = Run::stop_at(point, words, &[&stage.image]).go_on_with(signal);
            ended.by(signal, &["nothing was changed in", signal.as_str()]);
            assert_eq!(stage.print(), before, "{point} {words}");
            nothing_left(stage.folder(), Duration::ZERO);
        }
    }
}

#[test]
fn the_report_for_machines_comes_first_and_no_further_image_is_begun() {
    if !can_run() {
        return;
    }
    let (first, second) = (arch(), arch());
    let before = (first.print(), second.print());
    let run = Run::stop_at("applied", "seal --json", &[&first.image, &second.image]);
    let ended = run.go_on_with(SIGTERM).by(SIGTERM, &["before work on this image"]);
    let document: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let results = document["images"].as_array().unwrap();
    assert_eq!(results.len(), 2, "{document:#}");
    for result in results {
        assert_eq!(result["error"]["kind"], "stopped", "{document:#}");
        assert_eq!(result["error"]["exit-code"], 1, "{document:#}");
    }
    assert_eq!((first.print(), second.print()), before);
}

#[test]
fn while_the_new_file_is_written() {
    if !can_run() {
        return;
    }
    let stage = arch();
    let before = stage.print();
    let new = stage.path("new.qcow2");
    let words = format!("seal --compress --output {}", new.display());
    let mut run = Run::start(None, &words, &[&stage.image]);
    let child = run.child_with("convert").expect("qemu-img convert was seen");
    // Stopped, so that it cannot end by itself.
    kill(child, SIGSTOP).unwrap();
    run.signal(SIGTERM);
    run.end().by(SIGTERM, &["nothing was changed in", "qemu-img", "stopped by SIGTERM"]);
    assert!(!Path::new(&format!("/proc/{child}")).exists(), "qemu-img was waited for");
    assert_eq!(stage.print(), before);
    nothing_left(stage.folder(), Duration::ZERO);
}

#[test]
fn while_a_script_runs() {
    if !can_run() {
        return;
    }
    let stage = arch();
    let here = stage.path("here");
    tool("mkfifo", [&here]);
    // The shell's own child has its working directory in the guest.
    let script = format!("#!/bin/sh\nsleep 1000 &\necho $! >'{}'\nwait\n", here.display());
    stage.write("slow.sh", 0o755, &script);
    let before = stage.print();
    let words = format!("seal --script {}", stage.path("slow.sh").display());
    let run = Run::start(None, &words, &[&stage.image]);
    let sleeper = fs::read_to_string(&here).unwrap();
    run.signal(SIGINT);
    run.end().by(SIGINT, &["nothing was changed in", "the operation script was left", "slow.sh"]);
    assert_eq!(fs::read_to_string(format!("/proc/{}/cmdline", sleeper.trim())).unwrap_or_default(), "");
    assert_eq!(stage.print(), before);
    nothing_left(stage.folder(), Duration::ZERO);
}

#[test]
fn while_hashing() {
    if !can_run() {
        return;
    }
    let stage = Stage::copy(&guest("arch").image);
    stage.guestseal("seal --quiet").expect(0);
    // Zeroes that take minutes to hash.
    fs::File::options().write(true).open(&stage.image).unwrap().set_len(1 << 40).unwrap();
    let before = stage.print();
    let run = Run::start(None, "verify", &[&stage.image]);
    let files = format!("/proc/{}/fd", run.pid());
    wait_until(|| {
        let mut open = fs::read_dir(&files).unwrap().flatten();
        open.any(|entry| fs::read_link(entry.path()).is_ok_and(|path| path == stage.image))
    });
    let asked = Instant::now();
    run.signal(SIGTERM);
    run.end().by(SIGTERM, &["nothing was changed in", "cannot hash", "stopped by SIGTERM"]);
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
    assert_eq!(stage.print(), before);
}

#[test]
fn with_in_place_nothing_is_promised() {
    if !can_run() {
        return;
    }
    let stage = Stage::copy(&guest("arch").image);
    let run = Run::stop_at("first-operation", "seal --in-place", &[&stage.image]);
    run.go_on_with(SIGTERM).by(SIGTERM, &["may be half edited", "--in-place undoes nothing"]);
    nothing_left(stage.folder(), Duration::ZERO);
    stage.guestseal("seal --in-place --quiet").expect(0);
    stage.guestseal("verify").expect(0);
}

/// From the commit on a signal waits: the image gets its record, and only a further image is not begun.
#[test]
fn in_the_commit() {
    if !can_run() {
        return;
    }
    for signal in SIGNALS {
        let (first, second) = (arch(), arch());
        let before = second.print();
        let ended = Run::stop_at("overlay-named", "seal", &[&first.image]).go_on_with(signal);
        let ended = ended.with(0, &[signal.as_str(), "finishing that first"]);
        assert_eq!(ended.stderr.matches("finishing").count(), 1, "{ended:?}");
        first.guestseal("verify").expect(0);
        let third = Stage::new("third.qcow2");
        copy(&second.image, &third.image);
        let run = Run::stop_at("overlay-named", "seal", &[&third.image, &second.image]);
        run.go_on_with(signal).by(signal, &["finishing that first", "before work on this image"]);
        third.guestseal("verify").expect(0);
        assert_eq!(second.print(), before);
        for stage in [&first, &second, &third] {
            nothing_left(stage.folder(), Duration::ZERO);
        }
    }
}

/// Whoever cannot wait sends the signal again.
#[test]
fn a_second_one_kills_at_once() {
    if !can_run() {
        return;
    }
    let stage = arch();
    let before = stage.print();
    let mut run = Run::stop_at("attached", "inspect", &[&stage.image]);
    // A daemon that never answers: the first signal waits for its end.
    let daemon = run.child_with("--blockdev").expect("the export daemon was seen");
    kill(daemon, SIGSTOP).unwrap();
    run.signal(SIGTERM);
    run.signal(SIGCONT);
    run.has_heard();
    run.signal(SIGTERM);
    let ended = run.end().by(SIGTERM, &[]);
    assert_eq!(ended.stderr, "", "it had no time to say anything");
    nothing_left(stage.folder(), Duration::from_secs(20));
    assert_eq!(stage.print(), before);
}

#[test]
fn one_that_was_ignored_stays_so() {
    if !can_run() {
        return;
    }
    let stage = arch();
    let mut run = crate::common::command("nohup");
    run.args([crate::common::GUESTSEAL, "seal"]).arg(&stage.image);
    Run::spawn(run, Some("applied")).stopped("applied").go_on_with(SIGHUP).with(0, &[]);
    stage.guestseal("verify").expect(0);
}
