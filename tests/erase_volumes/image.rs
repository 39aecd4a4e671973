//! An image file full of old data.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use guestseal::erase::extent::Extents;
use tempfile::TempDir;

/// Runs a tool that must succeed, and returns what it printed.
#[track_caller]
pub(crate) fn tool<A: AsRef<OsStr>>(name: &str, args: impl IntoIterator<Item = A>) -> String {
    let (ok, said) = try_tool(name, args);
    assert!(ok, "{name}: {said}");
    said
}

/// Whether a tool succeeded, and what it printed.
#[expect(clippy::disallowed_methods, reason = "the tests run the system's own tools")]
pub(crate) fn try_tool<A: AsRef<OsStr>>(name: &str, args: impl IntoIterator<Item = A>) -> (bool, String) {
    let mut command = Command::new("timeout");
    let output = command.args(["120", name]).args(args).env("LC_ALL", "C").output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// Words and paths as arguments.
pub(crate) fn words(words: &str, paths: &[&Path]) -> Vec<PathBuf> {
    words.split_whitespace().map(PathBuf::from).chain(paths.iter().map(|path| path.to_path_buf())).collect()
}

pub(crate) struct Image {
    folder: TempDir,
}

impl Image {
    /// So many bytes of old data.
    pub(crate) fn new(bytes: usize) -> Self {
        let image = Self { folder: tempfile::tempdir().unwrap() };
        let line = b"CANARY-before was here before.\n";
        fs::write(image.path(), line.iter().copied().cycle().take(bytes).collect::<Vec<_>>()).unwrap();
        image
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    pub(crate) fn open(&self) -> File {
        File::options().read(true).write(true).open(self.path()).unwrap()
    }

    pub(crate) fn length(&self) -> u64 {
        fs::metadata(self.path()).unwrap().len()
    }

    /// How many canaries are in it.
    pub(crate) fn canaries(&self) -> usize {
        let line = r#"{ grep -aoh CANARY- "$0" || [ $? = 1 ]; } | wc -l"#;
        let path = self.path();
        tool("bash", ["-c".as_ref(), line.as_ref(), path.as_os_str()]).trim().parse().unwrap()
    }

    pub(crate) fn zero(&self, extents: &Extents) {
        let (file, length) = (self.open(), self.length());
        for extent in extents.iter() {
            assert!(extent.end() <= length, "{extent:?} is not in the image");
            file.write_all_at(&vec![0; usize::try_from(extent.length).unwrap()], extent.start).unwrap();
        }
    }
}
