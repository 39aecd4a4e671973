//! Running programs, each with a time limit, and skipping by name.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::Whence;
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The program under test.
pub(crate) const GUESTSEAL: &str = env!("CARGO_BIN_EXE_guestseal");
/// What any one run may take, in seconds.
const LIMIT: &str = "240";

/// Whether a test can go on; where not, it says why, and is a failure when nothing may be skipped.
#[expect(clippy::disallowed_methods, reason = "the switch of the whole test suite")]
pub(crate) fn require(condition: bool, reason: &str) -> bool {
    if !condition {
        let strict = std::env::var_os("GUESTSEAL_REQUIRE_ALL").is_some_and(|value| value == "1");
        assert!(!strict, "cannot be skipped: {reason}");
        println!("SKIPPED: {reason}");
    }
    condition
}

/// Whether this runs as root with the tools that all these tests use.
pub(crate) fn ready() -> bool {
    require(nix::unistd::geteuid().is_root(), "needs root")
        && ["qemu-img", "qemu-storage-daemon", "mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "sfdisk", "timeout"]
            .iter()
            .all(|tool| require(on_path(tool), &format!("needs {tool}")))
        && require(Path::new("/dev/fuse").exists(), "needs /dev/fuse")
        && require(Path::new("/dev/loop-control").exists(), "needs loop devices")
}

pub(crate) fn on_path(tool: &str) -> bool {
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|folder| Path::new(folder).join(tool).is_file())
}

/// A command with a clean environment.
#[expect(clippy::disallowed_methods, reason = "the tests run the program and the system's own tools")]
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
    command
}

/// How a program ended and what it said.
#[derive(Debug)]
pub(crate) struct Ran {
    #[expect(dead_code, reason = "printed when a test fails")]
    what: String,
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// Fails unless it ended with this code.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert!(self.code == code, "wanted exit code {code}\n{self:#?}");
        self
    }

    /// The result of the one image of a run with --json.
    #[track_caller]
    pub(crate) fn result(&self) -> Value {
        let mut document: Value =
            serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"));
        document["images"][0].take()
    }

    /// Fails unless its errors hold each of these.
    #[track_caller]
    pub(crate) fn says(&self, needles: &[&str]) {
        for needle in needles {
            assert!(self.stderr.contains(needle), "wanted {needle:?} in the errors\n{self:#?}");
        }
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
    }
}

/// Runs a program to its end.
#[track_caller]
pub(crate) fn run<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = A>) -> Ran {
    let mut limited = command("timeout");
    limited.args(["--kill-after=5", LIMIT]).arg(program).args(args);
    finish(limited)
}

/// Runs a command to its end and gathers what it said.
#[track_caller]
pub(crate) fn finish(mut command: Command) -> Ran {
    let what = format!("{command:?}");
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {what}: {error}"));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let code = output.status.code().unwrap_or(-1);
    let ran = Ran { what, code, stdout: text(output.stdout), stderr: text(output.stderr) };
    assert!(![-1, 124, 137].contains(&ran.code), "took too long or was killed\n{ran:#?}");
    ran
}

/// Runs a tool that must succeed and returns what it printed.
#[track_caller]
pub(crate) fn tool<A: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = A>) -> String {
    run(program, args).expect(0).stdout
}

/// Runs a shell line that must succeed.
#[track_caller]
pub(crate) fn shell(line: &str) -> String {
    tool("bash", ["-euo", "pipefail", "-c", line])
}

/// Runs guestseal with these words, then the paths.
#[track_caller]
pub(crate) fn guestseal(words: &str, paths: &[&Path]) -> Ran {
    let words = words.split_whitespace().map(PathBuf::from);
    run(GUESTSEAL, words.chain(paths.iter().map(|path| path.to_path_buf())))
}

/// A digest of a file's length and its blocks that are not zero; holes are not read.
pub(crate) fn fingerprint(path: &Path) -> String {
    const BLOCK: usize = 4096;
    let file = File::open(path).unwrap();
    let mut hasher = Sha256::new();
    let mut at = 0;
    let seek = |from: i64, whence| nix::unistd::lseek(&file, from, whence);
    while let Ok(start) = seek(at, Whence::SeekData) {
        let end = seek(start, Whence::SeekHole).unwrap();
        at = end;
        let mut bytes = Vec::new();
        seek(start, Whence::SeekSet).unwrap();
        (&file).take(u64::try_from(end - start).unwrap()).read_to_end(&mut bytes).unwrap();
        for (index, block) in bytes.chunks(BLOCK).enumerate() {
            if *block != [0; BLOCK][..block.len()] {
                hasher.update((u64::try_from(start).unwrap() + (index * BLOCK) as u64).to_le_bytes());
                hasher.update(block);
            }
        }
    }
    format!("{} bytes, {:x?}", file.metadata().unwrap().len(), hasher.finalize())
}
