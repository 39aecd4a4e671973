//! Swap partitions and swap files.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use guestseal::erase::map::swap::{Place, extents, file_extents};
use guestseal::erase::volume::VolumeBytes;
use tempfile::TempDir;

use crate::common::{has_tool, is_root, require};
use crate::image::{Image, tool, try_tool, words};

const UUID: &str = "8f1a35f2-6f7b-4f4b-9d3c-0d7b5f7f1c11";

fn ready(tools: &[&str]) -> bool {
    tools.iter().all(|tool| require(has_tool(tool), &format!("needs {tool}")))
}

#[test]
fn a_partition_keeps_its_header() {
    if !ready(&["mkswap", "swaplabel"]) {
        return;
    }
    for page in [4096_usize, 16 << 10, 64 << 10] {
        let image = Image::new(2 << 20);
        tool("mkswap", words(&format!("-L templates -U {UUID} -p {page}"), &[&image.path()]));
        let (before, file) = (fs::read(image.path()).unwrap(), image.open());
        // A volume within a disk, so that nothing outside of it may go.
        let volume = VolumeBytes::new(&file, 0, image.length() - 4096);
        let found = extents(&volume).unwrap();
        assert_eq!(found.bytes(), image.length() - 4096 - page as u64);
        image.zero(&found);
        let after = fs::read(image.path()).unwrap();
        let end = after.len() - 4096;
        assert_eq!((&after[..page], &after[end..]), (&before[..page], &before[end..]));
        assert!(after[page..end].iter().all(|byte| *byte == 0));
        let label = tool("swaplabel", [image.path()]);
        assert!(label.contains("templates") && label.contains(UUID), "{label}");
    }
}

#[test]
fn suspended_systems_and_others_are_refused() {
    if !ready(&["mkswap"]) {
        return;
    }
    let image = Image::new(1 << 20);
    let file = image.open();
    let map = || extents(&VolumeBytes::new(&file, 0, image.length()));
    map().unwrap_err();
    tool("mkswap", words("", &[&image.path()]));
    map().unwrap();
    file.write_all_at(b"S1SUSPEND\0", 4086).unwrap();
    assert!(map().unwrap_err().to_string().contains("suspended"));
    file_extents(&file).unwrap_err();
}

/// A filesystem in an image, mounted through a loop device.
struct Mounted(Option<TempDir>);

impl Mounted {
    fn new(image: &Image, options: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        tool("mount", words(&format!("-o loop,{options}"), &[&image.path(), folder.path()]));
        Self(Some(folder))
    }

    fn path(&self) -> &Path {
        self.0.as_ref().unwrap().path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(folder) = self.0.take() {
            tool("umount", [folder.path()]);
        }
    }
}

/// Fills a file with canaries and makes it swap space.
fn swap_file(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    let length = usize::try_from(file.metadata().unwrap().len()).unwrap();
    let memory: Vec<u8> = b"CANARY-memory".iter().copied().cycle().take(length).collect();
    file.write_all_at(&memory, 0).unwrap();
    file.sync_all().unwrap();
    tool("mkswap", words(&format!("-L file -U {UUID}"), &[path]));
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

/// A swap file on a filesystem that is made with these words: its memory goes, all else stays.
fn check_file(mkfs: &str, bytes: usize, make: impl FnOnce(&Path), fsck: &str) {
    let program = mkfs.split_whitespace().next().unwrap();
    if !require(is_root(), "needs root") || !ready(&["mkswap", program]) {
        return;
    }
    // Not of old data: what of it is free is not what is tested here.
    let image = Image::new(0);
    image.open().set_len(bytes as u64).unwrap();
    tool("bash", ["-c", &format!("{mkfs} {}", image.path().display())]);
    let mounted = Mounted::new(&image, "rw");
    let path = mounted.path().join("swapfile");
    fs::write(mounted.path().join("before"), vec![b'k'; 300_000]).unwrap();
    make(&path);
    swap_file(&path);
    fs::write(mounted.path().join("behind"), vec![b'k'; 300_000]).unwrap();
    drop(mounted);
    assert!(image.canaries() > 10_000);
    let mounted = Mounted::new(&image, "ro");
    let place = file_extents(&File::open(mounted.path().join("swapfile")).unwrap()).unwrap();
    drop(mounted);
    let found = match place {
        Place::Volume(found) => found,
        Place::Devices(mut devices) => devices.remove(&1).unwrap(),
    };
    image.zero(&found);
    assert_eq!(image.canaries(), 0);
    tool("bash", ["-c", &format!("{fsck} {}", image.path().display())]);
    let mounted = Mounted::new(&image, "rw");
    let path = mounted.path().join("swapfile");
    for name in ["before", "behind"] {
        assert_eq!(fs::read(mounted.path().join(name)).unwrap(), vec![b'k'; 300_000]);
    }
    let label = tool("swaplabel", [&path]);
    assert!(label.contains("file") && label.contains(UUID), "{label}");
    // It has no holes, or the kernel would not take it.
    if require(Path::new("/proc/swaps").exists(), "needs a kernel with swap") {
        let (ok, said) = try_tool("swapon", words("-p 0", &[&path]));
        if ok {
            tool("swapoff", [&path]);
        }
        assert!(ok, "{said}");
    }
    drop(mounted);
    assert_eq!(image.canaries(), 0);
}

fn plain(path: &Path) {
    tool("dd", ["if=/dev/zero".into(), format!("of={}", path.display()), "bs=64K".into(), "count=96".into()]);
}

fn set_aside(path: &Path) {
    tool("fallocate", words("-l 6M", &[path]));
}

#[test]
fn a_file_on_ext4() {
    check_file("mkfs.ext4 -q", 32 << 20, plain, "e2fsck -fn");
}

#[test]
fn a_file_on_ext2_without_extents() {
    check_file("mkfs.ext2 -q -b 1024", 32 << 20, plain, "e2fsck -fn");
}

#[test]
fn a_file_set_aside_on_ext4() {
    check_file("mkfs.ext4 -q", 32 << 20, set_aside, "e2fsck -fn");
}

#[test]
fn a_file_on_xfs() {
    check_file("mkfs.xfs -q", 300 << 20, set_aside, "xfs_repair -n");
}

#[test]
fn a_file_on_btrfs() {
    let make = |path: &Path| drop(tool("btrfs", words("filesystem mkswapfile -s 6M", &[path])));
    check_file("mkfs.btrfs -q", 300 << 20, make, "btrfs check --check-data-csum");
}

#[test]
fn files_that_share_or_have_checksums_are_refused() {
    if !require(is_root(), "needs root") || !ready(&["mkswap", "mkfs.btrfs", "mkfs.xfs"]) {
        return;
    }
    for mkfs in ["mkfs.btrfs", "mkfs.xfs"] {
        let image = Image::new(0);
        image.open().set_len(300 << 20).unwrap();
        tool(mkfs, words("-q", &[&image.path()]));
        let mounted = Mounted::new(&image, "rw");
        let (one, two) = (mounted.path().join("one"), mounted.path().join("two"));
        plain(&one);
        swap_file(&one);
        let error = file_extents(&File::open(&one).unwrap());
        assert_eq!(error.is_err(), mkfs == "mkfs.btrfs", "{error:?}");
        tool("cp", words("--reflink=always", &[&one, &two]));
        file_extents(&File::open(&two).unwrap()).unwrap_err();
    }
}
