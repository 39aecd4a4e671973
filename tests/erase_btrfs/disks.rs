//! Images with one btrfs over all of them, mounted through loop devices.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use guestseal::attach::loopdev::Loop;
use guestseal::erase::extent::Extents;
use guestseal::sys::ioctl::LoopWindow;
use tempfile::TempDir;

use crate::common::{has_tool, is_root, require};

const MIB: u64 = 1 << 20;

/// Whether this machine can run these tests.
pub(crate) fn ready() -> bool {
    require(is_root(), "needs root")
        && require(has_tool("mkfs.btrfs"), "needs mkfs.btrfs")
        && require(Path::new("/dev/loop-control").exists(), "needs loop devices")
        && require(
            fs::read_to_string("/proc/filesystems").is_ok_and(|list| list.contains("\tbtrfs\n")),
            "needs a kernel with btrfs",
        )
}

/// Runs a tool that must succeed, and returns what it printed.
#[track_caller]
#[expect(clippy::disallowed_methods, reason = "the tests run the system's own tools")]
pub(crate) fn tool<A: AsRef<OsStr>>(name: &str, args: impl IntoIterator<Item = A>) -> String {
    let mut command = Command::new("timeout");
    let output = command.args(["120", name]).args(args).env("LC_ALL", "C").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{out}\n{err}", output.status);
    out
}

/// The images of a filesystem, in a folder that goes away with them.
pub(crate) struct Disks {
    folder: TempDir,
    count: usize,
}

impl Disks {
    /// Images full of old data, and a btrfs made over them with these words.
    pub(crate) fn new(count: usize, mebibytes: u64, words: &str) -> Self {
        let disks = Self { folder: tempfile::tempdir().unwrap(), count };
        let line = b"CANARY-before was here before the filesystem was made.\n\n\n\n\n\n\n\n\n\n";
        let old: Vec<u8> = line.iter().copied().cycle().take(1 << 20).collect();
        for path in disks.paths() {
            let file = File::create(path).unwrap();
            (0..mebibytes).for_each(|mebibyte| file.write_all_at(&old, mebibyte * MIB).unwrap());
        }
        let words = ["-q", "-f", "-K"].into_iter().chain(words.split_whitespace()).map(PathBuf::from);
        tool("mkfs.btrfs", words.chain(disks.paths()));
        disks
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = PathBuf> + '_ {
        (1..=self.count).map(|id| self.path(id as u64))
    }

    /// The image that is the device with this id.
    pub(crate) fn path(&self, id: u64) -> PathBuf {
        self.folder.path().join(format!("disk{id}"))
    }

    /// A loop device for each image.
    fn attach(&self, read_only: bool) -> Vec<Loop> {
        let attach = |path| {
            let file = File::options().read(true).write(!read_only).open(path).unwrap();
            let length = file.metadata().unwrap().len();
            Loop::attach(&file, LoopWindow { offset: 0, length, block_size: 512, read_only }).unwrap()
        };
        self.paths().map(attach).collect()
    }

    pub(crate) fn mount(&self, options: &str) -> Mounted {
        let loops = self.attach(options.split(',').any(|option| option == "ro"));
        let folder = tempfile::tempdir().unwrap();
        let mut options = options.to_owned();
        loops.iter().for_each(|device| options += &format!(",device={}", device.path().display()));
        let (device, place) = (loops[0].path().as_os_str(), folder.path().as_os_str());
        let words = ["-t", "btrfs", "-o", &options].map(OsStr::new);
        tool("mount", words.into_iter().chain([device, place]));
        Mounted { loops, folder: Some(folder) }
    }

    /// How often each kind of canary is in the images' bytes.
    pub(crate) fn canaries(&self) -> Vec<(String, usize)> {
        let mut found = BTreeMap::new();
        // It ends with 1 where nothing is found.
        let line = r#"grep -aoh "CANARY-[a-z]*" "$@" || [ $? = 1 ]"#;
        let words = ["-c", line, "grep"].map(PathBuf::from);
        for canary in tool("bash", words.into_iter().chain(self.paths())).lines() {
            *found.entry(canary.to_owned()).or_insert(0) += 1;
        }
        found.into_iter().collect()
    }

    /// Makes extents of a device zero.
    pub(crate) fn zero(&self, id: u64, extents: &Extents) {
        let file = File::options().write(true).open(self.path(id)).unwrap();
        let zeros = vec![0; 1 << 20];
        for extent in extents.iter() {
            let mut at = extent.start;
            while at < extent.end() {
                let length = (extent.end() - at).min(MIB);
                file.write_all_at(&zeros[..usize::try_from(length).unwrap()], at).unwrap();
                at += length;
            }
        }
        assert!(extents.iter().all(|extent| extent.end() <= file.metadata().unwrap().len()));
    }

    /// Checks every tree, checksum and copy.
    pub(crate) fn check(&self) {
        let loops = self.attach(true);
        tool(
            "btrfs",
            ["check", "--check-data-csum"].map(OsStr::new).into_iter().chain([loops[0].path().as_os_str()]),
        );
        loops.into_iter().for_each(|device| device.close().unwrap());
        let mounted = self.mount("rw");
        let said = tool(
            "btrfs",
            ["scrub", "start", "-B", "-R"].map(OsStr::new).into_iter().chain([mounted.path().as_os_str()]),
        );
        let errors = said.lines().filter(|line| line.contains("_errors") || line.contains("discards"));
        assert!(
            errors.clone().count() > 5 && errors.clone().all(|line| line.trim().ends_with(": 0")),
            "{said}"
        );
        mounted.close();
    }
}

/// A mounted filesystem.
pub(crate) struct Mounted {
    loops: Vec<Loop>,
    folder: Option<TempDir>,
}

impl Mounted {
    pub(crate) fn path(&self) -> &Path {
        self.folder.as_ref().unwrap().path()
    }

    pub(crate) fn open(&self) -> File {
        File::open(self.path()).unwrap()
    }

    pub(crate) fn close(mut self) {
        self.unmount();
        for device in std::mem::take(&mut self.loops) {
            device.close().unwrap();
        }
    }

    fn unmount(&mut self) {
        if let Some(folder) = self.folder.take() {
            tool("umount", [folder.path()]);
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.unmount();
    }
}
