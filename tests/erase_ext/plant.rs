//! Files that stay and things that go. Whatever goes has `GONE` in its name or content.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{FallocateFlags, XattrFlags, fallocate, removexattr, setxattr};

/// What must be there afterwards: content or target by path.
pub(crate) type Kept = BTreeMap<String, Vec<u8>>;

/// Text that differs everywhere, so that no block looks like another.
fn text(word: &str, seed: usize, length: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(length + 32);
    let mut number = seed;
    while text.len() < length {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        write!(text, "{word}-{number:x} ").unwrap();
    }
    text.truncate(length);
    text
}

fn attribute(path: &Path, name: &str, length: usize) {
    // Filesystems without room for it, in inode and block, are asked too.
    let _ = setxattr(path, name, &text("GONE-value", length, length), XattrFlags::empty());
}

fn keep(root: &Path, kept: &mut Kept, name: &str, content: Vec<u8>) {
    fs::write(root.join(name), &content).unwrap();
    kept.insert(name.to_owned(), content);
}

/// Fills a fresh filesystem and deletes most of it; what was written is on the disk before it goes.
pub(crate) fn plant(root: &Path) -> Kept {
    let mut kept = Kept::new();
    folders(root, &mut kept);
    files(root, &mut kept);
    links(root);
    attributes(root, &mut kept);
    nix::unistd::sync();
    for name in ["big", "small", "many", "few"] {
        let folder = root.join(name);
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.to_string_lossy().contains("GONE") {
                if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
            }
        }
    }
    nix::unistd::sync();
    preallocated(root);
    // The journal is to hold these as well.
    keep(root, &mut kept, "last", text("kept", 9, 5000));
    kept
}

/// Directories of one block, of many, with an index, and of names of every length.
fn folders(root: &Path, kept: &mut Kept) {
    for name in ["big", "small", "many", "few"] {
        fs::create_dir(root.join(name)).unwrap();
    }
    for index in 0..1500 {
        let long = "y".repeat(index % 200);
        let name = if index % 7 == 0 {
            format!("many/kept-{index}-{long}")
        } else {
            format!("many/GONE-{index}-{long}")
        };
        File::create(root.join(&name)).unwrap();
        if index % 7 == 0 {
            kept.insert(name, Vec::new());
        }
        if index % 500 == 0 {
            nix::unistd::sync();
        }
    }
    for index in 0..8 {
        fs::write(root.join(format!("few/GONE-{index}")), text("GONE-few", index, 20)).unwrap();
    }
    keep(root, kept, "few/kept", b"few".to_vec());
    fs::create_dir_all(root.join("few/GONE-folder/GONE-below")).unwrap();
    fs::rename(root.join("few/GONE-7"), root.join("few/renamed")).unwrap();
    kept.insert("few/renamed".into(), text("kept-few", 7, 20));
    fs::write(root.join("few/renamed"), text("kept-few", 7, 20)).unwrap();
}

/// Files from inline ones to those with many extents.
fn files(root: &Path, kept: &mut Kept) {
    for index in 0..120 {
        let length = [1, 40, 59, 60, 61, 130, 160, 1000, 4096, 5000, 70_000][index % 11];
        fs::write(root.join(format!("small/GONE-{index}")), text("GONE-data", index, length)).unwrap();
        if index % 3 == 0 {
            keep(root, kept, &format!("small/kept-{index}"), text("kept", index, length));
        }
    }
    fs::write(root.join("big/GONE"), text("GONE-big", 1, 3 << 20)).unwrap();
    keep(root, kept, "big/kept", text("kept-big", 2, 2 << 20));
    // Every second block is a hole, so that the tree of extents has blocks of its own.
    let mut holes = File::create(root.join("big/holes")).unwrap();
    let mut content = vec![0; 400 * 8192];
    for index in 0..400 {
        let block = text("kept-hole", index, 4096);
        std::os::unix::fs::FileExt::write_all_at(&holes, &block, index as u64 * 8192).unwrap();
        content[index * 8192..index * 8192 + 4096].copy_from_slice(&block);
    }
    holes.flush().unwrap();
    kept.insert("big/holes".into(), content);
    nix::unistd::sync();
    let shrunk = File::options().write(true).open(root.join("big/holes")).unwrap();
    shrunk.set_len(300 * 8192).unwrap();
    kept.get_mut("big/holes").unwrap().truncate(300 * 8192);
}

fn links(root: &Path) {
    for index in 0..20_usize {
        let long = "z".repeat(index * 12);
        symlink(format!("GONE-target-{index}-{long}"), root.join(format!("small/GONE-link-{index}")))
            .unwrap();
    }
}

/// Attributes of every size on files that stay and files that go; most are removed again.
fn attributes(root: &Path, kept: &mut Kept) {
    for index in 0..30 {
        let length = [3, 30, 60, 200, 700][index % 5];
        let name = format!("small/attributes-{index}");
        keep(root, kept, &name, text("kept", index, 70));
        let path = root.join(&name);
        setxattr(&path, "user.kept", b"value that stays", XattrFlags::empty()).unwrap();
        attribute(&path, "user.GONE-name", length);
        attribute(&path, "user.GONE-other-name", length / 2);
        let gone = root.join(format!("small/GONE-attributes-{index}"));
        fs::write(&gone, b"x").unwrap();
        attribute(&gone, "user.GONE-with-file", length);
    }
    nix::unistd::sync();
    for index in 0..30 {
        let path = root.join(format!("small/attributes-{index}"));
        let _ = removexattr(&path, "user.GONE-name");
        let _ = removexattr(&path, "user.GONE-other-name");
    }
}

/// Room that a file took where another was before.
fn preallocated(root: &Path) {
    let file = File::create(root.join("big/room")).unwrap();
    // Maps of blocks cannot have it.
    let _ = fallocate(&file, FallocateFlags::empty(), 0, 6 << 20);
}

/// Whether all that was kept is as it was.
pub(crate) fn check(root: &Path, kept: &Kept) {
    for (name, content) in kept {
        let found = fs::read(root.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(found == *content, "{name} changed");
    }
    let many = fs::read_dir(root.join("many")).unwrap().count();
    assert_eq!(many, kept.keys().filter(|name| name.starts_with("many/")).count());
    for index in 0..30 {
        let mut value = [0; 64];
        let path = root.join(format!("small/attributes-{index}"));
        let length = rustix::fs::getxattr(&path, "user.kept", &mut value).unwrap();
        assert_eq!(value[..length], *b"value that stays");
    }
    let room = root.join("big/room");
    assert!(fs::read(room).unwrap().iter().all(|byte| *byte == 0));
}
