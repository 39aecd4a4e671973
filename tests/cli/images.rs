//! Images that must not be sealed: each is refused with its reason and stays as it was, and so does its folder.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use crate::common::{has_tool, is_root, require};
use crate::{PROGRAM, guestseal_in, start};

/// A folder with bad images in it, made with qemu-img; None when that is missing.
fn bad_images() -> Option<TempDir> {
    if !require(has_tool("qemu-img"), "no qemu-img to make images with (package qemu-utils)") {
        return None;
    }
    let folder = TempDir::new().unwrap();
    let make = |args: &[&str]| {
        let run = start(folder.path(), OsStr::new("qemu-img"), args);
        run.exits(0);
    };
    let copy = |from: &str, to: &str| {
        fs::copy(folder.path().join(from), folder.path().join(to)).unwrap();
    };
    make(&["create", "-f", "qcow2", "plain.qcow2", "16M"]);
    make(&["create", "-f", "qcow2", "-b", "plain.qcow2", "-F", "qcow2", "layer.qcow2"]);
    copy("plain.qcow2", "snapshot.qcow2");
    make(&["snapshot", "-c", "before", "snapshot.qcow2"]);
    make(&["create", "-f", "qcow2", "-o", "data_file=data.raw", "external.qcow2", "16M"]);
    let luks = [
        "create",
        "-f",
        "qcow2",
        "--object",
        "secret,id=s,data=pw",
        "-o",
        "encrypt.format=luks,encrypt.key-secret=s",
        "luks.qcow2",
        "1M",
    ];
    make(&luks);
    make(&["create", "-f", "vmdk", "-o", "subformat=monolithicFlat", "flat.vmdk", "16M"]);
    // Bit 0 of the incompatible features, at byte 72 in big endian: not closed properly; bit 1: corrupt.
    for (name, bits) in [("dirty.qcow2", 1), ("corrupt.qcow2", 2)] {
        copy("plain.qcow2", name);
        let path = folder.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[79] |= bits;
        fs::write(&path, bytes).unwrap();
    }
    let whole = fs::read(folder.path().join("plain.qcow2")).unwrap();
    fs::write(folder.path().join("truncated.qcow2"), &whole[..100]).unwrap();
    fs::write(folder.path().join("cut.qcow2"), &whole[..65600]).unwrap();
    fs::write(folder.path().join("empty.img"), "").unwrap();
    fs::create_dir(folder.path().join("folder.img")).unwrap();
    nix::unistd::mkfifo(&folder.path().join("fifo.img"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    Some(folder)
}

/// Name and content of every file, by name.
fn everything(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            let content = if entry.file_type().unwrap().is_file() {
                fs::read(entry.path()).unwrap()
            } else {
                Vec::new()
            };
            (entry.file_name().to_string_lossy().into_owned(), content)
        })
        .collect();
    files.sort();
    files
}

#[test]
fn images_that_cannot_be_sealed_are_refused_untouched() {
    let Some(folder) = bad_images() else { return };
    let before = everything(folder.path());
    let table = [
        ("layer.qcow2", 6, "backing file \"plain.qcow2\"", true),
        ("snapshot.qcow2", 6, "1 internal snapshots", true),
        ("external.qcow2", 6, "external data file", true),
        ("luks.qcow2", 6, "encrypted", true),
        ("dirty.qcow2", 6, "not closed properly", true),
        ("corrupt.qcow2", 6, "corrupt", true),
        ("flat.vmdk", 6, "describes other files", true),
        ("truncated.qcow2", 1, "the file ends within it", true),
        ("cut.qcow2", 1, "is cut off", true),
        ("empty.img", 6, "is empty", false),
        ("folder.img", 2, "is a folder, not an image", false),
        ("fifo.img", 2, "is no regular file, not an image", false),
        ("missing.img", 1, "cannot find the image", false),
    ];
    for (name, code, words, hint) in table {
        for ways in [
            &["seal"][..],
            &["seal", "--in-place"],
            &["seal", "--output", "new.qcow2"],
            &["inspect"],
            &["-n"],
        ] {
            let run = guestseal_in(folder.path(), &[ways, &[name]].concat());
            run.exits(code).complains(words).complains(name);
            if hint {
                run.hints();
            }
        }
    }
    assert!(everything(folder.path()) == before, "an image or its folder was changed");
}

/// These are images to all who look at their first bytes only; what is wrong shows when they are attached.
#[test]
fn files_that_hold_no_disk_are_refused_untouched() {
    if !require(is_root(), "only root can attach images") {
        return;
    }
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("text.img"), "To whom it may concern:\n".repeat(1000)).unwrap();
    let noise: Vec<u8> =
        (0u32..262_144).map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    fs::write(folder.path().join("noise.img"), noise).unwrap();
    let before = everything(folder.path());
    for name in ["text.img", "noise.img"] {
        for ways in [&["inspect"][..], &["seal", "--in-place"]] {
            let run = guestseal_in(folder.path(), &[ways, &[name]].concat());
            run.exits(6).complains("neither a partition table nor a filesystem").complains(name).hints();
        }
    }
    let several = guestseal_in(folder.path(), &["--json", "inspect", "text.img", "missing.img"]);
    let json = several.exits(6).json();
    assert_eq!(json["images"][0]["error"]["exit-code"], 6);
    assert_eq!(json["images"][1]["error"]["exit-code"], 1);
    assert!(everything(folder.path()) == before, "an image or its folder was changed");
}

#[test]
fn without_privilege_the_error_says_so() {
    if !require(is_root() && has_tool("setpriv"), "needs root and setpriv to become somebody else") {
        return;
    }
    let folder = TempDir::new().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = folder.path().join("guestseal");
    fs::copy(PROGRAM, &program).unwrap();
    let image = folder.path().join("text.img");
    fs::write(&image, "text\n".repeat(1000)).unwrap();
    let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups", "./guestseal"];
    let run = start(folder.path(), OsStr::new("setpriv"), &[&nobody[..], &["inspect", "text.img"]].concat());
    run.exits(7).complains("root").hints();
    start(folder.path(), OsStr::new("setpriv"), &[&nobody[..], &["--list-operations"]].concat()).exits(0);
}
