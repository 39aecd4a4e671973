//! What is in extents that files use and is read by no file, deleted subvolumes, and snapshots.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use guestseal::erase::map::btrfs::{free_extents, snapshots, unread};
use nix::fcntl::{FallocateFlags, fallocate};

use crate::disks::{Disks, ready, tool};
use crate::plant::{digests, fragmented, sync, text};
use crate::profiles::erase;

const PLAIN: &str = "-d single -m single";
const BLOCK: u64 = 4096;

fn subvolume(words: &str, paths: &[&Path]) {
    let words = format!("subvolume {words}");
    tool("btrfs", words.split_whitespace().map(Path::new).chain(paths.iter().copied()));
}

/// Writes a file in one extent, and changes half of its blocks so that the old ones stay on the disk.
fn overwritten(path: &Path, mark: &str, seed: u64) {
    fs::write(path, text(mark, seed, 30)).unwrap();
    let file = File::options().write(true).open(path).unwrap();
    file.sync_all().unwrap();
    for block in (1..29).step_by(2) {
        file.write_all_at(&text("KEPT", block, 1), block * BLOCK).unwrap();
    }
    file.set_len(29 * BLOCK).unwrap();
    file.sync_all().unwrap();
}

/// No canary is left, the filesystem is sound, and the files that stay are what they were.
fn only_kept(disks: &Disks, kept: &BTreeMap<Vec<u8>, String>) {
    assert_eq!(disks.canaries(), []);
    disks.check();
    let mounted = disks.mount("ro");
    assert_eq!(digests(mounted.path()), *kept);
    mounted.close();
}

#[test]
fn room_set_aside_and_what_was_overwritten_without_checksums_is_found() {
    if !ready() {
        return;
    }
    let disks = Disks::new(2, 220, "-d raid1 -m raid1");
    let mounted = disks.mount("rw,nodatacow");
    let room = File::create(mounted.path().join("room")).unwrap();
    fallocate(&room, FallocateFlags::empty(), 0, 40 << 20).unwrap();
    // The parts that are written stay; the rest is old data.
    for at in [0, 1 << 20, (3 << 20) + 8192] {
        room.write_all_at(&text("KEPT", 3, 2), at).unwrap();
    }
    fallocate(&room, FallocateFlags::FALLOC_FL_KEEP_SIZE, 40 << 20, 4 << 20).unwrap();
    let holed = mounted.path().join("holed");
    fs::write(&holed, text("CANARY-hole", 4, 50)).unwrap();
    let holed = File::options().write(true).open(holed).unwrap();
    holed.sync_all().unwrap();
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(&holed, punch, 8192, 48 * 4096).unwrap();
    holed.write_all_at(&text("KEPT", 5, 1), 0).unwrap();
    holed.write_all_at(&text("KEPT", 5, 1), 4096).unwrap();
    sync(mounted.path());
    let kept = digests(mounted.path());
    drop((room, holed));
    mounted.close();
    erase(&disks, |mounted| free_extents(mounted.open()).unwrap());
    let left: Vec<_> = disks.canaries().into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, ["CANARY-before", "CANARY-hole"]);
    let mounted = disks.mount("ro");
    let found = unread(mounted.open()).unwrap();
    assert_eq!((found.checked.count(), found.compressed, found.deleted_files), (0, 0, 0));
    mounted.close();
    found.plain.iter().for_each(|(id, extents)| disks.zero(*id, extents));
    only_kept(&disks, &kept);
}

#[test]
fn what_was_overwritten_and_has_checksums_is_told() {
    if !ready() {
        return;
    }
    let disks = Disks::new(1, 160, PLAIN);
    let mounted = disks.mount("rw");
    overwritten(&mounted.path().join("file"), "CANARY-overwritten", 1);
    // A part that another file reads is no remains.
    fs::write(mounted.path().join("one"), text("KEPT", 2, 30)).unwrap();
    sync(mounted.path());
    tool(
        "cp",
        ["--reflink=always".as_ref(), mounted.path().join("one").as_path(), &mounted.path().join("two")],
    );
    overwritten(&mounted.path().join("one"), "KEPT", 3);
    let one = File::options().write(true).open(mounted.path().join("one")).unwrap();
    one.set_len(0).unwrap();
    let two = File::options().write(true).open(mounted.path().join("two")).unwrap();
    two.set_len(10 * BLOCK).unwrap();
    drop((one, two));
    sync(mounted.path());
    let found = unread(mounted.open()).unwrap();
    // 14 blocks overwritten and 1 cut off; 20 cut off.
    assert_eq!((found.checked.bytes(), found.plain.len()), ((15 + 20) * BLOCK, 0));
    mounted.close();
}

#[test]
fn unread_parts_of_compressed_extents_are_told() {
    if !ready() {
        return;
    }
    let disks = Disks::new(1, 160, PLAIN);
    let mounted = disks.mount("rw,compress-force=zstd");
    overwritten(&mounted.path().join("file"), "CANARY-overwritten", 1);
    fragmented(&mounted.path().join("other"), "KEPT", 5);
    sync(mounted.path());
    let found = unread(mounted.open()).unwrap();
    assert_eq!((found.checked.bytes(), found.compressed), (0, 15 * BLOCK));
    mounted.close();
}

#[test]
fn files_deleted_while_open_are_told_when_they_stay() {
    if !ready() {
        return;
    }
    let disks = Disks::new(1, 160, PLAIN);
    let mounted = disks.mount("rw");
    let path = mounted.path().join("open");
    fs::write(&path, text("CANARY-open", 1, 30)).unwrap();
    sync(mounted.path());
    let open = File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    sync(mounted.path());
    assert_eq!(unread(mounted.open()).unwrap().deleted_files, 1);
    drop(open);
    sync(mounted.path());
    assert_eq!(unread(mounted.open()).unwrap().deleted_files, 0);
    mounted.close();
}

#[test]
fn subvolumes_and_snapshots() {
    if !ready() {
        return;
    }
    let disks = Disks::new(1, 160, PLAIN);
    let mounted = disks.mount("rw");
    let top = mounted.path().to_owned();
    subvolume("create", &[&top.join("root")]);
    fs::create_dir_all(top.join("root/var/lib")).unwrap();
    subvolume("create", &[&top.join("root/var/lib/machines")]);
    fs::write(top.join("root/secret"), text("CANARY-secret", 1, 300)).unwrap();
    fs::write(top.join("root/kept"), text("KEPT", 2, 300)).unwrap();
    sync(&top);
    assert_eq!(snapshots(mounted.open()).unwrap(), Vec::<String>::new());
    fs::create_dir(top.join("root/.snapshots")).unwrap();
    subvolume("snapshot -r", &[&top.join("root"), &top.join("root/.snapshots/1")]);
    subvolume("snapshot", &[&top.join("root/var/lib/machines"), &top.join("root/var/lib/machines/copy")]);
    fs::remove_file(top.join("root/secret")).unwrap();
    sync(&top);
    let mut found = snapshots(mounted.open()).unwrap();
    found.sort();
    assert_eq!(found, ["/root/.snapshots/1", "/root/var/lib/machines/copy"]);
    mounted.close();
    erase(&disks, |mounted| free_extents(mounted.open()).unwrap());
    let left = disks.canaries();
    assert!(left.iter().any(|(name, _)| name == "CANARY-secret"), "the snapshot keeps it: {left:?}");
    // A deleted subvolume is only gone when the kernel has taken it away.
    let mounted = disks.mount("rw");
    let top = mounted.path().to_owned();
    subvolume("delete", &[&top.join("root/.snapshots/1")]);
    subvolume("delete", &[&top.join("root/var/lib/machines/copy")]);
    subvolume("sync", &[&top]);
    sync(&top);
    let kept = digests(&top);
    mounted.close();
    erase(&disks, |mounted| {
        assert_eq!(snapshots(mounted.open()).unwrap(), Vec::<String>::new());
        free_extents(mounted.open()).unwrap()
    });
    only_kept(&disks, &kept);
}

#[test]
fn what_is_no_btrfs_and_what_has_parity_is_refused() {
    if !ready() {
        return;
    }
    let proc = File::open("/proc").unwrap();
    free_extents(&proc).unwrap_err();
    unread(&proc).unwrap_err();
    let disks = Disks::new(3, 220, "-d raid5 -m raid1");
    let mounted = disks.mount("ro");
    let error = free_extents(mounted.open()).unwrap_err();
    assert!(error.to_string().contains("RAID5"), "{error:?}");
    mounted.close();
}
