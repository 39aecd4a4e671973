//! The locks of the worker, tried from the inside: this test runs itself again, lets `confine` shut that process in a
//! folder, and has it try what a hostile guest would like. The same attempts without the locks must succeed, or they
//! would show nothing. Needs root.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails or says so")]

mod common;

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use guestseal::erase::fingerprint::sample::Sampler;
use guestseal::guest::GuestRoot;
use guestseal::guest::change::{Change, Content, NewFile};
use guestseal::sys::confine::{Reach, confine};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, open, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::kill;
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, mknod};
use nix::unistd::{Pid, chroot, execv, getppid, pivot_root, sethostname};
use rustix::fs::{IFlags, XattrFlags, ioctl_getflags, ioctl_setflags};

/// The variable that makes `the_confined_one` work; its value is `write`, `read` or `free`, and the folder.
const ROLE: &str = "GUESTSEAL_TEST_CONFINED";

const LABEL: &str = "security.selinux";
const TRUSTED: &str = "trusted.guestseal";

#[expect(clippy::disallowed_methods, reason = "a test that is to run itself")]
fn role() -> Option<(String, PathBuf)> {
    let value = std::env::var(ROLE).ok()?;
    let (role, folder) = value.split_once(':')?;
    Some((role.to_owned(), folder.into()))
}

#[expect(clippy::disallowed_methods, reason = "a test that runs itself and the system's tools")]
fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(program)
}

/// Runs this test again in that role, in mount and host name namespaces of its own; what each attempt came to.
fn attempts(role: &str) -> BTreeMap<String, String> {
    let folder = tempfile::tempdir().unwrap();
    prepare(folder.path());
    let mut sleeper = command("sleep").arg("100").spawn().unwrap();
    let mut run = command("timeout");
    run.args(["60", "unshare", "--mount", "--uts", "--propagation", "private"]);
    run.arg(std::env::current_exe().unwrap()).args(["--exact", "the_confined_one", "--nocapture"]);
    run.env(ROLE, format!("{role}:{}", folder.path().display())).env("SLEEPER", sleeper.id().to_string());
    let mut run = run.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    run.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    let status = run.wait().unwrap();
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    println!("{role}: {status}\n{text}");
    let lines = text.lines().filter_map(|line| line.strip_prefix("tried ")?.split_once(": "));
    let tried: BTreeMap<_, _> = lines.map(|(what, came)| (what.to_owned(), came.to_owned())).collect();
    assert!(tried.len() > 20, "{tried:#?}");
    tried
}

/// An ext4 image for the guest's root, and things of the host beside it.
fn prepare(folder: &Path) {
    let file = File::create(folder.join("disk")).unwrap();
    file.set_len(16 << 20).unwrap();
    let made = command("mkfs.ext4").arg("-q").arg(folder.join("disk")).status().unwrap();
    assert!(made.success());
    for name in ["root", "outside", "outside/sub"] {
        fs::create_dir(folder.join(name)).unwrap();
    }
    fs::write(folder.join("outside/file"), "host").unwrap();
}

fn tell<T, E: std::fmt::Display>(what: &str, came: Result<T, E>) {
    let came = came.map_or_else(|error| error.to_string(), |_| "done".to_owned());
    // Not println: that goes by the test harness, which has locks of its own.
    let _ = writeln!(std::io::stdout(), "tried {what}: {came}");
}

/// A call of nix in the words of the standard library.
fn nix<T>(came: nix::Result<T>) -> std::io::Result<T> {
    came.map_err(std::io::Error::from)
}

#[test]
fn the_confined_one() {
    let Some((role, folder)) = role() else { return };
    #[expect(clippy::disallowed_methods, reason = "its parent tells it so")]
    let sleeper: i32 = std::env::var("SLEEPER").unwrap().parse().unwrap();
    let root = folder.join("root");
    let mounted = command("mount").args(["-o", "loop"]).args([folder.join("disk"), root.clone()]).status();
    assert!(mounted.unwrap().success());
    fs::create_dir(root.join("mnt")).unwrap();
    mount(Some("sub"), &root.join("mnt"), Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
    populate(&root);
    let guest = GuestRoot::open(&root).unwrap();
    let before = Before::open(&folder);
    if role != "free" {
        let reach = if role == "write" { Reach::Write } else { Reach::Read };
        let confinement = confine(guest.as_fd(), reach).unwrap();
        println!("{confinement:?}");
        assert!(confinement.seccomp && confinement.landlock.is_some_and(|abi| abi >= 1), "{confinement:?}");
    }
    inside(&root, &guest);
    outside(&folder, &before);
    beyond_files(&folder, &before, sleeper);
}

fn populate(root: &Path) {
    for folder in ["etc", "log/deep/er", "mnt/log"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for file in ["etc/shadow", "log/deep/er/x", "log/y", "mnt/log/x", "gone", "emptied", "moved"] {
        fs::write(root.join(file), "old").unwrap();
    }
    let shadow = root.join("etc/shadow");
    chown(&shadow, Some(12), Some(34)).unwrap();
    fs::set_permissions(&shadow, PermissionsExt::from_mode(0o4751)).unwrap();
    rustix::fs::setxattr(&shadow, LABEL, b"system_u:object_r:no_such_type_t:s0\0", XattrFlags::empty())
        .unwrap();
    rustix::fs::setxattr(&shadow, TRUSTED, b"y", XattrFlags::empty()).unwrap();
    for file in ["etc/shadow", "gone", "emptied", "log/deep"] {
        let file = File::open(root.join(file)).unwrap();
        ioctl_setflags(&file, ioctl_getflags(&file).unwrap() | IFlags::IMMUTABLE).unwrap();
    }
    let sampled = File::create(root.join("sampled")).unwrap();
    sampled.write_all_at(b"one that is long enough to have fingerprints", 1 << 20).unwrap();
    symlink("/etc/hostname", root.join("out")).unwrap();
}

/// Descriptors of the host that something may have left open.
struct Before {
    outside: OwnedFd,
    names: OwnedFd,
    file: File,
}

impl Before {
    fn open(folder: &Path) -> Self {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
        Self {
            outside: open(&folder.join("outside"), flags, Mode::empty()).unwrap(),
            names: File::open("/proc/self/ns/uts").unwrap().into(),
            file: File::open(folder.join("outside/file")).unwrap(),
        }
    }
}

/// What editing does; all of it must go on working.
fn inside(root: &Path, guest: &GuestRoot) {
    let new = NewFile { mode: 0o2750, uid: 1, gid: 2 };
    let content = Content(b"new".to_vec());
    let path = |path: &str| PathBuf::from(path);
    let changes = [
        ("in replace", Change::Replace { path: path("/etc/shadow"), content: content.clone(), new }),
        ("in write new", Change::Replace { path: path("/etc/new"), content: content.clone(), new }),
        ("in folder", Change::Folder { path: path("/etc/folder"), new }),
        ("in link", Change::Link { path: path("/etc/link"), target: path("/x") }),
        ("in truncate", Change::Truncate { path: path("/emptied"), bytes: 3 }),
        (
            "in remove",
            Change::Remove { path: path("/gone"), kind: guestseal::guest::FileKind::File, bytes: 3 },
        ),
        ("in remove tree", Change::RemoveTree { path: path("/log"), bytes: 6, entries: 4 }),
        ("in submount", Change::RemoveTree { path: path("/mnt/log"), bytes: 3, entries: 1 }),
        ("in submount new", Change::Replace { path: path("/mnt/new"), content, new }),
        ("in mode", Change::Mode { path: path("/moved"), mode: 0o600 }),
        ("in owner", Change::Owner { path: path("/moved"), uid: 3, gid: 4 }),
        ("in touch", Change::Touch { path: path("/moved") }),
        ("in copy", Change::Copy { from: path("/moved"), path: path("/etc/copied") }),
        ("in move", Change::Move { from: path("/moved"), path: path("/etc/moved") }),
        ("in move to submount", Change::Move { from: path("/etc/moved"), path: path("/mnt/moved") }),
    ];
    for (what, change) in changes {
        tell(what, change.make(guest).map_err(|error| error.chain()));
    }
    tell("read in", guest.names(Path::new("/etc")).map_err(|error| error.chain()));
    tell("read in file", guest.read(Path::new("/etc/shadow")).map_err(|error| error.chain()));
    tell("read in measure", guest.measure(Path::new("/")).map_err(|error| error.chain()));
    tell("read in fingerprints", sampled(guest));
    tell("read in link", guest.resolve(Path::new("/out")).map_err(|error| error.chain()));
    let is = || -> Option<()> {
        let file = File::open(root.join("etc/shadow")).ok()?;
        let mut value = [0; 64];
        let label = rustix::fs::fgetxattr(&file, LABEL, &mut value).ok()?;
        (&value[..label] == b"system_u:object_r:no_such_type_t:s0\0").then_some(())?;
        (rustix::fs::fgetxattr(&file, TRUSTED, &mut value).ok()? == 1).then_some(())?;
        let stat = file.metadata().ok()?;
        let flags = ioctl_getflags(&file).ok()?;
        (stat.len() == 3 && (stat.uid(), stat.gid(), stat.mode() & 0o7777) == (12, 34, 0o4751))
            .then_some(())?;
        let folder = File::open(root.join("etc/folder")).ok()?.metadata().ok()?;
        ((folder.uid(), folder.gid(), folder.mode() & 0o7777) == (1, 2, 0o2750)).then_some(())?;
        flags.contains(IFlags::IMMUTABLE).then_some(())
    };
    tell("in kept", is().ok_or("owner, mode, label, trusted or immutable were lost"));
}

/// Fingerprints of a file with a hole.
fn sampled(guest: &GuestRoot) -> Result<(), String> {
    let change = Change::Truncate { path: "/sampled".into(), bytes: 1 };
    let (mut sampler, mut came) = (Sampler::default(), String::from("nothing"));
    sampler.before(guest, &change, &mut |_, _| {});
    sampler.flush(&mut |windows, coverage| came = format!("{} windows: {coverage:?}", windows.len()));
    if came.starts_with("1 windows") { Ok(()) } else { Err(came) }
}

/// What reaches files of the host.
fn outside(folder: &Path, before: &Before) {
    let host = folder.join("outside");
    let file = host.join("file");
    tell("out read", File::open(&file));
    tell("out read system", File::open("/etc/passwd"));
    tell("out list", fs::read_dir(&host));
    tell("out by descriptor", nix(openat(&before.outside, "file", OFlag::O_RDONLY, Mode::empty())));
    tell("out by dots", File::open(folder.join("root/../outside/file")));
    tell("out by proc", File::open("/proc/self/environ"));
    tell("out write", fs::write(&file, "x"));
    tell("out append", File::options().append(true).open(&file));
    tell("out truncate", nix(nix::unistd::truncate(&file, 1)));
    tell("out make", File::create(host.join("new")));
    tell("out folder", fs::create_dir(host.join("folder")));
    tell("out link", symlink("/x", host.join("link")));
    tell("out hard link", fs::hard_link(&file, folder.join("outside/hard")));
    tell(
        "out rename",
        fs::rename(&file, host.join("renamed")).and_then(|()| fs::rename(host.join("renamed"), &file)),
    );
    tell("out mode", fs::set_permissions(&file, PermissionsExt::from_mode(0o600)));
    tell("out mode at", nix(fchmodat(&before.outside, "file", Mode::S_IRUSR, FchmodatFlags::FollowSymlink)));
    tell("out owner", chown(&file, Some(1), Some(1)));
    tell(
        "out attribute",
        rustix::fs::setxattr(&file, TRUSTED, b"x", XattrFlags::empty()).map_err(std::io::Error::from),
    );
    tell("out attribute off", rustix::fs::removexattr(&file, TRUSTED).map_err(std::io::Error::from));
    let times = nix::sys::time::TimeSpec::new(1, 0);
    let follow = nix::sys::stat::UtimensatFlags::FollowSymlink;
    tell("out times", nix(nix::sys::stat::utimensat(&before.outside, "file", &times, &times, follow)));
    tell("out remove folder", fs::remove_dir(host.join("sub")));
    tell("out remove", fs::remove_file(&file));
    tell("out device", nix(mknod(&folder.join("root/null"), SFlag::S_IFCHR, Mode::S_IRUSR, 0x103)));
    tell("out fifo", nix(mknod(&folder.join("root/fifo"), SFlag::S_IFIFO, Mode::S_IRUSR, 0)));
}

/// What is no file: processes, namespaces, mounts, sockets, requests to the kernel.
fn beyond_files(folder: &Path, before: &Before, sleeper: i32) {
    let host = folder.join("outside");
    let none = None::<&str>;
    tell("sys fork", command("true").status());
    tell("sys socket", UnixDatagram::unbound());
    tell("sys connect", std::net::TcpListener::bind("127.0.0.1:0"));
    tell("sys socket pair", UnixDatagram::pair());
    tell("sys signal", nix(kill(getppid(), None)));
    tell("sys signal other", nix(kill(Pid::from_raw(sleeper), None)));
    tell("sys trace", nix(nix::sys::ptrace::attach(Pid::from_raw(sleeper))));
    tell(
        "sys limits",
        rustix::process::prlimit(
            rustix::process::Pid::from_raw(sleeper),
            rustix::process::Resource::Core,
            rustix::process::Rlimit { current: Some(0), maximum: Some(0) },
        )
        .map_err(std::io::Error::from),
    );
    tell("sys pipe size", nix(nix::fcntl::fcntl(std::io::stdout().as_fd(), FcntlArg::F_GETPIPE_SZ)));
    tell("sys ioctl", rustix::io::ioctl_fionread(&before.file).map_err(std::io::Error::from));
    tell("sys mount", nix(mount(Some("x"), &host, Some("tmpfs"), MsFlags::empty(), none)));
    tell("sys bind", nix(mount(Some("/"), &folder.join("root/mnt"), none, MsFlags::MS_BIND, none)));
    tell("sys unmount", nix(umount2(&folder.join("root/mnt"), MntFlags::MNT_DETACH)));
    tell("sys host name", nix(sethostname("guestseal-test")));
    tell("sys enter", nix(setns(&before.names, CloneFlags::CLONE_NEWUTS)));
    tell("sys unshare", nix(unshare(CloneFlags::CLONE_NEWNET)));
    tell("sys unshare user", nix(unshare(CloneFlags::CLONE_NEWUTS)));
    tell("sys pivot", nix(pivot_root(&folder.join("root"), &folder.join("root/mnt"))));
    tell("sys chroot", nix(chroot("/")));
    // Without locks the kernel gets as far as looking for it.
    let program = CString::new("/no/such/program").unwrap();
    let ran = execv(&program, &[program.as_c_str()]).map(drop);
    tell("sys exec", nix(if ran == Err(Errno::ENOENT) { Ok(()) } else { ran }));
}

fn ready() -> bool {
    common::require(nix::unistd::geteuid().is_root(), "needs root")
        && common::require(Path::new("/dev/loop-control").exists(), "needs loop devices")
        && common::require(Path::new("/usr/sbin/mkfs.ext4").exists(), "needs mkfs.ext4")
}

#[test]
fn the_locks_hold() {
    if !ready() {
        return;
    }
    let (free, write, read) = (attempts("free"), attempts("write"), attempts("read"));
    let refused = |came: &str| {
        came.contains("(os error 1)") || came.contains("(os error 13)") || came.contains("EACCES")
    };
    let failed =
        |tried: &BTreeMap<String, String>, what: &str| tried.get(what).is_some_and(|came| refused(came));
    let undone: Vec<_> = free.iter().filter(|(_, came)| *came != "done").collect();
    assert!(undone.is_empty(), "not to be done without locks either: {undone:#?}");
    for what in free.keys() {
        let may = what.starts_with("in ") || what.starts_with("read ");
        assert!(if may { write[what] == "done" } else { failed(&write, what) }, "{what}: {}", write[what]);
        let may = what.starts_with("read ");
        assert!(
            if may { read[what] == "done" } else { read[what] != "done" },
            "only reading, {what}: {}",
            read[what]
        );
    }
}
