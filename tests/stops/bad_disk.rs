//! Images on a disk of the host that fails: qemu's blkdebug driver fails chosen sectors of a disk, a FUSE export shows
//! that disk, and an ext4 of the host on it holds the image.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal::SIGCONT;
use serde_json::{Value, json};

use crate::common::{command, fingerprint, guestseal, ready, tool};
use crate::guests::guest;
use crate::leftovers::nothing_left;
use crate::mounts::in_private_mounts;
use crate::stage::copy;
use crate::stopped::Run;

/// A folder of the test's own with the disk, and where its filesystem is mounted.
struct Host {
    folder: tempfile::TempDir,
    before: String,
}

/// The daemon that shows the failing disk. It lives in the outer of two private mount namespaces, and what is mounted
/// from its export only in the inner one, so that no death of either leaves the other waiting.
struct Export {
    child: Child,
    input: Option<std::process::ChildStdin>,
}

/// Which requests fail: those for the sector that holds this byte of the image.
#[derive(Clone, Copy)]
struct Fault {
    byte: u64,
    iotype: &'static str,
    once: bool,
}

impl Host {
    /// With an ext4 that holds a copy of this image.
    fn new(image: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("guestseal-disk-").tempdir_in("/var/tmp").unwrap();
        let host = Self { before: fingerprint(image), folder };
        File::create(host.path("disk"))
            .unwrap()
            .set_len(image.metadata().unwrap().len() + (128 << 20))
            .unwrap();
        tool("mkfs.ext4", ["-q", "-F", "-b", "4096", host.path("disk").to_str().unwrap()]);
        for name in ["plain", "failing"] {
            fs::create_dir(host.path(name)).unwrap();
        }
        fs::write(host.path("export"), b"").unwrap();
        host.on_good_disk(|folder| copy(image, &folder.join("guest.raw")));
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Works in its filesystem without any fault.
    fn on_good_disk<T: Send>(&self, work: impl FnOnce(&Path) -> T + Send) -> T {
        in_private_mounts(|| {
            let (disk, folder) = (self.path("disk"), self.path("plain"));
            tool("mount", [Path::new("-o"), Path::new("loop"), &disk, &folder]);
            let result = work(&folder);
            tool("umount", [&folder]);
            result
        })
    }

    /// The sector of the disk that has this byte of the image.
    fn sector(&self, byte: u64) -> u64 {
        self.on_good_disk(|folder| {
            let map = tool("filefrag", ["-v", "-b4096", folder.join("guest.raw").to_str().unwrap()]);
            let block = byte / 4096;
            let physical = map.lines().find_map(|line| {
                let numbers: Vec<u64> = line
                    .split(|letter: char| !letter.is_ascii_digit())
                    .filter(|word| !word.is_empty())
                    .filter_map(|word| word.parse().ok())
                    .collect();
                let [_, first, last, at, ..] = numbers[..] else { return None };
                let extent = line.trim_start().starts_with(|letter: char| letter.is_ascii_digit());
                (extent && (first..=last).contains(&block)).then(|| at + block - first)
            });
            physical.unwrap_or_else(|| panic!("byte {byte} is in no extent:\n{map}")) * 8 + byte % 4096 / 512
        })
    }

    /// Works with the image while the disk has these faults.
    fn with<T: Send>(&self, faults: &[Fault], work: impl FnOnce(&Path, &mut Export) -> T + Send) -> T {
        let rules: Vec<Value> = faults
            .iter()
            .map(|fault| {
                json!({
                    "event": "none", "iotype": fault.iotype, "errno": 5, "once": fault.once,
                    "sector": self.sector(fault.byte),
                })
            })
            .collect();
        let result = in_private_mounts(|| {
            let mut export = Export::start(&self.path("disk"), &self.path("export"), &rules);
            let result = in_private_mounts(|| {
                let (disk, folder) = (self.path("export"), self.path("failing"));
                tool("mount", [Path::new("-o"), Path::new("loop"), &disk, &folder]);
                let result = work(&folder.join("guest.raw"), &mut export);
                tool("umount", [&folder]);
                result
            });
            export.quit();
            result
        });
        nothing_left(self.folder.path(), Duration::ZERO);
        result
    }

    #[track_caller]
    fn is_untouched(&self) {
        self.on_good_disk(|folder| {
            assert_eq!(fingerprint(&folder.join("guest.raw")), self.before);
            let names: Vec<_> = fs::read_dir(folder).unwrap().map(|name| name.unwrap().file_name()).collect();
            assert_eq!(names.len(), 2, "the image and lost+found: {names:?}");
        });
    }
}

impl Export {
    fn start(disk: &Path, export: &Path, rules: &[Value]) -> Self {
        let mut layers = json!({
            "driver": "blkdebug", "node-name": "disk", "image": { "driver": "file", "filename": disk },
        });
        if !rules.is_empty() {
            layers["inject-error"] = rules.into();
        }
        let export = json!({
            "type": "fuse", "id": "disk", "node-name": "disk", "mountpoint": export, "writable": true,
            "allow-other": "off",
        });
        let mut daemon = command("timeout");
        daemon.args(["300", "qemu-storage-daemon", "--blockdev", &layers.to_string()]);
        daemon.args(["--export", &export.to_string()]);
        daemon.args(["--chardev", "stdio,id=monitor", "--monitor", "chardev=monitor"]);
        let mut child = daemon.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut greeting = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut greeting).unwrap();
        assert!(greeting.contains("QMP"), "{greeting}");
        Self { input: child.stdin.take(), child }
    }

    fn quit(&mut self) {
        if let Some(mut input) = self.input.take() {
            let _ = input.write_all(b"{\"execute\": \"qmp_capabilities\"}{\"execute\": \"quit\"}");
            self.child.wait().unwrap();
        }
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        self.quit();
    }
}

/// Where in the image the first block of a file of the guest is.
fn place_of(image: &Path, path: &str) -> u64 {
    let block: u64 =
        tool("debugfs", ["-R", &format!("bmap {path} 0"), image.to_str().unwrap()]).trim().parse().unwrap();
    block * 1024
}

#[test]
fn reading_fails() {
    if !ready() {
        return;
    }
    let image = guest("arch").image;
    let host = Host::new(&image);
    for byte in
        [0, 1024, place_of(&image, "/etc"), place_of(&image, "/var/log"), place_of(&image, "/etc/passwd")]
    {
        let fault = Fault { byte, iotype: "read", once: false };
        let ran = host.with(&[fault], |image, _| guestseal("seal", &[image]));
        println!("byte {byte}: {} {}", ran.code, ran.stderr);
        let ran = ran.expect(1);
        ran.says(&["error: ", "guest.raw"]);
        assert!(["Input/output error", "EIO"].iter().any(|words| ran.stderr.contains(words)), "{ran:#?}");
        host.is_untouched();
    }
}

/// What nothing but the digest reads is noticed when the image is written already.
#[test]
fn reading_fails_for_the_digest() {
    if !ready() {
        return;
    }
    let image = guest("arch").image;
    let host = Host::new(&image);
    let fault = Fault { byte: place_of(&image, "/usr/bin/bash"), iotype: "read", once: false };
    host.with(&[fault], |image, _| {
        // With the erasure, the search for what was deleted reads it first.
        guestseal("seal", &[image]).expect(1).says(&["guest.raw", "nput/output error"]);
        for (words, code) in [("seal --erase none", 4), ("recover", 4), ("seal", 4)] {
            guestseal(words, &[image]).expect(code).says(&["guest.raw", "what to do"]);
        }
        guestseal("recover", &[image]).expect(4).says(&["cannot hash", "nput/output error"]);
    });
}

#[test]
fn writing_fails_in_the_commit() {
    if !ready() {
        return;
    }
    let image = guest("arch").image;
    for byte in [1024, place_of(&image, "/var/log")] {
        let host = Host::new(&image);
        let fault = Fault { byte, iotype: "write", once: true };
        host.with(&[fault], |image, _| {
            let ran = guestseal("seal", &[image]);
            println!("byte {byte}: {} {}", ran.code, ran.stderr);
            ran.expect(4).says(&["guest.raw", "nput/output error", "guestseal recover"]);
            guestseal("seal", &[image]).expect(4);
            guestseal("recover", &[image]).expect(0);
            guestseal("verify", &[image]).expect(0);
        });
        host.on_good_disk(|folder| guestseal("verify", &[&folder.join("guest.raw")]).expect(0));
    }
}

/// Somebody pulls the cable while the guest is mounted.
#[test]
fn the_disk_goes_away() {
    if !ready() {
        return;
    }
    let host = Host::new(&guest("arch").image);
    for point in ["mounted", "applied", "detached"] {
        host.with(&[], |image, export| {
            let run = Run::stop_at(point, "seal", &[image]);
            export.quit();
            let ended = run.go_on_with(SIGCONT);
            println!("{point}: {} {}", ended.code().unwrap(), ended.stderr);
            ended.with(1, &["error: "]);
        });
        host.is_untouched();
    }
}
