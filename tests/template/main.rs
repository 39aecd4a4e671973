//! Templates and their clones, on real guests. Needs root.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails or says so")]

mod changed;
mod clones;
#[path = "../images/common.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod common;
#[path = "../images/disks.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod disks;
#[path = "../images/guests.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod guests;
#[path = "../images/mounts.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod mounts;
#[path = "../images/pair.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod pair;
mod stores;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{GUESTSEAL, Ran, run, tool};
use crate::guests::guest;

/// The text that stands in a template where its clones get their seeds.
const PLACE: &[u8] = b"guestseal: each clone gets its own random seed here\n";

/// A store in a folder of the test's own.
struct Rig(TempDir);

impl Rig {
    fn new() -> Self {
        Self(tempfile::Builder::new().prefix("guestseal-template-").tempdir_in("/var/tmp").unwrap())
    }

    /// With the template `t` of this guest.
    fn with(variant: &str) -> Self {
        let rig = Self::new();
        let image = guest(variant).image;
        rig.run("template create", &["t", image.to_str().unwrap()]).expect(0);
        rig
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file of a template.
    fn of(&self, template: &str, name: &str) -> PathBuf {
        self.at("store").join(template).join(name)
    }

    /// Runs guestseal on the store; words with a slash at their end stand for paths in the folder.
    #[track_caller]
    fn run(&self, command: &str, words: &[&str]) -> Ran {
        let mut all: Vec<PathBuf> = command.split_whitespace().map(PathBuf::from).collect();
        if command.starts_with("template") || command.starts_with("clone") {
            all.extend(["--store".into(), self.at("store")]);
        }
        all.extend(words.iter().map(|word| match word.strip_prefix("./") {
            Some(name) => self.at(name),
            None => PathBuf::from(word),
        }));
        run(GUESTSEAL, all)
    }

    /// What is in the folder and in its store.
    fn names(&self) -> Vec<String> {
        let of = |folder: PathBuf| {
            fs::read_dir(folder)
                .into_iter()
                .flatten()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        };
        let mut names: Vec<_> = of(self.at(".")).chain(of(self.at("store"))).collect();
        names.sort();
        names
    }

    fn facts(&self, template: &str) -> Value {
        let shown = self.run("template show --json", &[template]).expect(0);
        let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
        shown["template"]["facts"].clone()
    }
}

impl Drop for Rig {
    /// What is immutable would stay.
    fn drop(&mut self) {
        let store = self.at("store");
        if store.is_dir() {
            run("chattr", [Path::new("-R"), Path::new("-i"), &store]);
        }
    }
}

/// Bytes of an image's disk.
fn disk_bytes(image: &Path, offset: u64, length: u64) -> Vec<u8> {
    let raw = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
    // It counts from the start of the input.
    let (skip, count) = (format!("skip={}", offset / 512), format!("count={}", (offset + length) / 512));
    let (input, output) = (format!("if={}", image.display()), format!("of={}", raw.path().display()));
    tool("qemu-img", ["dd", "-U", "-O", "raw", "bs=512", &skip, &count, &input, &output]);
    let mut bytes = Vec::new();
    File::open(raw.path()).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len() as u64, length);
    bytes
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().mode() & 0o7777
}
