//! What older kernels left in unused parts of inodes, of blocks of attributes and of trees of extents. The kernel of
//! today leaves nothing there, so it is written by hand.

use std::os::unix::fs::FileExt;

use guestseal::erase::metadata::Act;
use rustix::fs::{XattrFlags, getxattr, setxattr};

use crate::clean::walk;
use crate::image::{Image, possible, run};

const MARK: &[u8] = b"GONE-by-hand";

/// What debugfs says to a request about the filesystem, with the file that is meant.
fn debugfs(image: &Image, request: &str) -> String {
    run("debugfs", &["-n", "-w", "-R", request, image.path().to_str().unwrap()])
}

/// The number behind `word` in what debugfs says.
fn number(text: &str, word: &str) -> u64 {
    let rest = &text[text.find(word).unwrap_or_else(|| panic!("no {word:?} in {text}")) + word.len()..];
    let rest = rest.trim_start();
    match rest.strip_prefix("0x") {
        Some(hex) => {
            u64::from_str_radix(&hex[..hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap()], 16).unwrap()
        }
        None => rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap()].parse().unwrap(),
    }
}

/// Where the inode of a file is.
fn inode(image: &Image, file: &str) -> u64 {
    let text = debugfs(image, &format!("imap {file}"));
    number(&text, "located at block") * 1024 + number(&text, "offset")
}

fn made(form: &str) -> Image {
    let image = Image::make(16 << 20, form);
    let mounted = image.mount("rw");
    let path = |name: &str| mounted.path().join(name);
    for name in ["plain", "inside", "block", "both"] {
        std::fs::write(path(name), b"content").unwrap();
    }
    for (name, length) in [("inside", 16), ("block", 700), ("both", 20), ("both", 600)] {
        let value = vec![b'v'; length];
        setxattr(path(name), format!("user.{length}"), &value, XattrFlags::empty()).unwrap();
    }
    std::os::unix::fs::symlink("target", path("link")).unwrap();
    let tree = std::fs::File::create(path("tree")).unwrap();
    for index in 0..20 {
        tree.write_all_at(b"kept", index * 4096).unwrap();
    }
    drop((tree, mounted));
    image
}

fn cleaned(image: &Image, planted: u64) {
    assert!(image.has("GONE"));
    let found = walk(image, Act::Zero).into_iter().find(|place| place.kind == "inode slack").unwrap();
    assert_eq!(found.nonzero, planted * MARK.len() as u64);
    assert!(!image.has("GONE"));
    image.check();
    let mounted = image.mount("ro");
    let path = |name: &str| mounted.path().join(name);
    for (name, length) in [("inside", 16), ("block", 700), ("both", 20), ("both", 600)] {
        let mut value = vec![0; 1024];
        assert_eq!(getxattr(path(name), format!("user.{length}"), &mut value).unwrap(), length, "{name}");
        assert!(value[..length].iter().all(|byte| *byte == b'v'));
    }
    assert_eq!(std::fs::read_link(path("link")).unwrap().to_str(), Some("target"));
    assert_eq!(std::fs::read(path("tree")).unwrap().len(), 19 * 4096 + 4);
}

#[test]
fn unused_parts_are_cleaned() {
    if !possible() {
        return;
    }
    let image = made("-t ext4 -b 1024 -I 256 -O ^metadata_csum");
    let file = image.open();
    let block = |name: &str| number(&debugfs(&image, &format!("stat {name}")), "File ACL:") * 1024;
    let node = number(&debugfs(&image, "stat tree"), "(ETB0):") * 1024;
    let places = [
        inode(&image, "plain") + 200,
        inode(&image, "inside") + 200,
        inode(&image, "both") + 200,
        inode(&image, "link") + 40 + 7,
        block("block") + 100,
        block("both") + 100,
        node + 12 + 20 * 12,
        node + 1024 - 16,
    ];
    for place in places {
        file.write_all_at(MARK, place).unwrap();
    }
    cleaned(&image, places.len() as u64);
}

#[test]
fn checksums_of_cleaned_inodes_are_right() {
    if !possible() {
        return;
    }
    for form in ["-t ext4 -b 1024 -I 256", "-t ext4 -b 1024 -I 512 -O metadata_csum_seed"] {
        let image = made(form);
        let file = image.open();
        for name in ["plain", "inside"] {
            file.write_all_at(MARK, inode(&image, name) + 200).unwrap();
            // Makes the checksum that of what was written.
            debugfs(&image, &format!("set_inode_field {name} mtime 20200101"));
        }
        image.check();
        cleaned(&image, 2);
    }
}

#[test]
fn an_inode_that_is_not_what_was_written_is_refused() {
    if !possible() {
        return;
    }
    let image = made("-t ext4 -b 1024 -I 256");
    let file = image.open();
    file.write_all_at(MARK, inode(&image, "plain") + 200).unwrap();
    let volume = guestseal::erase::volume::VolumeBytes::new(&file, 0, image.window.1);
    let error = guestseal::erase::metadata::ext::walk(&volume, Act::Zero).unwrap_err();
    assert!(error.to_string().starts_with("the filesystem is damaged: the checksum of inode"), "{error}");
}
