//! Running the tools that make the images, and saying so when one is missing.

#![expect(
    clippy::disallowed_methods,
    reason = "tests start the tools they compare with and read their own switch"
)]

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Where tools are looked for: an ordinary user has no sbin in PATH.
fn find(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(sbin).map(|folder| folder.join(tool)).find(|path| path.is_file())
}

/// Whether all of `tools` are there. If not, the test that asks is skipped, which one line on stderr (past the capture
/// of the test harness) says; with GUESTSEAL_REQUIRE_ALL=1 that is a failure.
pub(super) fn has(tools: &[&str]) -> bool {
    let missing: Vec<_> = tools.iter().filter(|tool| find(tool).is_none()).copied().collect();
    if missing.is_empty() {
        return true;
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("SKIP {test}: no {}", missing.join(", "));
    assert!(std::env::var_os("GUESTSEAL_REQUIRE_ALL").is_none_or(|value| value != "1"), "{line}");
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
    false
}

/// Runs a tool, with `input` on its stdin, and returns its stdout.
pub(super) fn run(tool: &str, args: &[&str], input: &str) -> String {
    let (ok, out, err) = try_run(tool, args, input);
    assert!(ok, "{tool} {args:?}:\n{out}\n{err}");
    out
}

/// The same, for tools that may say no: whether they succeeded, stdout, stderr.
pub(super) fn try_run(tool: &str, args: &[&str], input: &str) -> (bool, String, String) {
    let mut stdin = tempfile::tempfile().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    std::io::Seek::rewind(&mut stdin).unwrap();
    let path = find(tool).unwrap_or_else(|| panic!("no {tool}"));
    let out = Command::new(path).args(args).stdin(stdin).env("LC_ALL", "C.UTF-8").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.success(), text(&out.stdout), text(&out.stderr))
}

/// A sparse image file in a folder that goes away with it.
pub(super) struct Image {
    folder: TempDir,
    pub(super) bytes: u64,
}

impl Image {
    pub(super) fn new(bytes: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        File::create(folder.path().join("image")).unwrap().set_len(bytes).unwrap();
        Self { folder, bytes }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    /// A folder beside the image.
    pub(super) fn tree(&self) -> PathBuf {
        let folder = self.folder.path().join("tree");
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// Runs a tool on the image: `{}` in the arguments stands for its path, `{folder}` for a folder of its own.
    pub(super) fn make(self, tool: &str, args: &[&str], input: &str) -> Self {
        let folder = self.tree();
        let path = self.path().display().to_string();
        let args: Vec<String> = args
            .iter()
            .map(|arg| arg.replace("{}", &path).replace("{folder}", &folder.display().to_string()))
            .collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        run(tool, &args, input);
        let bytes = std::fs::metadata(self.path()).unwrap().len();
        Self { bytes, ..self }
    }

    pub(super) fn open(&self) -> File {
        File::open(self.path()).unwrap()
    }

    /// Overwrites `bytes` at `at`.
    pub(super) fn write(&self, at: u64, bytes: &[u8]) {
        let file = File::options().write(true).open(self.path()).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, bytes, at).unwrap();
    }

    /// Puts the content of another image at `at`.
    pub(super) fn embed(&self, at: u64, other: &Path) {
        let mut from = File::open(other).unwrap();
        let mut to = File::options().write(true).open(self.path()).unwrap();
        std::io::Seek::seek(&mut to, std::io::SeekFrom::Start(at)).unwrap();
        std::io::copy(&mut from, &mut to).unwrap();
    }
}
