//! Images with one filesystem: made, mounted, looked into by the tools.

#![expect(clippy::disallowed_methods, reason = "tests start the tools that they compare with")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use guestseal::attach::loopdev::Loop;
use guestseal::disk::Content;
use guestseal::sys::ioctl::LoopWindow;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use tempfile::TempDir;

/// Whether the tests of this binary can run here. If so, this thread has its own mounts from now on: a copy of them in
/// another namespace would keep a filesystem alive that is unmounted here.
pub(crate) fn possible() -> bool {
    able() && {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        // And the copies of others' go.
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        for place in mounts.lines().filter_map(|line| line.split(' ').nth(4)) {
            if Path::new(place).starts_with(std::env::temp_dir()) {
                let _ = umount2(place, MntFlags::MNT_DETACH);
            }
        }
        true
    }
}

fn able() -> bool {
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
    /// Where the filesystem is in it: first byte and length.
    pub(crate) window: (u64, u64),
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
        let image = Self { folder: tempfile::tempdir().unwrap(), window: (0, bytes) };
        File::create(image.path()).unwrap().set_len(bytes).unwrap();
        image
    }

    /// A raw copy of another image, of whose volumes this is the largest one with an ext4.
    pub(crate) fn copy(other: &str) -> Self {
        let mut image = Self { folder: tempfile::tempdir().unwrap(), window: (0, 0) };
        run("qemu-img", &["convert", "-O", "raw", other, image.path().to_str().unwrap()]);
        let mut file = image.open();
        let length = file.metadata().unwrap().len();
        let volumes = guestseal::disk::read_disk(&mut file, length).unwrap().volumes;
        let ext4 = |volume: &&guestseal::disk::Volume| {
            volume.superblock.as_ref().is_some_and(|superblock| superblock.content == Content::Ext4)
        };
        let volume = volumes.iter().filter(ext4).max_by_key(|volume| volume.length).unwrap();
        image.window = (volume.offset, volume.length);
        image
    }

    pub(crate) fn format(&self, options: &str) {
        let path = self.path();
        let mut args: Vec<&str> = vec!["-q", "-F"];
        args.extend(options.split_whitespace());
        args.push(path.to_str().unwrap());
        run("mkfs.ext4", &args);
    }

    /// Writes `word` all over it.
    pub(crate) fn fill(&self, word: &str) {
        let lot = word.repeat((1 << 20) / word.len() + 1);
        let file = self.open();
        for at in (0..self.window.1).step_by(1 << 20) {
            file.write_all_at(&lot.as_bytes()[..1 << 20], at).unwrap();
        }
    }

    /// Where `pattern` is in its bytes, with what follows.
    pub(crate) fn search(&self, pattern: &str) -> Vec<String> {
        let (path, pattern) = (self.path(), format!("({pattern})[ -~]{{0,24}}"));
        let args = ["-abo", "-E", &pattern, path.to_str().unwrap()];
        let output = Command::new("grep").args(args).env("LC_ALL", "C").output().unwrap();
        assert!(output.status.code().unwrap() < 2, "grep: {output:?}");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }

    /// Whether `word` is in its bytes.
    pub(crate) fn has(&self, word: &str) -> bool {
        Command::new("grep").args(["-aqF", word]).arg(self.path()).status().unwrap().success()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    pub(crate) fn open(&self) -> File {
        File::options().read(true).write(true).open(self.path()).unwrap()
    }

    /// Mounts it with these options.
    pub(crate) fn mount(&self, options: &str) -> Mounted {
        self.mount_as("ext4", options)
    }

    /// The same for another filesystem; the crate's own loop device is none that another process wants.
    pub(crate) fn mount_as(&self, kind: &str, options: &str) -> Mounted {
        let place = self.folder.path().join("mounted");
        std::fs::create_dir_all(&place).unwrap();
        let window =
            LoopWindow { offset: self.window.0, length: self.window.1, block_size: 512, read_only: false };
        let device = Loop::attach(self.open(), window).unwrap();
        run("mount", &["-t", kind, "-o", options, device.path().to_str().unwrap(), place.to_str().unwrap()]);
        Mounted { place, device: Some(device) }
    }

    /// Runs `e2fsck -fn`, which must find nothing.
    pub(crate) fn check(&self) {
        run("e2fsck", &["-fn", &format!("{}?offset={}", self.path().display(), self.window.0)]);
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
        // A child that another test is about to start holds, for a moment, what is open here.
        let unmount = || umount2(&self.place, MntFlags::empty());
        let mut done = unmount();
        for _ in 0..100 {
            if done != Err(nix::errno::Errno::EBUSY) {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
            done = unmount();
        }
        let closed = self.device.take().map_or(Ok(()), Loop::close);
        if !std::thread::panicking() {
            assert!(done.is_ok() && closed.is_ok(), "{done:?}, {closed:?}");
        }
    }
}
