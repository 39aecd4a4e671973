//! Links that a guest makes of its own files: which of both is changed.

use super::*;

#[test]
fn a_link_at_the_end_is_changed_itself() {
    let changes: [fn() -> Change; 5] = [
        || Change::Remove { path: "/x".into(), kind: FileKind::Link, bytes: 0 },
        || Change::RemoveTree { path: "/x".into(), bytes: 0, entries: 0 },
        || Change::Truncate { path: "/x".into(), bytes: 4 },
        || Change::Replace { path: "/x".into(), content: Content(b"new".into()), new: NewFile::root(0o600) },
        || Change::Link { path: "/x".into(), target: "elsewhere".into() },
    ];
    for change in changes {
        for target in ["real/file", "/real/file", "real", "/real"] {
            let arena = Arena::new();
            arena.file("real/file", "real");
            arena.link("x", target);
            let change = change();
            change.make(&arena.root()).unwrap();
            assert_eq!(
                fs::read(arena.guest("real/file")).unwrap(),
                b"real",
                "{change:?} of a link to {target}"
            );
            let kept = fs::read_link(arena.guest("x")).is_ok_and(|now| now == Path::new(target));
            assert_eq!(kept, matches!(change, Change::Truncate { .. }), "{change:?}");
        }
    }
}

#[test]
fn links_on_the_way_mean_the_guests_own_files() {
    let arena = Arena::new();
    arena.file("usr/lib/file", "inside");
    arena.link("lib", "/usr/lib");
    arena.link("a/b/lib", format!("{UP}/usr/lib"));
    let root = arena.root();
    for path in ["/lib/file", "/a/b/lib/file", "/../../usr/lib/file", "/a/b/../../usr/lib/file"] {
        assert_eq!(root.read(Path::new(path)).unwrap().unwrap(), b"inside", "{path}");
        assert_eq!(
            root.resolve(Path::new(path)).unwrap().unwrap().path,
            Path::new("/usr/lib/file"),
            "{path}"
        );
    }
    Change::Truncate { path: "/lib/file".into(), bytes: 6 }.make(&root).unwrap();
    assert_eq!(fs::metadata(arena.guest("usr/lib/file")).unwrap().len(), 0);
    Change::Folder { path: "/a/b/lib/new".into(), new: NewFile::root(0o755) }.make(&root).unwrap();
    assert!(arena.guest("usr/lib/new").is_dir());
}

/// A user may link ~/.cache to /etc: what is removed there by root would be the system's.
#[test]
fn globs_follow_roots_links_and_nobody_elses() {
    if !require(is_root(), "only root can give links to somebody else") {
        return;
    }
    let arena = Arena::new();
    arena.file("etc/shadow", "root");
    for (name, target) in [("absolute", "/etc"), ("relative", "../../etc"), ("roots", "/etc")] {
        arena.link(&format!("home/bob/{name}"), target);
        let owner = if name == "roots" { 0 } else { 1000 };
        std::os::unix::fs::lchown(arena.guest(&format!("home/bob/{name}")), Some(owner), Some(owner))
            .unwrap();
    }
    let root = arena.root();
    let find = |glob: &str| {
        let mut found = Vec::new();
        Pattern::parse(glob).unwrap().find(&root, &["/home/bob".into()], &mut found).unwrap();
        found.into_iter().map(|entry| entry.path).collect::<Vec<_>>()
    };
    for name in ["absolute", "relative"] {
        for end in ["shadow", "*", "sha*", "**", "**/shadow", "{shadow,passwd}"] {
            assert!(find(&format!("~/{name}/{end}")).is_empty(), "~/{name}/{end}");
            assert!(find(&format!("/home/*/{name}/{end}")).is_empty(), "/home/*/{name}/{end}");
        }
    }
    assert_eq!(find("~/roots/sha*"), [Path::new("/etc/shadow")]);
    assert_eq!(find("~/**/shadow"), [] as [&Path; 0]);
    // A chain is as good as its worst link.
    arena.link("srv/bad", "/home/bob/absolute");
    arena.link("srv/good", "../home/bob/roots/.");
    assert!(find("/srv/bad/*").is_empty());
    assert_eq!(find("/srv/good/*"), [Path::new("/etc/shadow")]);
    arena.link("srv/loop", "loop");
    assert!(find("/srv/loop/*").is_empty());
}
