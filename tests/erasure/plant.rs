//! Markers in the root filesystem, by kind. What is below /tmp, /var/tmp and /var/log goes when the guest is sealed;
//! what is below /srv stays.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use crate::beside::plant_swap_file;
use crate::common::{shell, tool};
use crate::disk::Filesystem;
use crate::scan::{lines, marker, text};

/// The length of the sealed-away files that are large.
const LARGE: usize = 8 << 20;

/// A guest as small as it can be.
pub(crate) fn system(root: &Path, fstab: &str) {
    for folder in [
        "etc",
        "usr/bin",
        "usr/lib",
        "root",
        "home",
        "tmp",
        "var/tmp",
        "var/log",
        "srv/data",
        "srv/names",
        "opt",
    ] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::copy("/bin/true", root.join("usr/bin/bash")).unwrap();
    symlink("usr/bin", root.join("bin")).unwrap();
    for (name, text) in [
        ("os-release", "NAME=\"Alpine Linux\"\nID=alpine\nVERSION_ID=3.19.1\n"),
        ("passwd", "root:x:0:0:root:/root:/bin/bash\n"),
        ("shadow", "root:*:19700:0:99999:7:::\n"),
        ("group", "root:x:0:\n"),
        ("hostname", "canary\n"),
        ("fstab", fstab),
    ] {
        write(root.join("etc").join(name), text);
    }
}

/// Plants everything; gives where in the filesystem's own count the compressed file is, where one was made.
pub(crate) fn plant(root: &Path, filesystem: Filesystem) -> Option<u64> {
    long_ago(root);
    contents(root);
    fragmented(root);
    names(root);
    links(root);
    attributes(root, filesystem);
    live(root);
    plant_swap_file(&root.join("swapfile"), filesystem.kind);
    let compressed = (filesystem.kind == "btrfs").then(|| btrfs(root, filesystem)).flatten();
    if ["xfs", "btrfs"].contains(&filesystem.kind) {
        reflinked(root);
    }
    if !["ext2", "ext3"].contains(&filesystem.kind) {
        preallocated(root, filesystem);
    }
    sync(root);
    before_sealing(root);
    sync(root);
    compressed
}

fn sync(root: &Path) {
    tool("sync", [Path::new("-f"), root]);
}

fn write(path: impl AsRef<Path>, text: impl AsRef<[u8]>) {
    fs::write(path, text).unwrap();
}

/// Files that were deleted when the guest was young, and whose blocks others have since used in part.
fn long_ago(root: &Path) {
    for number in 0..200 {
        write(root.join(format!("opt/old-{number}")), text("ago", 16_000));
    }
    sync(root);
    shell(&format!("rm {}/opt/old-*", root.display()));
    sync(root);
    for number in 0..20 {
        write(root.join(format!("srv/data/young-{number}")), vec![b'y'; 12_000]);
    }
}

fn contents(root: &Path) {
    for number in 0..50 {
        write(root.join(format!("tmp/small-{number}")), lines("small", 40));
        write(root.join(format!("tmp/tiny-{number}")), marker("tiny", number));
        write(root.join(format!("srv/data/gone-{number}")), marker("tinygone", number));
    }
    write(root.join("var/tmp/large"), text("large", LARGE));
    let sparse = File::create(root.join("tmp/sparse")).unwrap();
    for at in [0, 40 << 20, (200 << 20) + 77] {
        sparse.write_all_at(lines("sparse", 300).as_bytes(), at).unwrap();
    }
    write(root.join("tmp/hard-1"), lines("hardlinked", 500));
    fs::hard_link(root.join("tmp/hard-1"), root.join("var/tmp/hard-2")).unwrap();
    write(root.join("var/log/app.log"), text("truncated", 300_000));
    write(root.join("var/log/app.log.1"), text("rotated", 300_000));
    // Bytes that no filesystem compresses, and it sees so from the first ones.
    let mut noise = vec![0; 1 << 20];
    File::open("/dev/urandom").unwrap().read_exact(&mut noise).unwrap();
    for (number, at) in (0..noise.len() - 64).step_by(2048).enumerate() {
        let marker = marker("noise", number);
        noise[at + 512..at + 512 + marker.len()].copy_from_slice(marker.as_bytes());
    }
    write(root.join("tmp/noise"), noise);
}

/// Two files that grow by turns, each piece flushed.
fn fragmented(root: &Path) {
    let open = |name: &str| File::create(root.join(name)).unwrap();
    let mut files = [open("tmp/turn-1"), open("var/tmp/turn-2")];
    for piece in 0..40 {
        for file in &mut files {
            let lines: String =
                (0..64).map(|line| format!("{:<63}\n", marker("fragmented", piece * 64 + line))).collect();
            file.write_all(lines.as_bytes()).unwrap();
            file.sync_data().unwrap();
        }
    }
}

fn names(root: &Path) {
    fs::create_dir(root.join("tmp/many")).unwrap();
    for number in 0..60 {
        write(root.join("tmp").join(marker("name", number)), "");
        let long = marker("longname", number) + &"-x".repeat(90);
        write(root.join("var/tmp").join(long), "");
        // A folder that stays.
        write(root.join("srv/names").join(format!("kept-{number}")), "kept");
        write(root.join("srv/names").join(marker("oldname", number)), "renamed");
    }
    for number in 0..1500 {
        write(root.join("tmp/many").join(marker("manynames", number)), "");
        write(root.join("srv/names").join(marker("slackname", number)), "");
    }
    sync(root);
    for number in 0..60 {
        let folder = root.join("srv/names");
        fs::rename(folder.join(marker("oldname", number)), folder.join(format!("new-{number}"))).unwrap();
    }
}

fn links(root: &Path) {
    for number in 0..40 {
        symlink(marker("fastlink", number), root.join(format!("tmp/fast-{number}"))).unwrap();
        let target = format!("{}/{}", marker("slowlink", number), "long/".repeat(60));
        symlink(target, root.join(format!("tmp/slow-{number}"))).unwrap();
    }
    symlink("data/young-1", root.join("srv/link")).unwrap();
}

/// Small values fit into an inode, large ones take a block; those of a live file are removed one by one.
fn attributes(root: &Path, filesystem: Filesystem) {
    let mut dump = String::new();
    for number in 0..30 {
        let path = root.join(format!("tmp/attributes-{number}"));
        write(&path, "");
        let large: String = (0..30).map(|line| marker("xattrblock", number * 30 + line)).collect();
        write!(dump, "# file: {}\nuser.small=\"{}\"\n\n", path.display(), marker("xattr", number)).unwrap();
        let path = root.join(format!("tmp/block-{number}"));
        write(&path, "");
        write!(dump, "# file: {}\nuser.large=\"{large}\"\n\n", path.display()).unwrap();
        let path = root.join(format!("srv/data/attributes-{number}"));
        write(&path, "");
        let gone = marker("xattrgone", number);
        write!(dump, "# file: {}\nuser.kept=\"kept\"\nuser.old=\"{gone}\"\n\n", path.display()).unwrap();
        if filesystem.kind == "xfs" {
            let path = root.join(format!("tmp/remote-{number}"));
            write(&path, "");
            let remote: String = (0..500).map(|line| marker("xattrremote", line)).collect();
            write!(dump, "# file: {}\nuser.remote=\"{remote}\"\n\n", path.display()).unwrap();
        }
    }
    // Beside the guest: only what setfattr makes of it is to count.
    let file = root.with_extension("attributes");
    write(&file, dump.replace("# file: /", "# file: "));
    shell(&format!("cd /; setfattr --restore={0}; rm {0}", file.display()));
}

/// Files that stay, of several kinds, some of which held something else once.
fn live(root: &Path) {
    let data = root.join("srv/data");
    write(data.join("large"), "this file stays\n".repeat(100_000));
    let sparse = File::create(data.join("sparse")).unwrap();
    sparse.write_all_at(b"far out", 60 << 20).unwrap();
    for name in ["shortened", "rewritten", "replaced"] {
        write(data.join(name), text("overwritten", 80_000));
    }
    sync(root);
    File::options().write(true).open(data.join("shortened")).unwrap().set_len(100).unwrap();
    fs::write(data.join("shortened"), "now short").unwrap();
    let length = usize::try_from(fs::metadata(data.join("rewritten")).unwrap().len()).unwrap();
    let whole = OpenOptions::new().write(true).open(data.join("rewritten")).unwrap();
    whole.write_all_at(&vec![b'w'; length], 0).unwrap();
    // As editors do it.
    write(data.join("replaced.new"), "the new text");
    fs::rename(data.join("replaced.new"), data.join("replaced")).unwrap();
}

fn reflinked(root: &Path) {
    let path = |name: &str| root.join(name);
    write(path("tmp/reflink-1"), text("reflinked", 80_000));
    sync(root);
    tool("cp", [Path::new("--reflink=always"), &path("tmp/reflink-1"), &path("var/tmp/reflink-2")]);
    // And a copy of which a part was written anew.
    tool("cp", [Path::new("--reflink=always"), &path("tmp/reflink-1"), &path("tmp/reflink-3")]);
    let third = File::options().write(true).open(path("tmp/reflink-3")).unwrap();
    third.write_all_at(&[b'r'; 8192], 4096).unwrap();
}

/// Live files over blocks that held something else: they read as zeros, the disk does not.
fn preallocated(root: &Path, filesystem: Filesystem) {
    let (zeroed, reserved) = (root.join("srv/data/zeroed"), root.join("srv/data/reserved"));
    write(&zeroed, text("zeroed", 1 << 20));
    write(&reserved, text("reserved", 4 << 20));
    sync(root);
    fs::remove_file(&reserved).unwrap();
    let fallocate = |words: &[&str], file: &Path| {
        tool("fallocate", words.iter().map(Path::new).chain([file]));
    };
    fallocate(&["-z", "-l", "512KiB"], &zeroed);
    sync(root);
    // Room enough that it takes blocks of the file before it, wherever the filesystem looks first.
    fallocate(&["-l", "64MiB"], &reserved);
    let rest = File::options().write(true).open(&zeroed).unwrap();
    let length = rest.metadata().unwrap().len();
    rest.write_all_at(&vec![b'z'; usize::try_from(length - (512 << 10)).unwrap()], 512 << 10).unwrap();
    assert!(
        filesystem.kind == "btrfs" || unwritten(&zeroed) > 0,
        "{} has no unwritten extent",
        zeroed.display()
    );
}

fn unwritten(file: &Path) -> usize {
    tool("filefrag", [Path::new("-v"), file]).matches("unwritten").count()
}

/// A file that is compressed where the filesystem does that, and a snapshot that keeps what the guest has deleted.
fn btrfs(root: &Path, filesystem: Filesystem) -> Option<u64> {
    let volume = root.join("srv/volume");
    let btrfs = |words: &[&str], paths: &[&Path]| {
        tool("btrfs", ["-q"].iter().chain(words).map(Path::new).chain(paths.iter().copied()));
    };
    btrfs(&["subvolume", "create"], &[&volume]);
    write(volume.join("held"), lines("snapshot", 100));
    btrfs(&["subvolume", "snapshot", "-r"], &[&volume, &root.join("srv/then")]);
    fs::remove_file(volume.join("held")).unwrap();
    if !filesystem.options.contains("compress") {
        return None;
    }
    let file = root.join("tmp/compressed");
    shell(&format!("head -c 500000 /dev/urandom | od -An -tx1 >{}", file.display()));
    sync(root);
    let extents = tool("filefrag", [Path::new("-v"), &file]);
    let first = extents.lines().find(|line| line.trim_start().starts_with("0:")).unwrap();
    assert!(first.contains("encoded"), "not compressed: {extents}");
    let block = first.split(':').nth(2).unwrap().trim().split('.').next().unwrap();
    Some(block.parse::<u64>().unwrap() * 4096)
}

/// What the guest itself deletes before it is shut down.
fn before_sealing(root: &Path) {
    let data = root.join("srv/data");
    write(data.join("deleted"), text("deleted", 2 << 20));
    sync(root);
    fs::remove_file(data.join("deleted")).unwrap();
    for number in 0..50 {
        fs::remove_file(data.join(format!("gone-{number}"))).unwrap();
    }
    for number in 0..1500 {
        fs::remove_file(root.join("srv/names").join(marker("slackname", number))).unwrap();
    }
    shell(&format!("setfattr -x user.old {}/attributes-*", data.display()));
}
