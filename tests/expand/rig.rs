//! A small guest of one disk in a folder of its own, and what can be said of it afterwards.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{GUESTSEAL, Ran, command, fingerprint, finish, guestseal, on_path, ready, require, tool};
use crate::disks::{Label, Volume, make_disk, volume};
use crate::mounts::{check_filesystems, export};

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GPT: Label = Label(Some("gpt"), 512);
pub(crate) const MBR: Label = Label(Some("dos"), 512);
pub(crate) const BARE: Label = Label(None, 512);

/// A boot partition and behind it the root.
pub(crate) const USUAL: [Volume; 2] = [volume(32, "ext4", "/boot", "UUID"), volume(64, "ext4", "/", "UUID")];

/// An image and its folder.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) folder: TempDir,
    pub(crate) path: PathBuf,
    pub(crate) format: &'static str,
}

impl Image {
    pub(crate) fn new(label: Label, volumes: &[Volume], format: &'static str) -> Self {
        let folder = tempfile::Builder::new().prefix("guestseal-expand-").tempdir_in("/var/tmp").unwrap();
        let (raw, path) = (folder.path().join("disk.raw"), folder.path().join(format!("guest.{format}")));
        make_disk(&raw, label, volumes, "");
        let words = ["convert", "-q", "-f", "raw", "-O", format].map(PathBuf::from);
        tool("qemu-img", words.into_iter().chain([raw.clone(), path.clone()]));
        fs::remove_file(raw).unwrap();
        Self { folder, path, format }
    }

    #[track_caller]
    pub(crate) fn guestseal(&self, words: &str) -> Ran {
        guestseal(words, &[&self.path])
    }

    /// With a fault armed; also when it is killed.
    pub(crate) fn faulty(&self, fault: &str, words: &str) -> Option<i32> {
        let mut run = command("timeout");
        run.args(["240", GUESTSEAL])
            .args(words.split_whitespace())
            .arg(&self.path)
            .env("GUESTSEAL_FAULT", fault);
        run.output().unwrap().status.code()
    }

    /// Everything that may not change.
    pub(crate) fn print(&self) -> (String, Vec<String>) {
        let names = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> =
            names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        (fingerprint(&self.path), names)
    }

    /// Refused with this code and these words; nothing is touched.
    #[track_caller]
    pub(crate) fn refuses(&self, words: &str, code: i32, says: &[&str]) {
        let before = self.print();
        let ran = self.guestseal(words).expect(code);
        ran.says(says);
        assert_eq!(self.print(), before);
    }

    /// The length of the disk.
    pub(crate) fn bytes(&self) -> u64 {
        virtual_bytes(&self.path)
    }

    /// Sound: the table, each filesystem, and the seal.
    #[track_caller]
    pub(crate) fn is_whole(&self, label: Label, inspection: &Value) {
        if self.format != "raw" {
            tool("qemu-img", ["check", "-q", "-f", self.format, self.path.to_str().unwrap()]);
        }
        self.guestseal("verify").expect(0);
        let raw = export(&self.path, self.format);
        check_filesystems(&raw, inspection);
        check_table(&raw, label);
        if raw != self.path {
            fs::remove_file(raw).unwrap();
        }
    }
}

pub(crate) fn virtual_bytes(image: &Path) -> u64 {
    let info = tool("qemu-img", [Path::new("info"), Path::new("-U"), Path::new("--output=json"), image]);
    serde_json::from_str::<Value>(&info).unwrap()["virtual-size"].as_u64().unwrap()
}

/// By tools that had no part in it.
#[track_caller]
fn check_table(raw: &Path, Label(kind, sector): Label) {
    let Some(kind) = kind else { return };
    let sector = sector.to_string();
    let node = tool("losetup", [Path::new("--show"), Path::new("-rfb"), Path::new(&sector), raw]);
    let mut check = command(if kind == "gpt" { "sgdisk" } else { "sfdisk" });
    check.arg(if kind == "gpt" { "-v" } else { "-V" }).arg(node.trim());
    let ran = finish(check);
    tool("losetup", ["-d", node.trim()]);
    let good = if kind == "gpt" { "No problems found" } else { "No errors detected" };
    assert!(ran.code == 0 && ran.stdout.contains(good), "{ran:#?}");
}

/// Whether this can run at all.
pub(crate) fn can_run() -> bool {
    ready() && require(on_path("sgdisk"), "needs sgdisk")
}
