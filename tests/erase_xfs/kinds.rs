//! The whole way on filesystems of many shapes.

use guestseal::erase::metadata::Act;

use crate::image::{Image, nothing_in, of, ready};
use crate::plant::{check, delete, plant};

/// Plants, deletes, cleans and looks: `mib` is the size of the filesystem, `room` what is preallocated at the end.
fn whole_way(mib: u64, options: &str, room: u64) {
    if !ready() {
        return;
    }
    let image = Image::new(mib, options);
    image.mounted("rw", plant);
    image.mounted("rw", |root| delete(root, room));
    let before = image.traces().len();
    let (counted, taken) = (image.walk(Act::Count), image.taken());
    assert!(before > 100, "only {before} traces");
    // The kernel itself makes zero what it takes out of blocks of attributes.
    for kind in ["log", "free inodes", "inode slack", "directories", "preallocated"] {
        // Of many groups the kernel may take one that nothing was in yet.
        let is_empty = kind == "preallocated" && options.contains("agcount");
        assert!(is_empty || of(&counted, kind).nonzero > 0, "{kind}: {counted:?}");
    }

    assert_eq!(image.walk(Act::Zero), counted, "what is cleaned is what was counted");
    // What the host's filesystem needs to know where the image is may grow by a block.
    assert!(image.taken() <= taken + (16 << 10), "the image grew from {taken} to {}", image.taken());
    nothing_in(&image.walk(Act::Count));
    image.is_sound();
    image.zero_free_space();
    assert_eq!(image.traces(), Vec::<String>::new(), "{counted:?}");
    image.mounted("ro", |root| check(root, room));
    nothing_in(&image.walk(Act::Count));

    // The kernel goes on with the log where it was.
    image.mounted("rw", |root| {
        check(root, room);
        (0..500).for_each(|index| std::fs::write(root.join(format!("new-{index}")), "new").unwrap());
    });
    image.is_sound();
    image.mounted("rw", |root| check(root, room));
}

macro_rules! shapes {
    ($($name:ident: $mib:literal $options:literal;)*) => {
        $(
            #[test]
            fn $name() {
                whole_way($mib, $options, 100 << 20);
            }
        )*
    };
}

shapes! {
    as_mkfs_makes_it: 400 "";
    all_trees: 400 "-m reflink=1,rmapbt=1,finobt=1,bigtime=1 -i sparse=1";
    no_trees_but_the_oldest: 400 "-m reflink=0,rmapbt=0,finobt=0,bigtime=0,inobtcount=0 -i sparse=0";
    inodes_of_1024: 400 "-i size=1024";
    inodes_of_2048: 400 "-i size=2048";
    blocks_of_1024: 400 "-b size=1024";
    directory_blocks_of_8_kib: 400 "-n size=8192";
    directory_blocks_of_64_kib: 400 "-n size=65536";
    small_blocks_and_large_directory_blocks: 400 "-b size=1024 -n size=16384";
    large_counts: 400 "-i nrext64=1";
    many_groups: 400 "-d agcount=16";
    sectors_of_4096: 400 "-s size=4096";
    log_units_of_64_kib: 400 "-l su=65536";
    log_that_goes_round: 300 "-l size=6m";
    small_log_in_small_blocks: 300 "-b size=1024 -l size=4m";
    small_log_with_units: 300 "-l size=8m,su=32768";
}
