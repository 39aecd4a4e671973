//! What the tests need of the host: images, mounts, processes, and a clear word when it lacks something.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use guestseal::attach::ImageSpec;
use guestseal::attach::nbd::NbdDisk;
use guestseal::sys::nbd_netlink::NbdDriver;
use guestseal::sys::tool::Tool;
use serde_json::json;
use tempfile::TempDir;

pub(crate) const MIB: usize = 1 << 20;

/// One test at a time: they look at the whole host's devices and processes.
static HOST: Mutex<()> = Mutex::new(());

/// The host, when it has all that is needed.
pub(crate) fn host() -> Option<MutexGuard<'static, ()>> {
    let tools =
        ["qemu-nbd", "qemu-img", "qemu-io", "mkfs.ext4", "mount", "losetup", "sfdisk", "blkdiscard", "flock"];
    if !has(&tools) {
        return None;
    }
    let lack = if nix::unistd::geteuid().is_root() {
        NbdDriver::open().err().map(|error| error.chain())
    } else {
        Some("not root".to_owned())
    };
    if let Some(lack) = lack {
        skip(&lack);
        return None;
    }
    Some(HOST.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Whether the host has these tools.
pub(crate) fn has(tools: &[&str]) -> bool {
    match tools.iter().find(|tool| Tool::find(tool).is_err()) {
        Some(tool) => {
            skip(&format!("{tool} is not installed"));
            false
        }
        None => true,
    }
}

fn skip(lack: &str) {
    assert!(std::env::var_os("GUESTSEAL_REQUIRE_ALL").is_none_or(|value| value != "1"), "{lack}");
    println!("SKIPPED: {lack}");
}

/// Runs a tool and returns what it prints.
pub(crate) fn run(line: &str) -> String {
    let output = Command::new("/bin/sh").args(["-ec", line]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{line}: {}: {text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text.trim().to_owned()
}

/// A qcow2 image in a folder of its own.
pub(crate) struct Image {
    pub(crate) folder: TempDir,
    pub(crate) path: PathBuf,
}

impl Image {
    pub(crate) fn new(size: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("nbd-test-").tempdir().unwrap();
        let path = folder.path().join("disk.qcow2");
        run(&format!("qemu-img create -q -f qcow2 {} {size}", path.display()));
        Self { folder, path }
    }

    pub(crate) fn spec(&self) -> ImageSpec {
        spec(json!({"driver": "qcow2", "file": self.file(), "backing": null}))
    }

    pub(crate) fn file(&self) -> serde_json::Value {
        json!({"driver": "file", "filename": self.path})
    }

    pub(crate) fn attach(&self) -> NbdDisk {
        attach(&self.spec()).unwrap()
    }

    /// Whether the image has this byte everywhere in this range, as qemu-io reads it.
    pub(crate) fn has(&self, byte: u8, offset: usize, length: usize) -> bool {
        let read = format!("read -P {byte} {offset} {length}");
        let output = Command::new("qemu-io")
            .args(["-r", "-f", "qcow2", "-c", &read])
            .arg(&self.path)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(&format!("read {length}/{length} bytes")), "{read}: {output:?}");
        !text.contains("Pattern verification failed")
    }

    /// Bytes of the file that are on disk.
    pub(crate) fn allocated(&self) -> u64 {
        std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&self.path).unwrap()) * 512
    }
}

pub(crate) fn spec(layers: serde_json::Value) -> ImageSpec {
    ImageSpec { layers, read_only: false, files: None }
}

/// N of the nbdN that the disk is.
pub(crate) fn index(disk: &NbdDisk) -> u32 {
    disk.device().file_name().unwrap().to_str().unwrap().strip_prefix("nbd").unwrap().parse().unwrap()
}

pub(crate) fn in_use(index: u32) -> bool {
    NbdDriver::open().unwrap().in_use(index).unwrap()
}

/// The qemu-nbd processes that serve this file.
pub(crate) fn servers(image: &Path) -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let words = fs::read(entry.path().join("cmdline")).ok()?;
            let words = String::from_utf8_lossy(&words).into_owned();
            (words.contains("qemu-nbd") && words.contains(image.to_str()?)).then_some(pid)
        })
        .collect()
}

/// Waits until it is so and returns how long that took.
pub(crate) fn until(what: &str, mut so: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !so() {
        assert!(started.elapsed() < Duration::from_secs(60), "still not: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
    started.elapsed()
}

/// Nothing of this disk is left on the host.
#[track_caller]
pub(crate) fn assert_nothing_left(index: u32, image: &Path) {
    assert_eq!(servers(image), Vec::<i32>::new(), "servers of {}", image.display());
    // udev may still be looking at it.
    until("the device is free", || !in_use(index));
    assert!(!Path::new(&format!("/sys/block/nbd{index}/pid")).exists());
    assert_eq!(partitions(index), Vec::<PathBuf>::new());
    let size = fs::read_to_string(format!("/sys/block/nbd{index}/size")).unwrap();
    assert_eq!(size.trim(), "0");
}

/// The partitions that the host sees on the device.
pub(crate) fn partitions(index: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir(format!("/sys/block/nbd{index}")).unwrap().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.join("partition").exists()).collect()
}

/// Attaches with the server's socket in a folder of its own.
pub(crate) fn attach(spec: &ImageSpec) -> guestseal::Result<NbdDisk> {
    let folder = tempfile::tempdir().unwrap();
    NbdDisk::attach(spec, folder.path())
}
