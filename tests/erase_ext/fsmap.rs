//! The kernel's map of the free space against the free blocks that `dumpe2fs` lists.

use std::io::Write;

use guestseal::erase::extent::{Extent, Extents};
use guestseal::erase::map::fsmap::free_extents;

use crate::image::{Image, possible, run};

/// The free blocks of each group as dumpe2fs prints them: `  Free blocks: 1-2, 7`; of clusters the first block of each.
fn listed(image: &Image) -> Extents {
    let text = run("dumpe2fs", &[image.path().to_str().unwrap()]);
    let number = |text: &str| text.trim().parse::<u64>().unwrap();
    let size = text.lines().find_map(|line| line.strip_prefix("Block size:")).map(number).unwrap();
    let cluster = text.lines().find_map(|line| line.strip_prefix("Cluster size:")).map_or(size, number);
    let ranges =
        text.lines().filter_map(|line| line.strip_prefix("  Free blocks:")).flat_map(|rest| rest.split(','));
    let extent = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Extent::between(number(first) * size, number(last) * size + cluster)
    };
    Extents::new(ranges.filter(|range| !range.trim().is_empty()).map(extent)).unwrap()
}

fn mapped(image: &Image) -> Extents {
    let mounted = image.mount("ro");
    free_extents(mounted.directory()).unwrap()
}

/// Files of many sizes, every second one deleted.
fn fill(image: &Image, files: usize, most: usize) {
    let mounted = image.mount("rw");
    for index in 0..files {
        let mut file = std::fs::File::create(mounted.path().join(format!("file-{index}"))).unwrap();
        file.write_all(&vec![b'x'; 1 + index * 977 % most]).unwrap();
        file.sync_data().unwrap();
    }
    for index in (0..files).step_by(2) {
        std::fs::remove_file(mounted.path().join(format!("file-{index}"))).unwrap();
    }
}

const FORMS: &[(&str, u64)] = &[
    ("-t ext2 -b 1024", 40),
    ("-t ext2 -b 2048 -O ^resize_inode", 40),
    ("-t ext2 -b 4096", 40),
    ("-t ext3 -b 1024", 40),
    ("-t ext3 -b 4096", 40),
    ("-t ext4 -b 1024", 70),
    ("-t ext4 -b 1024 -O ^64bit,^metadata_csum,uninit_bg -E lazy_itable_init=1", 70),
    ("-t ext4 -b 2048 -O ^flex_bg,^has_journal", 70),
    ("-t ext4 -b 4096 -O metadata_csum,64bit -E lazy_itable_init=1", 300),
    ("-t ext4 -b 4096 -O ^metadata_csum,^64bit,^flex_bg", 300),
    ("-t ext4 -b 1024 -O meta_bg,^resize_inode", 70),
    ("-t ext4 -b 4096 -O meta_bg,^resize_inode,^flex_bg", 300),
    ("-t ext4 -b 4096 -O sparse_super2,^resize_inode", 300),
    ("-t ext4 -b 1024 -O bigalloc -C 8192", 90),
    ("-t ext4 -b 4096 -O bigalloc -C 65536", 300),
    ("-t ext4 -b 4096 -O bigalloc -C 16384 -E resize=10000000", 301),
    ("-t ext4 -b 4096 -O inline_data,orphan_file,fast_commit", 70),
];

#[test]
fn the_map_is_what_the_tools_list() {
    if !possible() {
        return;
    }
    for (form, mebibytes) in FORMS {
        // Not a whole number of groups, nor of large clusters.
        let image = Image::make((mebibytes << 20) + 36864, form);
        assert_eq!(mapped(&image), listed(&image), "fresh, {form}");
        fill(&image, 60, 200_000);
        assert_eq!(mapped(&image), listed(&image), "used, {form}");
    }
}

#[test]
fn a_map_of_many_pages_is_whole() {
    if !possible() {
        return;
    }
    let image = Image::make(64 << 20, "-t ext4 -b 1024 -N 20000");
    let mounted = image.mount("rw");
    for index in 0..12_000 {
        std::fs::write(mounted.path().join(format!("{index}")), b"one block").unwrap();
    }
    nix::unistd::sync();
    for index in (0..12_000).step_by(2) {
        std::fs::remove_file(mounted.path().join(format!("{index}"))).unwrap();
    }
    drop(mounted);
    let map = mapped(&image);
    assert!(map.count() > 4000, "only {} pieces", map.count());
    assert_eq!(map, listed(&image));
    image.check();
}

#[test]
fn a_filesystem_without_a_map_is_refused() {
    let error = free_extents(std::fs::File::open("/proc").unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "this host's kernel gives no map of its free space");
    assert_eq!(error.kind(), guestseal::ErrorKind::Unsupported);
}

/// Without reverse mappings and with them.
#[test]
fn an_xfs_has_a_map_too() {
    if !possible() || !crate::common::require(crate::common::has_tool("mkfs.xfs"), "mkfs.xfs") {
        return;
    }
    for form in ["-m rmapbt=0,reflink=0", "-m rmapbt=1,reflink=1"] {
        let image = Image::empty(320 << 20);
        let path = image.path();
        let mut args: Vec<&str> = form.split(' ').collect();
        args.push(path.to_str().unwrap());
        run("mkfs.xfs", &args);
        let mounted = image.mount_as("xfs", "rw");
        std::fs::write(mounted.path().join("kept"), vec![b'k'; 1 << 20]).unwrap();
        drop(mounted);
        let mounted = image.mount_as("xfs", "ro");
        let free = free_extents(mounted.directory()).unwrap();
        let stat = nix::sys::statvfs::statvfs(mounted.path()).unwrap();
        // The rest is what the filesystem keeps for its own trees.
        let (bytes, told) = (free.bytes(), stat.blocks_free() * stat.fragment_size());
        assert!(bytes >= told && bytes < told + (8 << 20), "{form}: {bytes} and {told}");
        let kept = std::fs::read(path).unwrap();
        let at = kept.chunks(4096).position(|block| block == [b'k'; 4096]).unwrap() as u64 * 4096;
        assert_eq!(free.within(at, at + (1 << 20)).bytes(), 0, "{form}");
    }
}
