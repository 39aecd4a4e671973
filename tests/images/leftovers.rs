//! What a run may not leave on the host: loop devices, mounts, children.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long runs of tests beside this one may hold their loop devices.
const NEIGHBOURS: Duration = Duration::from_secs(120);

/// How long a loop device may outlive its unmounting: it goes with its last opener, and mount(8) and losetup(8) of other
/// tests open each one they see to look for a free one.
const LOOKERS: Duration = Duration::from_secs(10);

/// Fails when anything is left of the runs that worked in this folder; after a kill the kernel gets a moment.
#[track_caller]
pub(crate) fn nothing_left(folder: &Path, patience: Duration) {
    nothing_of(folder, patience);
    no_loops();
}

/// The same without the loop devices of runs, which name no folder.
#[track_caller]
pub(crate) fn nothing_of(folder: &Path, patience: Duration) {
    gone(patience, || children(folder).into_iter().chain(mounts_of(folder)).collect());
    gone(patience.max(LOOKERS), || loops_on(folder));
}

#[track_caller]
fn gone(patience: Duration, look: impl Fn() -> Vec<String>) {
    let deadline = Instant::now() + patience;
    loop {
        let left = look();
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "left behind: {left:#?}");
        pause();
    }
}

/// Fails when a loop device of any run is left.
#[track_caller]
pub(crate) fn no_loops() {
    // A run's own loop devices all name the same file, so they are told apart by their sequence numbers: those of
    // neighbours go away in time, a leaked one does not.
    let deadline = Instant::now() + NEIGHBOURS;
    let mut seen = run_loops();
    while !seen.is_empty() {
        assert!(Instant::now() < deadline, "loop devices that nobody detaches: {seen:?}");
        pause();
        seen = seen.intersection(&run_loops()).cloned().collect();
    }
}

#[expect(clippy::disallowed_methods, reason = "that something is not there any more has no event")]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

/// Processes that were told about this folder, other than the tests themselves.
fn children(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let lines = processes.filter_map(|process| {
        let line = fs::read(process.join("cmdline")).ok()?;
        Some((process, String::from_utf8_lossy(&line).replace('\0', " ")))
    });
    lines
        .filter(|(_, line)| line.contains(folder))
        .map(|(process, line)| format!("{}: {line}", process.display()))
        .collect()
}

pub(crate) fn loops() -> Vec<(PathBuf, String)> {
    let blocks = fs::read_dir("/sys/block").unwrap().flatten().map(|entry| entry.path());
    let loops = blocks
        .filter(|block| block.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"loop")));
    loops
        .filter_map(|block| {
            let backing = fs::read_to_string(block.join("loop/backing_file")).ok()?;
            Some((block, backing.trim().to_owned()))
        })
        .collect()
}

pub(crate) fn loops_on(folder: &Path) -> Vec<String> {
    let on = loops().into_iter().filter(|(_, backing)| Path::new(backing).starts_with(folder));
    on.map(|(block, backing)| format!("{} over {backing}", block.display())).collect()
}

fn run_loops() -> BTreeSet<(PathBuf, String)> {
    let ours = loops()
        .into_iter()
        .filter(|(_, backing)| backing.contains("guestseal/disk") || backing == "/disk0/disk");
    ours.filter_map(|(block, _)| {
        let sequence = fs::read_to_string(block.join("diskseq")).ok()?;
        Some((block, sequence.trim().to_owned()))
    })
    .collect()
}

fn mounts_of(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let ours = mounts.lines().filter(|line| line.contains(folder) || line.contains("/run/guestseal"));
    ours.map(str::to_owned).collect()
}
