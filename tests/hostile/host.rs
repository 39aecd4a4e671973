//! The canary: files of the host that hostile guests name. The kernel tells (inotify(7)) when anybody so much as opens
//! one; what they hold, and what some files of the real host hold, is compared before and after.

use std::collections::BTreeMap;
use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Files of the host that no run may change.
const HOST: [&str; 9] = [
    "/etc/passwd",
    "/etc/shadow",
    "/etc/group",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/machine-id",
    "/etc/fstab",
    "/etc/os-release",
    "/etc/localtime",
];

/// Files of the canary; each has the marker in it.
const FILES: [&str; 18] = [
    "secret",
    "etc/passwd",
    "etc/shadow",
    "etc/group",
    "etc/hostname",
    "etc/hosts",
    "etc/machine-id",
    "etc/fstab",
    "etc/os-release",
    "etc/ssh/ssh_host_rsa_key",
    "etc/ssh/sshd_config",
    "log/syslog",
    "log/old.log.1",
    "log/journal/x.journal",
    "home/.bash_history",
    "home/.ssh/authorized_keys",
    "root/.bash_history",
    "tmp/file~",
];

type Facts = (Option<String>, u64, u32, u32, u64, i64, i64, i64, i64);

/// A folder of the host that nobody may touch.
#[derive(Debug)]
pub(crate) struct Canary {
    folder: TempDir,
    /// What stands in each of its files, and nowhere else.
    pub(crate) marker: String,
    before: BTreeMap<PathBuf, Facts>,
    watch: OwnedFd,
}

impl Canary {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("guestseal-canary-").tempdir_in("/var/lib").unwrap();
        let name = folder.path().file_name().unwrap().to_str().unwrap();
        let marker = format!("HOST-{}-CONTENT", name.to_uppercase());
        for file in FILES {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("root:x:0:0:{marker}:/root:/bin/sh\n")).unwrap();
        }
        nix::unistd::mkfifo(&folder.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let watch = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        Self { folder, marker, before: BTreeMap::new(), watch }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// From here on nobody may come near.
    pub(crate) fn watch(&mut self) {
        self.before = self.facts();
        // Not closing: a neighbour's fork may close what this process had open before.
        let closing = WatchFlags::CLOSE_WRITE | WatchFlags::CLOSE_NOWRITE;
        let flags = WatchFlags::ALL_EVENTS.difference(closing) | WatchFlags::DONT_FOLLOW;
        for folder in self.folders() {
            add_watch(&self.watch, &folder, flags).unwrap();
        }
    }

    /// Fails when somebody came near, or anything is not as it was.
    #[track_caller]
    pub(crate) fn is_untouched(&self, what: &str) {
        assert!(!self.before.is_empty(), "it was not watched");
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.watch, &mut buffer);
        if let Ok(event) = reader.next() {
            panic!("{what}: a file of the host was touched: {:?} {:?}", event.file_name(), event.events());
        }
        // What reading opens must not count against the next run.
        let after = self.facts();
        for (path, facts) in &after {
            assert_eq!(self.before.get(path), Some(facts), "{what}: {} is not as it was", path.display());
        }
        assert_eq!(after.len(), self.before.len(), "{what}: something went from the host");
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.watch, &mut buffer);
        while reader.next().is_ok() {}
    }

    fn folders(&self) -> Vec<PathBuf> {
        let all = walkdir::WalkDir::new(self.path()).into_iter().map(Result::unwrap);
        all.filter(|entry| entry.file_type().is_dir()).map(walkdir::DirEntry::into_path).collect()
    }

    fn facts(&self) -> BTreeMap<PathBuf, Facts> {
        let canary = walkdir::WalkDir::new(self.path()).into_iter().map(|entry| entry.unwrap().into_path());
        let ssh = walkdir::WalkDir::new("/etc/ssh").into_iter().flatten().map(walkdir::DirEntry::into_path);
        let host = HOST.iter().map(PathBuf::from).filter(|path| path.symlink_metadata().is_ok());
        canary.chain(ssh).chain(host).map(|path| (path.clone(), facts_of(&path))).collect()
    }
}

fn facts_of(path: &Path) -> Facts {
    let stat = fs::symlink_metadata(path).unwrap();
    let digest = stat.is_file().then(|| format!("{:x?}", Sha256::digest(fs::read(path).unwrap())));
    // Watching a folder reads it, which changes the time of access of nothing else.
    (
        digest,
        stat.ino(),
        stat.mode(),
        stat.uid(),
        stat.nlink(),
        stat.mtime(),
        stat.mtime_nsec(),
        stat.ctime(),
        stat.ctime_nsec(),
    )
}

#[test]
fn the_canary_sees_who_comes_near() {
    let seen = |touch: fn(&Path)| {
        let mut canary = Canary::new();
        canary.watch();
        canary.is_untouched("nobody came");
        touch(canary.path());
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| canary.is_untouched("on purpose"))).is_err()
    };
    assert!(seen(|path| drop(fs::File::open(path.join("etc/shadow")).unwrap())));
    assert!(seen(|path| drop(fs::read_dir(path.join("log")).unwrap())));
    assert!(seen(|path| fs::write(path.join("log/new"), "").unwrap()));
    assert!(seen(|path| fs::remove_file(path.join("secret")).unwrap()));
    assert!(!seen(|path| assert!(fs::symlink_metadata(path.join("secret")).is_ok())));
}
