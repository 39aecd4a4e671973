//! What a hostile guest may hold, against everything that looks at it or changes it: nothing outside the guest's root
//! is read or touched, nothing blocks, and nothing is too deep, too long or too large.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use common::{is_root, require};
use guestseal::guest::change::{Change, Content, NewFile};
use guestseal::guest::glob::Pattern;
use guestseal::guest::{Entry, FileKind, GuestRoot};
use nix::sys::stat::{Mode, SFlag, mknod};
use tempfile::TempDir;

#[path = "guest_root/attributes.rs"]
mod attributes;
#[path = "guest_root/large.rs"]
mod large;
#[path = "guest_root/links.rs"]
mod links;
#[path = "guest_root/places.rs"]
mod places;

/// A guest's root with a folder of the host beside it that must never be touched.
struct Arena {
    folder: TempDir,
}

const CANARY: &str = "the canary of the host";

impl Arena {
    fn new() -> Self {
        let arena = Self { folder: TempDir::new().unwrap() };
        fs::create_dir(arena.guest("")).unwrap();
        fs::create_dir_all(arena.outside("below")).unwrap();
        for name in ["secret", "below/secret"] {
            fs::write(arena.outside(name), CANARY).unwrap();
        }
        arena
    }

    /// Where a file of the guest is on the host.
    fn guest(&self, path: &str) -> PathBuf {
        self.folder.path().join("guest").join(path)
    }

    fn outside(&self, path: &str) -> PathBuf {
        self.folder.path().join("outside").join(path)
    }

    fn root(&self) -> GuestRoot {
        GuestRoot::open(&self.guest("")).unwrap()
    }

    fn link(&self, at: &str, to: impl AsRef<Path>) {
        let at = self.guest(at);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        symlink(to, at).unwrap();
    }

    fn file(&self, at: &str, content: &str) {
        let at = self.guest(at);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, content).unwrap();
    }

    /// Everything about the files outside: content, owner, mode, times, number of names.
    fn canaries(&self) -> Vec<(PathBuf, Option<Vec<u8>>, [i64; 9])> {
        let mut seen = Vec::new();
        for path in ["", "secret", "below", "below/secret"].map(|name| self.outside(name)) {
            let stat = fs::symlink_metadata(&path).unwrap();
            let numbers = [
                i64::from(stat.mode()),
                i64::from(stat.uid()),
                i64::from(stat.gid()),
                i64::try_from(stat.nlink()).unwrap(),
                i64::try_from(stat.size()).unwrap(),
                stat.mtime(),
                stat.mtime_nsec(),
                stat.ctime(),
                stat.ctime_nsec(),
            ];
            let content = stat.is_file().then(|| fs::read(&path).unwrap());
            seen.push((path, content, numbers));
        }
        let names = fs::read_dir(self.outside("")).unwrap().count()
            + fs::read_dir(self.folder.path()).unwrap().count();
        assert_eq!(names, 4, "something was made outside of the guest");
        seen
    }
}

/// Something in a guest that wants to lead guestseal astray, and the path by which it is met.
type Attack = (&'static str, fn(&Arena) -> PathBuf);

const UP: &str = "../../../../../../../../../../../../../../..";

fn upwards(arena: &Arena, name: &str) -> PathBuf {
    Path::new(UP).join(arena.outside(name).strip_prefix("/").unwrap())
}

const ATTACKS: [Attack; 21] = [
    ("an absolute link to a file", |arena| {
        arena.link("x", arena.outside("secret"));
        "/x".into()
    }),
    ("an absolute link to a folder", |arena| {
        arena.link("x", arena.outside(""));
        "/x".into()
    }),
    ("a link with .. to a file", |arena| {
        arena.link("a/b/x", upwards(arena, "secret"));
        "/a/b/x".into()
    }),
    ("a link with .. to the folder beside", |arena| {
        arena.link("x", "../outside");
        "/x".into()
    }),
    ("an absolute link as parent", |arena| {
        arena.link("x", arena.outside(""));
        "/x/secret".into()
    }),
    ("a link with .. as parent", |arena| {
        arena.link("a/x", "../../outside");
        "/a/x/secret".into()
    }),
    ("a link as parent of the parent", |arena| {
        arena.link("a/x", upwards(arena, ""));
        "/a/x/below/secret".into()
    }),
    ("a link as parent, to a folder to be removed", |arena| {
        arena.link("x", "../outside");
        "/x/below".into()
    }),
    ("a chain of links", |arena| {
        for number in 0..10 {
            arena.link(&format!("x{number}"), format!("x{}", number + 1));
        }
        arena.link("x10", arena.outside("secret"));
        "/x0".into()
    }),
    ("a chain of links that is too long", |arena| {
        for number in 0..50 {
            arena.link(&format!("x{number}"), format!("/x{}", number + 1));
        }
        arena.link("x50", arena.outside(""));
        "/x0/secret".into()
    }),
    ("two links that lead to one another", |arena| {
        arena.link("x", "y");
        arena.link("y", "/x");
        "/x/secret".into()
    }),
    ("a link to itself", |arena| {
        arena.link("x", "x");
        "/x".into()
    }),
    ("a path with ..", |_| "/../outside/secret".into()),
    ("a path with .. after a folder", |arena| {
        arena.file("a/b", "");
        "/a/../../outside/secret".into()
    }),
    ("a link through the process's own folders", |arena| {
        arena.link("x", format!("/proc/self/root{}", arena.outside("").display()));
        "/x/secret".into()
    }),
    ("a file as parent", |arena| {
        arena.file("x", "");
        "/x/secret".into()
    }),
    ("a FIFO", |arena| {
        nix::unistd::mkfifo(&arena.guest("x"), Mode::S_IRWXU).unwrap();
        "/x".into()
    }),
    ("a link to a FIFO", |arena| {
        nix::unistd::mkfifo(&arena.guest("y"), Mode::S_IRWXU).unwrap();
        arena.link("x", "y");
        "/x".into()
    }),
    ("a socket", |arena| {
        drop(std::os::unix::net::UnixListener::bind(arena.guest("x")).unwrap());
        "/x".into()
    }),
    ("nothing at all", |_| "/x".into()),
    ("a folder at the root", |arena| {
        arena.file("guestseal-attack/x", "");
        "/guestseal-attack".into()
    }),
];

/// Names that somebody's shell, parser or terminal would stumble over.
fn odd_names() -> Vec<OsString> {
    let mut names: Vec<OsString> =
        ["-rf", "--", "a\nb", "a b", "*", "?[x]", "{a,b}", "~", "$(reboot)", "\u{1b}[2J", "'\"", "\\", "…"]
            .map(OsString::from)
            .into();
    names.push(OsString::from_vec(vec![0xff, 0xfe, b'x']));
    names.push(OsString::from("n".repeat(255)));
    names
}

/// Something that looks at a path or changes it; what it read, if anything.
type Primitive = (&'static str, fn(&GuestRoot, &Path) -> Option<Vec<u8>>);

fn make(change: &Change, root: &GuestRoot) -> Option<Vec<u8>> {
    // Whether it can be made is the attack's affair; that it does no harm is ours.
    let _ = change.make(root);
    None
}

fn found(root: &GuestRoot, glob: &str) -> Vec<Entry> {
    let mut found = Vec::new();
    // A path that is no glob finds nothing.
    if let Ok(pattern) = Pattern::parse(glob) {
        pattern.find(root, &[PathBuf::from("/")], &mut found).unwrap();
    }
    found
}

fn remove_found(root: &GuestRoot, glob: &str) {
    for entry in found(root, glob) {
        let path = entry.path.clone();
        match entry.kind {
            FileKind::Folder => Change::RemoveTree { path, bytes: 0, entries: 0 }.make(root).unwrap(),
            kind => Change::Remove { path, kind, bytes: 0 }.make(root).unwrap(),
        }
    }
}

const PRIMITIVES: [Primitive; 27] = [
    ("lookup", |root, path| root.lookup(path).unwrap().map(|entry| entry.path.into_os_string().into_vec())),
    ("resolve", |root, path| {
        root.resolve(path).unwrap();
        None
    }),
    ("read", |root, path| root.read(path).unwrap()),
    ("read_text", |root, path| Some(root.read_text(path.to_str()?).unwrap().into_bytes())),
    ("read_head", |root, path| Some(root.read_head(path, 100).unwrap())),
    ("read_link", |root, path| {
        root.read_link(path).unwrap();
        None
    }),
    ("names", |root, path| Some(root.names(path).unwrap().join(OsStr::new("\n")).into_vec())),
    ("measure", |root, path| {
        assert_eq!(root.measure(path).unwrap().1, 0, "files of the host were measured");
        None
    }),
    ("open_folder", |root, path| {
        let _ = root.open_folder(path);
        None
    }),
    ("glob", |root, path| {
        found(root, path.to_str()?);
        found(root, &format!("{}/*", path.to_str()?))
            .first()
            .map(|entry| entry.path.as_os_str().as_bytes().to_vec())
    }),
    ("remove what a glob finds", |root, path| {
        for end in ["", "/*", "/**", "/**/secret", "/{secret,below}", "/below/*"] {
            remove_found(root, &format!("{}{end}", path.to_str()?.trim_end_matches('/')));
            remove_found(root, &format!("~{}{end}", path.to_str()?.trim_end_matches('/')));
        }
        None
    }),
    ("remove", |root, path| {
        make(&Change::Remove { path: path.into(), kind: FileKind::File, bytes: 0 }, root)
    }),
    ("remove_tree", |root, path| make(&Change::RemoveTree { path: path.into(), bytes: 0, entries: 0 }, root)),
    ("truncate", |root, path| make(&Change::Truncate { path: path.into(), bytes: 1 }, root)),
    ("replace", |root, path| {
        make(
            &Change::Replace {
                path: path.into(),
                content: Content(b"new".into()),
                new: NewFile::root(0o777),
            },
            root,
        )
    }),
    ("link", |root, path| make(&Change::Link { path: path.into(), target: "target".into() }, root)),
    ("bring", |root, path| {
        let change =
            Change::Bring { path: path.into(), source: 0, new: NewFile::root(0o777), modified: None };
        let _ = change.make_with(root, &mut places::Pieces(vec![b"new".to_vec()]));
        None
    }),
    ("mode", |root, path| make(&Change::Mode { path: path.into(), mode: 0o777 }, root)),
    ("owner", |root, path| make(&Change::Owner { path: path.into(), uid: 12, gid: 34 }, root)),
    ("touch", |root, path| make(&Change::Touch { path: path.into() }, root)),
    ("move to", |root, path| make(&Change::Move { from: "/mine".into(), path: path.into() }, root)),
    ("copy to", |root, path| make(&Change::Copy { from: "/mine".into(), path: path.into() }, root)),
    ("move into", |root, path| make(&Change::Move { from: "/mine".into(), path: path.join("new") }, root)),
    ("move from, and read", |root, path| {
        make(&Change::Move { from: path.into(), path: "/taken".into() }, root);
        root.read(Path::new("/taken")).ok().flatten()
    }),
    ("copy from, and read", |root, path| {
        make(&Change::Copy { from: path.into(), path: "/taken".into() }, root);
        root.read(Path::new("/taken")).ok().flatten()
    }),
    ("folder", |root, path| make(&Change::Folder { path: path.into(), new: NewFile::root(0o777) }, root)),
    ("folder below", |root, path| {
        make(&Change::Folder { path: path.join("new"), new: NewFile::root(0o777) }, root)
    }),
];

/// Runs the work in a thread of its own: what blocks fails the test instead of hanging it.
fn in_time(what: &str, work: impl FnOnce() + Send + 'static) {
    let (done, wait) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        work();
        let _ = done.send(());
    });
    let answer = wait.recv_timeout(Duration::from_secs(30));
    assert!(answer != Err(mpsc::RecvTimeoutError::Timeout), "{what}: it blocks");
    assert!(worker.join().is_ok(), "{what}: it failed");
}

#[test]
fn no_attack_leads_any_primitive_out_of_the_guest() {
    for (attack, set_up) in ATTACKS {
        for (primitive, run) in PRIMITIVES {
            in_time(&format!("{primitive} against {attack}"), move || {
                let arena = Arena::new();
                let path = set_up(&arena);
                let before = arena.canaries();
                let read = run(&arena.root(), &path).unwrap_or_default();
                let read = String::from_utf8_lossy(&read).into_owned();
                assert!(!read.contains("canary"), "{primitive} against {attack} read a file of the host");
                assert!(
                    primitive != "names" || !read.contains("secret"),
                    "{primitive} against {attack} listed the host"
                );
                assert!(
                    arena.canaries() == before,
                    "{primitive} against {attack} touched a file of the host"
                );
            });
        }
    }
}

#[test]
fn device_nodes_are_looked_at_and_removed_but_never_opened() {
    if !require(is_root(), "only root can make device nodes") {
        return;
    }
    for (primitive, run) in PRIMITIVES {
        in_time(&format!("{primitive} against a device"), move || {
            let arena = Arena::new();
            // 5:0 is /dev/tty, which cannot be opened without a terminal; 1:5 is /dev/zero, which never ends.
            for (name, minor) in
                [("x", nix::sys::stat::makedev(1, 5)), ("y", nix::sys::stat::makedev(10, 130))]
            {
                mknod(&arena.guest(name), SFlag::S_IFCHR, Mode::S_IRWXU, minor).unwrap();
                let read = run(&arena.root(), &Path::new("/").join(name)).unwrap_or_default();
                assert!(!read.contains(&0), "{primitive} read a device");
            }
        });
    }
}

#[test]
fn odd_names_are_names_like_any_other() {
    for name in odd_names() {
        let arena = Arena::new();
        let root = arena.root();
        let path = Path::new("/folder").join(&name);
        fs::create_dir(arena.guest("folder")).unwrap();
        let on_host = arena.guest("folder").join(&name);
        fs::write(&on_host, "content").unwrap();
        assert_eq!(root.names(Path::new("/folder")).unwrap(), [&*name]);
        assert_eq!(root.read(&path).unwrap().unwrap(), b"content");
        assert_eq!(found(&root, "/folder/*")[0].path, path);
        assert_eq!(found(&root, "/**").last().unwrap().path, path);
        Change::Truncate { path: path.clone(), bytes: 7 }.make(&root).unwrap();
        assert_eq!(fs::metadata(&on_host).unwrap().len(), 0, "{}", name.display());
        // The longest name leaves no room for the name of a temporary file.
        let content = Content(b"new".into());
        Change::Replace { path: path.clone(), content, new: NewFile::root(0o600) }.make(&root).unwrap();
        assert_eq!(fs::read(&on_host).unwrap(), b"new");
        Change::Link { path: path.clone(), target: "to".into() }.make(&root).unwrap();
        assert_eq!(fs::read_link(&on_host).unwrap(), Path::new("to"));
        Change::Remove { path: path.clone(), kind: FileKind::Link, bytes: 0 }.make(&root).unwrap();
        Change::Folder { path: path.clone(), new: NewFile::root(0o711) }.make(&root).unwrap();
        assert_eq!(fs::metadata(&on_host).unwrap().permissions().mode() & 0o7777, 0o711);
        Change::RemoveTree { path, bytes: 0, entries: 0 }.make(&root).unwrap();
        assert_eq!(fs::read_dir(arena.guest("folder")).unwrap().count(), 0, "{}", name.display());
    }
}

/// Names of temporary files can be guessed, so a guest can have them already.
#[test]
fn what_stands_in_the_way_of_a_new_file_does_no_harm() {
    let arena = Arena::new();
    arena.file(".guestseal.0.new/in/the/way", "");
    arena.link(".guestseal.1.new", arena.outside("secret"));
    arena.file("x", "old");
    let before = arena.canaries();
    let change =
        Change::Replace { path: "/x".into(), content: Content(b"new".into()), new: NewFile::root(0o600) };
    change.make(&arena.root()).unwrap();
    assert_eq!(fs::read(arena.guest("x")).unwrap(), b"new");
    assert!(arena.canaries() == before && arena.guest(".guestseal.0.new").is_dir());
    assert_eq!(fs::read_dir(arena.guest("")).unwrap().count(), 2);
}

#[test]
fn what_is_gone_already_is_no_error() {
    let arena = Arena::new();
    let root = arena.root();
    for path in ["/x", "/no/folder/x"] {
        Change::Remove { path: path.into(), kind: FileKind::File, bytes: 0 }.make(&root).unwrap();
        Change::RemoveTree { path: path.into(), bytes: 0, entries: 0 }.make(&root).unwrap();
        Change::Truncate { path: path.into(), bytes: 0 }.make(&root).unwrap();
    }
    let change = Change::Folder { path: "/no/folder".into(), new: NewFile::root(0o755) };
    assert!(change.make(&root).unwrap_err().what_to_do().is_some());
    drop(File::create(arena.guest("file")).unwrap());
}
