//! What belongs to a file beside its content: owner, mode, ACL, extended attributes, chattr(1).

use std::process::Command;

use rustix::fs::{IFlags, XattrFlags, ioctl_getflags, ioctl_setflags};

use super::*;

fn xattrs(path: &Path) -> Vec<(String, Vec<u8>)> {
    let (mut names, mut value) = (vec![0u8; 65536], vec![0u8; 65536]);
    let length = rustix::fs::listxattr(path, &mut names).unwrap();
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let mut seen: Vec<_> = names
        .map(|name| {
            let length = rustix::fs::getxattr(path, name, &mut value).unwrap();
            (String::from_utf8_lossy(name).into_owned(), value[..length].to_vec())
        })
        .collect();
    seen.sort();
    seen
}

#[test]
fn a_replaced_file_keeps_owner_mode_acl_and_attributes() {
    let arena = Arena::new();
    arena.file("x", "old");
    let path = arena.guest("x");
    let set = |name: &str, value: &[u8]| rustix::fs::setxattr(&path, name, value, XattrFlags::empty());
    if !require(set("user.note", b"kept").is_ok(), "no extended attributes in the temporary folder") {
        return;
    }
    #[expect(clippy::disallowed_methods, reason = "the test asks the system's own tool")]
    let acl = Command::new("setfacl")
        .args(["-m", "u:1234:r"])
        .arg(&path)
        .status()
        .is_ok_and(|status| status.success());
    if !require(acl && is_root(), "needs root and setfacl (package acl)") {
        return;
    }
    std::os::unix::fs::chown(&path, Some(1000), Some(1001)).unwrap();
    set("security.selinux", b"system_u:object_r:shadow_t:s0\0").unwrap();
    set("security.capability", b"\x01\0\0\x02\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0").unwrap();
    set("trusted.note", b"kept").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o6750)).unwrap();
    let before = (xattrs(&path), fs::metadata(&path).unwrap());
    assert_eq!(before.0.len(), 5, "{:?}", before.0);
    let change =
        Change::Replace { path: "/x".into(), content: Content(b"new".into()), new: NewFile::root(0o777) };
    change.make(&arena.root()).unwrap();
    let after = (xattrs(&path), fs::metadata(&path).unwrap());
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(after.0, before.0);
    let rights = |stat: &fs::Metadata| (stat.uid(), stat.gid(), format!("{:o}", stat.mode()));
    assert_eq!(rights(&after.1), rights(&before.1));
    assert_eq!(fs::read_dir(arena.guest("")).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn what_is_new_is_labelled_by_the_guests_own_policy() {
    if !require(is_root(), "needs root to label files") {
        return;
    }
    let arena = Arena::new();
    let of = |path: &str| {
        let mut label = [0; 200];
        let length = rustix::fs::getxattr(arena.guest(path), "security.selinux", &mut label).ok()?;
        Some(String::from_utf8_lossy(&label[..length]).into_owned())
    };
    let set = |path: &str, label: &[u8]| {
        rustix::fs::setxattr(arena.guest(path), "security.selinux", label, XattrFlags::empty()).unwrap();
    };
    let make = |path: &str| {
        let (path, new) = (path.into(), NewFile::root(0o644));
        Change::Replace { path, content: Content(b"new".into()), new }.make(&arena.root()).unwrap();
    };
    arena.file("etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=targeted\n");
    let policy = "/etc/.*\tu:r:etc_t:s0\n/etc/shadow\t--\tu:r:shadow_t:s0\n/etc/d(/.*)?\tu:r:d_t:s0\n";
    arena.file("etc/selinux/targeted/contexts/files/file_contexts", policy);
    make("/etc/unlabelled");
    assert_eq!(of("etc/unlabelled"), None, "the guest has no labels yet");
    set("etc", b"u:r:etc_t:s0\0");
    make("/etc/shadow");
    assert_eq!(of("etc/shadow").as_deref(), Some("u:r:shadow_t:s0\0"));
    Change::Folder { path: "/etc/d".into(), new: NewFile::root(0o755) }.make(&arena.root()).unwrap();
    assert_eq!(of("etc/d").as_deref(), Some("u:r:d_t:s0\0"));
    // What the policy does not know gets its folder's, and what is there keeps its own.
    set("", b"u:r:root_t:s0\0");
    make("/x");
    assert_eq!(of("x").as_deref(), Some("u:r:root_t:s0\0"));
    set("x", b"u:r:own_t:s0\0");
    make("/x");
    assert_eq!(of("x").as_deref(), Some("u:r:own_t:s0\0"));
}

#[test]
fn a_new_file_has_the_mode_it_is_given_whatever_the_umask() {
    let arena = Arena::new();
    let change = Change::Replace {
        path: "/x".into(),
        content: Content(Vec::new()),
        new: NewFile {
            mode: 0o666,
            uid: nix::unistd::geteuid().as_raw(),
            gid: nix::unistd::getegid().as_raw(),
        },
    };
    change.make(&arena.root()).unwrap();
    assert_eq!(fs::metadata(arena.guest("x")).unwrap().mode() & 0o7777, 0o666);
}

/// Takes the attributes off again, whatever became of the test, so that the folder can be removed.
struct Locked(Vec<PathBuf>);

impl Locked {
    fn set(&mut self, path: PathBuf, flags: IFlags) -> bool {
        let Ok(file) = File::open(&path) else { return false };
        let now = ioctl_getflags(&file);
        let set = now.is_ok_and(|now| ioctl_setflags(&file, now | flags).is_ok());
        self.0.push(path);
        set
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        for file in self.0.iter().filter_map(|path| File::open(path).ok()) {
            if let Ok(now) = ioctl_getflags(&file) {
                let _ = ioctl_setflags(&file, now & !(IFlags::IMMUTABLE | IFlags::APPEND));
            }
        }
    }
}

fn flags(path: &Path) -> IFlags {
    ioctl_getflags(File::open(path).unwrap()).unwrap() & (IFlags::IMMUTABLE | IFlags::APPEND)
}

#[test]
fn immutable_and_append_only_files_and_folders_hold_nothing_up() {
    let changes: [fn() -> Change; 10] = [
        || Change::Remove { path: "/f/x".into(), kind: FileKind::File, bytes: 0 },
        || Change::RemoveTree { path: "/f".into(), bytes: 0, entries: 0 },
        || Change::Truncate { path: "/f/x".into(), bytes: 3 },
        || Change::Replace {
            path: "/f/x".into(),
            content: Content(b"new".into()),
            new: NewFile::root(0o600),
        },
        || Change::Link { path: "/f/x".into(), target: "to".into() },
        || Change::Folder { path: "/f/new".into(), new: NewFile::root(0o700) },
        || Change::Mode { path: "/f/x".into(), mode: 0o711 },
        || Change::Owner { path: "/f/x".into(), uid: 0, gid: 0 },
        || Change::Move { from: "/f/x".into(), path: "/moved".into() },
        || Change::Copy { from: "/f/x".into(), path: "/f/new".into() },
    ];
    for lock in [IFlags::IMMUTABLE, IFlags::APPEND] {
        for (on_file, on_folder) in [(true, false), (false, true), (true, true)] {
            for change in changes {
                let arena = Arena::new();
                arena.file("f/x", "old");
                let mut locked = Locked(Vec::new());
                let file = !on_file || locked.set(arena.guest("f/x"), lock);
                let folder = !on_folder || locked.set(arena.guest("f"), lock);
                if !require(file && folder, "needs root and a temporary folder with chattr's attributes") {
                    return;
                }
                let (change, case) = (change(), format!("{lock:?}, file {on_file}, folder {on_folder}"));
                change.make(&arena.root()).unwrap_or_else(|error| panic!("{case}: {change:?}: {error:?}"));
                let content = fs::read(arena.guest("f/x")).ok();
                let good = match &change {
                    Change::Remove { .. } | Change::Link { .. } => content.is_none(),
                    Change::RemoveTree { .. } => !arena.guest("f").exists(),
                    Change::Truncate { .. } => content == Some(Vec::new()),
                    Change::Replace { .. } => content == Some(b"new".into()),
                    Change::Folder { .. } => arena.guest("f/new").is_dir(),
                    Change::Mode { .. } => {
                        fs::metadata(arena.guest("f/x")).unwrap().permissions().mode() & 0o777 == 0o711
                    }
                    Change::Owner { .. } => true,
                    Change::Move { .. } => content.is_none() && arena.guest("moved").is_file(),
                    Change::Copy { .. } => arena.guest("f/new").is_file(),
                    other => panic!("{other:?}"),
                };
                assert!(good, "{case}: {change:?}: {content:?}");
                // What stays is as locked as it was.
                if arena.guest("f").exists() {
                    assert_eq!(
                        flags(&arena.guest("f")),
                        if on_folder { lock } else { IFlags::empty() },
                        "{case}: {change:?}"
                    );
                }
                if arena.guest("f/x").is_file() {
                    assert_eq!(
                        flags(&arena.guest("f/x")),
                        if on_file { lock } else { IFlags::empty() },
                        "{case}: {change:?}"
                    );
                }
            }
        }
    }
}
