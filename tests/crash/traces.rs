//! What runs of guestseal leave on the host while they work: processes, mounts in any process's view, loop and nbd
//! devices, folders below /run. Each is named with something that is never used again (when a process began, a device's
//! sequence number), so that those of runs beside this one, which go in time, are told from those that stay.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::leftovers::{loops, loops_on};
use crate::process::Process;
use crate::run::pause;

/// How long the kernel may take to clean up behind a killed run.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long runs of others beside this one may go on.
const NEIGHBOURS: Duration = Duration::from_secs(120);

type Names = BTreeSet<String>;

/// What was there before the first run, of others or of programs that this harness knows nothing of.
fn baseline() -> &'static Names {
    static BASELINE: OnceLock<Names> = OnceLock::new();
    BASELINE.get_or_init(now)
}

/// To be called before the first run.
pub(crate) fn begin() {
    baseline();
}

fn now() -> Names {
    let mut names = Names::new();
    for process in Process::all() {
        let mounts = process.mounts();
        let mounted = mounts.lines().find(|line| line.contains("/run/guestseal"));
        names.extend(mounted.map(|line| {
            format!("process {} ({}), begun at {}, sees {line}", process.pid, process.name, process.began)
        }));
    }
    for (block, backing) in loops() {
        if backing.contains("guestseal/disk") || backing == "/disk0/disk" {
            names.insert(format!("{} over {backing}, {}", block.display(), sequence(&block)));
        }
    }
    for block in fs::read_dir("/sys/block").unwrap().flatten().map(|entry| entry.path()) {
        if block.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"nbd")) {
            let connected = fs::read_to_string(block.join("pid")).ok();
            let backend = fs::read_to_string(block.join("backend")).unwrap_or_default();
            names.extend(connected.map(|pid| format!("{} of {} {backend}", block.display(), pid.trim())));
        }
    }
    let folders = fs::read_dir("/run").unwrap().flatten().map(|entry| entry.path());
    names.extend(
        folders.map(|path| path.display().to_string()).filter(|path| path.starts_with("/run/guestseal-")),
    );
    names
}

fn sequence(block: &Path) -> String {
    fs::read_to_string(block.join("diskseq")).map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// What may be of a run that was killed, seen when its processes had gone.
#[derive(Debug)]
pub(crate) struct Traces(Names);

impl Traces {
    /// Waits for the end of every process of the run that led this session and worked in this folder, and says how long
    /// that took.
    pub(crate) fn of(session: i32, folder: &Path) -> (Self, Duration) {
        let began = Instant::now();
        loop {
            let (processes, loops) = (Process::of(session), loops_on(folder));
            if processes.is_empty() && loops.is_empty() {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{processes:#?}, {loops:#?}");
            pause(Duration::from_millis(5));
        }
        let took = began.elapsed();
        (Self(now().difference(baseline()).cloned().collect()), took)
    }

    /// Fails unless all that was seen has gone, or goes now.
    pub(crate) fn are_gone(mut self) {
        let began = Instant::now();
        while !self.0.is_empty() {
            self.0 = self.0.intersection(&now()).cloned().collect();
            assert!(began.elapsed() < NEIGHBOURS, "left behind: {:#?}", self.0);
            pause(Duration::from_millis(10));
        }
    }
}
