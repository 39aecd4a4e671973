//! Things are planted and deleted on every form of filesystem; after the erasure no byte of them is on the disk, the
//! filesystem is sound, and what was kept is as it was.

use std::fs::File;
use std::os::unix::fs::FileExt;

use guestseal::erase::map::fsmap::free_extents;
use guestseal::erase::metadata::{Act, Remains, ext};
use guestseal::erase::volume::VolumeBytes;

use crate::image::{Image, possible, run};
use crate::plant::{check, plant};

pub(crate) fn walk(image: &Image, act: Act) -> Vec<Remains> {
    let file = image.open();
    ext::walk(&VolumeBytes::new(&file, image.window.0, image.window.1), act).unwrap()
}

/// Writes zeros over all that is free.
pub(crate) fn zero_free(image: &Image) {
    let mounted = image.mount("ro,noload");
    let free = free_extents(mounted.directory()).unwrap();
    drop(mounted);
    let file: File = image.open();
    for extent in free.iter() {
        let zeros = vec![0; usize::try_from(extent.length).unwrap()];
        file.write_all_at(&zeros, image.window.0 + extent.start).unwrap();
    }
}

/// Made over a disk that was full, used, erased.
fn erased(form: &str, mebibytes: u64, options: &str) {
    let image = Image::empty(mebibytes << 20);
    image.fill("OLD-CONTENT ");
    image.format(&format!("-E nodiscard {form}"));
    let mounted = image.mount(options);
    let kept = plant(mounted.path());
    drop(mounted);
    assert!(image.has("GONE") && image.has("OLD-CONTENT"), "{form}");
    let before = walk(&image, Act::Count);
    let zeroed = walk(&image, Act::Zero);
    assert_eq!(before, zeroed, "{form}");
    let after = walk(&image, Act::Count);
    assert!(after.iter().all(|place| place.nonzero == 0), "{form}: {after:?}");
    zero_free(&image);
    let found = image.search("GONE|OLD-CONTENT");
    assert!(found.is_empty(), "{form}: {} left: {:?}", found.len(), &found[..found.len().min(30)]);
    image.check();
    let mounted = image.mount("rw");
    check(mounted.path(), &kept);
    std::fs::write(mounted.path().join("new"), vec![b'n'; 100_000]).unwrap();
    drop(mounted);
    image.check();
}

/// The blocks that are kept for more group descriptors were made zero: they are taken as before.
#[test]
fn a_cleaned_filesystem_can_grow() {
    if !possible() {
        return;
    }
    let mut image = Image::empty(40 << 20);
    image.fill("OLD-CONTENT ");
    image.format("-t ext4 -b 1024 -E nodiscard,lazy_itable_init=0 -O resize_inode");
    let zeroed = walk(&image, Act::Zero);
    assert!(zeroed.iter().any(|place| place.kind == "preallocated" && place.nonzero > 0), "{zeroed:?}");
    image.window.1 = 400 << 20;
    image.open().set_len(400 << 20).unwrap();
    image.check();
    run("resize2fs", &[image.path().to_str().unwrap()]);
    image.check();
    let mounted = image.mount("rw");
    std::fs::write(mounted.path().join("new"), vec![b'n'; 100 << 20]).unwrap();
    drop(mounted);
    image.check();
    walk(&image, Act::Zero);
    image.check();
}

/// What is not to be touched: a journal with something in it, a filesystem that is in use.
#[test]
fn what_is_not_clean_is_refused() {
    if !possible() {
        return;
    }
    let image = Image::make(16 << 20, "-t ext4 -b 1024");
    let mounted = image.mount("rw");
    std::fs::write(mounted.path().join("file"), b"content").unwrap();
    nix::unistd::sync();
    let file = image.open();
    let error = ext::walk(&VolumeBytes::new(&file, 0, image.window.1), Act::Zero).unwrap_err();
    assert_eq!(error.kind(), guestseal::ErrorKind::Unsupported);
    assert!(error.to_string().starts_with("its journal is not empty"), "{error}");
    drop(mounted);
    walk(&image, Act::Zero);
    let other = Image::empty(16 << 20);
    let file = other.open();
    let error = ext::walk(&VolumeBytes::new(&file, 0, other.window.1), Act::Zero).unwrap_err();
    assert_eq!(error.to_string(), "this is no ext2, ext3 or ext4");
}

/// One test for each form, so that they run side by side.
macro_rules! forms {
    ($($name:ident: $form:expr, $mebibytes:expr, $options:expr;)*) => {$(
        #[test]
        fn $name() {
            if possible() {
                erased($form, $mebibytes, $options);
            }
        }
    )*};
}

forms! {
    ext2_1k: "-t ext2 -b 1024", 40, "rw";
    ext2_4k_small_inodes: "-t ext2 -b 4096 -I 128", 40, "rw";
    ext2_without_index_and_types: "-t ext2 -b 2048 -O ^dir_index,^filetype,^resize_inode", 40, "rw";
    ext3_1k: "-t ext3 -b 1024 -J size=4", 40, "rw";
    ext3_4k: "-t ext3 -b 4096 -I 256", 40, "rw";
    ext3_data_in_journal: "-t ext3 -b 4096", 40, "rw,data=journal";
    ext4_1k: "-t ext4 -b 1024", 40, "rw";
    ext4_2k_large_inodes: "-t ext4 -b 2048 -I 512", 40, "rw";
    ext4_4k: "-t ext4 -b 4096", 60, "rw";
    ext4_data_in_journal: "-t ext4 -b 4096", 60, "rw,data=journal";
    ext4_checksummed_journal: "-t ext4 -b 1024", 60, "rw,journal_checksum,journal_async_commit,data=writeback";
    ext4_small_inodes: "-t ext4 -b 4096 -I 128", 40, "rw";
    ext4_without_checksums: "-t ext4 -b 4096 -O ^metadata_csum,^64bit,uninit_bg", 60, "rw";
    ext4_without_flags_of_groups: "-t ext4 -b 1024 -O ^metadata_csum,^uninit_bg", 60, "rw";
    ext4_without_journal: "-t ext4 -b 1024 -O ^has_journal,^flex_bg", 60, "rw";
    ext4_inline: "-t ext4 -b 4096 -O inline_data", 60, "rw";
    ext4_inline_large_inodes: "-t ext4 -b 1024 -O inline_data,^metadata_csum -I 512", 40, "rw";
    ext4_meta_groups: "-t ext4 -b 1024 -O meta_bg,^resize_inode", 60, "rw";
    ext4_fast_commits: "-t ext4 -b 4096 -O fast_commit,orphan_file", 60, "rw";
    ext4_seeded: "-t ext4 -b 4096 -O metadata_csum_seed,large_dir,ea_inode", 60, "rw";
    ext4_clusters: "-t ext4 -b 4096 -O bigalloc -C 65536", 140, "rw";
    ext4_clusters_1k: "-t ext4 -b 1024 -O bigalloc -C 8192", 90, "rw";
    ext4_sparse_copies: "-t ext4 -b 1024 -O sparse_super2,^resize_inode", 60, "rw";
}
