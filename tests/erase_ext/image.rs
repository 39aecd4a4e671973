//! Images with one filesystem: made, mounted, looked into by the tools.

#![expect(clippy::disallowed_methods, reason = "tests start the tools that they compare with")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use guestseal::attach::loopdev::Loop;
use guestseal::sys::ioctl::LoopWindow;
use tempfile::TempDir;

/// Whether the tests of this binary can run here.
pub(crate) fn possible() -> bool {
    let tools = ["mkfs.ext4", "e2fsck", "dumpe2fs", "mount", "setfattr"];
    super::common::require(super::common::is_root(), "not root")
        && tools.iter().all(|tool| super::common::require(super::common::has_tool(tool), tool))
}

/// Runs a tool, which must succeed, and gives its stdout.
pub(crate) fn run(tool: &str, args: &[&str]) -> String {
    let output = Command::new("timeout").args(["120", tool]).args(args).env("LC_ALL", "C").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{tool} {args:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// A sparse image file in a folder that goes with it.
pub(crate) struct Image {
    folder: TempDir,
}

/// A mounted image; unmounted when dropped.
pub(crate) struct Mounted {
    place: PathBuf,
    device: Option<Loop>,
}

impl Image {
    /// Made with `mkfs.ext4 -F` and `options`.
    pub(crate) fn make(bytes: u64, options: &str) -> Self {
        let image = Self::empty(bytes);
        image.format(options);
        image
    }

    /// With nothing in it.
    pub(crate) fn empty(bytes: u64) -> Self {
        let image = Self { folder: tempfile::tempdir().unwrap() };
        File::create(image.path()).unwrap().set_len(bytes).unwrap();
        image
    }

    pub(crate) fn format(&self, options: &str) {
        let path = self.path();
        let mut args: Vec<&str> = vec!["-q", "-F"];
        args.extend(options.split_whitespace());
        args.push(path.to_str().unwrap());
        run("mkfs.ext4", &args);
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    pub(crate) fn open(&self) -> File {
        File::options().read(true).write(true).open(self.path()).unwrap()
    }

    pub(crate) fn length(&self) -> u64 {
        self.open().metadata().unwrap().len()
    }

    /// Mounts it with these options.
    pub(crate) fn mount(&self, options: &str) -> Mounted {
        self.mount_as("ext4", options)
    }

    /// The same for another filesystem; the crate's own loop device is none that another process wants.
    pub(crate) fn mount_as(&self, kind: &str, options: &str) -> Mounted {
        let place = self.folder.path().join("mounted");
        std::fs::create_dir_all(&place).unwrap();
        let window = LoopWindow { offset: 0, length: self.length(), block_size: 512, read_only: false };
        let device = Loop::attach(self.open(), window).unwrap();
        run("mount", &["-t", kind, "-o", options, device.path().to_str().unwrap(), place.to_str().unwrap()]);
        Mounted { place, device: Some(device) }
    }

    /// Runs `e2fsck -fn`, which must find nothing.
    pub(crate) fn check(&self) {
        run("e2fsck", &["-fn", self.path().to_str().unwrap()]);
    }
}

impl Mounted {
    pub(crate) fn path(&self) -> &Path {
        &self.place
    }

    pub(crate) fn directory(&self) -> File {
        File::open(&self.place).unwrap()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(&self.place).status().unwrap().success();
        let closed = self.device.take().map_or(Ok(()), Loop::close);
        if !std::thread::panicking() {
            assert!(done && closed.is_ok(), "{closed:?}");
        }
    }
}
