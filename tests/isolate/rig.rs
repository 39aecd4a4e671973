//! A machine for a test: the kernel of scripts/setup, a cache that all tests share, small disks.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use guestseal::Result;
use guestseal::attach::ImageSpec;
use guestseal::vm::cache::Cache;
use guestseal::vm::initramfs::Contents;
use guestseal::vm::kernel::Kernel;
use guestseal::vm::trial::{Answer, Ask, WORD};
use guestseal::vm::{MEMORY, Machine, MachineSpec, START_PATIENCE};
use serde_json::json;

use crate::common::require;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_guestseal");

/// Where a test that runs as another user has guestseal and its cache.
#[expect(clippy::disallowed_methods, reason = "set by the test that starts this one")]
fn folder() -> Option<PathBuf> {
    std::env::var_os("GUESTSEAL_TEST_FOLDER").map(PathBuf::from)
}

/// How long a small job may take in a machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The kernel that scripts/setup fetched.
pub(crate) fn kernel() -> Option<Kernel> {
    let path = crate::kernel::kernel();
    require(path.exists(), "no kernel for virtual machines: run scripts/setup")
        .then(|| Kernel::at(&path).unwrap())
}

/// Where the tests of this user keep what takes long to make.
pub(crate) fn cache() -> Cache {
    let own = || Path::new(env!("CARGO_TARGET_TMPDIR")).join("isolate");
    Cache::open(&folder().map_or_else(own, |folder| folder.join("cache"))).unwrap()
}

/// A raw disk of so many bytes that begins with `head`.
pub(crate) fn disk(folder: &Path, name: &str, bytes: u64, head: &[u8]) -> (PathBuf, ImageSpec) {
    let path = folder.join(name);
    let mut file = File::create(&path).unwrap();
    file.write_all(head).unwrap();
    file.set_len(bytes).unwrap();
    (path.clone(), spec(&path, false))
}

/// A raw disk as guestseal opens it.
pub(crate) fn spec(path: &Path, read_only: bool) -> ImageSpec {
    let file = json!({ "driver": "file", "filename": path, "read-only": read_only, "discard": "unmap" });
    let layers = json!({ "driver": "raw", "read-only": read_only, "discard": "unmap", "file": file });
    ImageSpec { layers, read_only, files: None }
}

pub(crate) fn start(kernel: &Kernel, disks: &[ImageSpec], contents: Contents) -> Result<Machine> {
    start_from(&cache(), kernel, disks, contents)
}

/// The same with another cache.
pub(crate) fn start_from(
    cache: &Cache,
    kernel: &Kernel,
    disks: &[ImageSpec],
    contents: Contents,
) -> Result<Machine> {
    let program = folder().map_or(PROGRAM.into(), |folder| folder.join("guestseal"));
    let machine = Machine::start(&MachineSpec {
        kernel,
        program: &program,
        cache,
        disks,
        contents,
        memory: MEMORY,
        processors: 1,
        network: false,
        words: &[WORD],
        keep: true,
        patience: START_PATIENCE,
    })?;
    let times = machine.times();
    let kept = machine.is_thawed();
    println!(
        "{:?} {contents:?} kept {kept}: parts {:?}, boot {:?}",
        machine.accelerator(),
        times.parts,
        times.boot
    );
    Ok(machine)
}

/// Has the machine do something.
pub(crate) fn ask(machine: &mut Machine, ask: &Ask) -> String {
    machine.say(ask, PATIENCE).unwrap();
    let answer: Answer = machine.hear(PATIENCE).unwrap();
    answer.unwrap_or_else(|error| panic!("{ask:?}: {error}"))
}

/// The words of a process's status (proc_pid_status(5)).
pub(crate) fn status(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}
