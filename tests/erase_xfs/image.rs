//! An image of one XFS filesystem, mounted through a loop device of its own.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use guestseal::erase::map::fsmap::free_extents;
use guestseal::erase::metadata::{Act, Remains, xfs};
use guestseal::erase::volume::VolumeBytes;
use tempfile::TempDir;

use crate::common::{has_tool, is_root, require};

/// What all deleted things have in their names and contents.
pub(crate) const GONE: &str = "GONE-";

pub(crate) fn ready() -> bool {
    require(is_root(), "needs root")
        && ["mkfs.xfs", "xfs_repair", "xfs_db", "mount", "umount", "grep", "timeout"]
            .iter()
            .all(|tool| require(has_tool(tool), &format!("needs {tool}")))
        && require(Path::new("/dev/loop-control").exists(), "needs loop devices")
}

/// Gives this test mounts of its own: whoever copies the host's would keep them from being unmounted.
fn alone() {
    use nix::mount::{MsFlags, mount};
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
}

/// Runs a tool; whether it succeeded, and all that it said.
#[expect(clippy::disallowed_methods, reason = "the tests run the system's own tools")]
pub(crate) fn run(tool: &str, args: &[&str]) -> (bool, String) {
    let mut command = Command::new("timeout");
    command.args(["120", tool]).args(args);
    // Allows the small logs of small filesystems.
    command.envs([("LC_ALL", "C"), ("TEST_DIR", "1"), ("TEST_DEV", "1"), ("QA_CHECK_FS", "1")]);
    let out = command.output().unwrap();
    (out.status.success(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
}

#[track_caller]
pub(crate) fn tool(tool: &str, args: &[&str]) -> String {
    let (ok, said) = run(tool, args);
    assert!(ok, "{tool} {args:?}: {said}");
    said
}

pub(crate) struct Image {
    folder: TempDir,
}

impl Image {
    /// Makes a filesystem with these options of mkfs.xfs.
    pub(crate) fn new(mib: u64, options: &str) -> Self {
        alone();
        let image = Self { folder: tempfile::tempdir().unwrap() };
        File::create(image.path()).unwrap().set_len(mib << 20).unwrap();
        let path = image.path().display().to_string();
        let args: Vec<&str> = ["-qf"].into_iter().chain(options.split_whitespace()).chain([&*path]).collect();
        tool("mkfs.xfs", &args);
        std::fs::create_dir(image.folder.path().join("mounted")).unwrap();
        image
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    pub(crate) fn open(&self) -> File {
        File::options().read(true).write(true).open(self.path()).unwrap()
    }

    /// Does something to the mounted filesystem.
    pub(crate) fn mounted<T>(&self, options: &str, act: impl FnOnce(&Path) -> T) -> T {
        let point = self.folder.path().join("mounted");
        let options = format!("loop,nouuid,{options}");
        tool("mount", &["-t", "xfs", "-o", &options, self.path().to_str().unwrap(), point.to_str().unwrap()]);
        let guard = Mounted(&point);
        let out = act(&point);
        drop(guard);
        out
    }

    #[track_caller]
    pub(crate) fn walk(&self, act: Act) -> Vec<Remains> {
        self.try_walk(act).unwrap_or_else(|error| panic!("{act:?}: {}", error.chain()))
    }

    pub(crate) fn try_walk(&self, act: Act) -> guestseal::Result<Vec<Remains>> {
        let file = self.open();
        xfs::walk(&VolumeBytes::new(&file, 0, file.metadata().unwrap().len()), act)
    }

    /// What `xfs_repair -n` says, which must be nothing bad.
    #[track_caller]
    pub(crate) fn is_sound(&self) {
        tool("xfs_repair", &["-n", self.path().to_str().unwrap()]);
    }

    /// Makes the free space zero, as a fresh mount tells it.
    pub(crate) fn zero_free_space(&self) {
        let free = self.mounted("ro", |point| free_extents(File::open(point).unwrap()).unwrap());
        let file = self.open();
        for extent in free.iter() {
            let mode = nix::fcntl::FallocateFlags::FALLOC_FL_PUNCH_HOLE
                | nix::fcntl::FallocateFlags::FALLOC_FL_KEEP_SIZE;
            let [start, length] = [extent.start, extent.length].map(|bytes| i64::try_from(bytes).unwrap());
            nix::fcntl::fallocate(&file, mode, start, length).unwrap();
        }
    }

    /// Where on the image deleted things are, at most a few.
    pub(crate) fn traces(&self) -> Vec<String> {
        let (_, found) = run("grep", &["-aobE", &format!("{GONE}[a-z0-9-]+"), self.path().to_str().unwrap()]);
        found.lines().map(str::to_owned).collect()
    }

    /// Bytes that the image takes on its disk.
    pub(crate) fn taken(&self) -> u64 {
        let file = self.open();
        file.sync_all().unwrap();
        file.metadata().unwrap().blocks() * 512
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        self.open().write_all_at(bytes, at).unwrap();
    }
}

/// Unmounts, also when the test fails.
struct Mounted<'p>(&'p Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let (ok, said) = run("umount", &[self.0.to_str().unwrap()]);
        assert!(ok || std::thread::panicking(), "umount: {said}");
    }
}

/// What was found of one kind.
#[track_caller]
pub(crate) fn of<'r>(remains: &'r [Remains], kind: &str) -> &'r Remains {
    remains.iter().find(|remains| remains.kind == kind).unwrap_or_else(|| panic!("no {kind} in {remains:?}"))
}

/// Fails when there is anything left.
#[track_caller]
pub(crate) fn nothing_in(remains: &[Remains]) {
    assert!(remains.iter().all(|remains| remains.nonzero == 0), "{remains:?}");
}
