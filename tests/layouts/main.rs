//! Guests on every kind of storage, sealed by the built program, most of them in a machine of its own: LVM, LUKS, MD,
//! several disks. scripts/make-layouts makes them. Needs root to make them; one test runs guestseal without.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails or says so")]

#[path = "../images/common.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod common;
#[path = "../common/kernel.rs"]
mod kernel;

mod expand;
mod hostile;
mod options;
mod refused;
mod sealed;
mod unprivileged;
mod uuids;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::common::{GUESTSEAL, Ran, command, on_path, require, run, tool};
use crate::kernel::kernel;

/// The folder with all layouts, made once.
fn layouts() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/make-layouts");
        let made = command("timeout").args(["900".as_ref(), script.as_os_str()]).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        PathBuf::from(String::from_utf8(made.stdout).unwrap().trim())
    })
}

fn ready() -> bool {
    require(nix::unistd::geteuid().is_root(), "needs root")
        && ["qemu-img", "qemu-system-x86_64", "lvm", "cryptsetup", "mdadm", "thin_check"]
            .iter()
            .all(|name| require(on_path(name), &format!("needs {name}")))
        && require(kernel().exists(), "no kernel for virtual machines: run scripts/setup")
}

/// A copy of one layout in a folder of its own.
struct Layout {
    name: String,
    folder: TempDir,
    disks: Vec<PathBuf>,
    keys: Vec<String>,
}

impl Layout {
    fn new(name: &str) -> Self {
        let made = layouts();
        let table = fs::read_to_string(made.join("layouts.tsv")).unwrap();
        let row = table.lines().map(|line| line.split('\t').collect::<Vec<_>>()).find(|row| row[0] == name);
        let row = row.unwrap_or_else(|| panic!("there is no layout {name}"));
        let folder = tempfile::Builder::new().prefix("guestseal-layout-").tempdir_in("/var/tmp").unwrap();
        let count: usize = row[1].parse().unwrap();
        let disks = (1..=count).map(|number| {
            let disk = folder.path().join(format!("disk-{number}.qcow2"));
            fs::copy(made.join(format!("{name}-{number}.qcow2")), &disk).unwrap();
            disk
        });
        let disks = disks.collect();
        let keys = row[2].split(',').filter(|key| *key != "-").map(|key| {
            let (volume, file) = key.split_once(":file:").unwrap();
            format!("{volume}:file:{}", made.join(file).display())
        });
        Self { name: name.to_owned(), keys: keys.collect(), disks, folder }
    }

    /// The arguments of a command on its disks, with its keys.
    fn arguments(&self, words: &str) -> Vec<String> {
        let mut all: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        all.extend(["--kernel".to_owned(), kernel().display().to_string()]);
        all.extend(self.keys.iter().flat_map(|key| ["--key".to_owned(), key.clone()]));
        all.extend(self.disks.iter().flat_map(|disk| ["-a".to_owned(), disk.display().to_string()]));
        all
    }

    #[track_caller]
    fn guestseal(&self, words: &str) -> Ran {
        run(GUESTSEAL, self.arguments(words).into_iter().map(PathBuf::from))
    }

    /// What was planted: marker and kind of place.
    fn canaries(&self) -> Vec<(String, String)> {
        let list = fs::read_to_string(layouts().join(format!("{}.canaries", self.name))).unwrap();
        let row = |line: &str| {
            let mut words = line.split('\t');
            (words.next().unwrap().to_owned(), words.next().unwrap().to_owned())
        };
        list.lines().map(row).collect()
    }

    /// The kinds of markers that can be read in the guest's disks or in the bytes of their files.
    fn left(&self) -> Vec<String> {
        let mut bytes = Vec::new();
        for disk in &self.disks {
            tool("qemu-img", [Path::new("check"), Path::new("-q"), disk]);
            let raw = self.folder.path().join("raw");
            tool("qemu-img", [Path::new("convert"), "-O".as_ref(), "raw".as_ref(), disk, &raw]);
            bytes.push(fs::read(&raw).unwrap());
            bytes.push(fs::read(disk).unwrap());
            fs::remove_file(raw).unwrap();
        }
        let is_left = |marker: &str| {
            let first = marker.as_bytes()[0];
            let starts = |text: &[u8]| {
                text.iter()
                    .enumerate()
                    .any(|(at, byte)| *byte == first && text[at..].starts_with(marker.as_bytes()))
            };
            bytes.iter().any(|text| starts(text))
        };
        let canaries = self.canaries().into_iter();
        canaries.filter(|(marker, _)| is_left(marker)).map(|(_, kind)| kind).collect()
    }
}
