//! Damaged filesystems: the walk ends, with an answer or an error.

use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use guestseal::erase::metadata::{Act, ext};
use guestseal::erase::volume::VolumeBytes;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::image::{Image, possible};
use crate::plant::plant;

const LONGEST: Duration = Duration::from_secs(20);

/// What is written over a filesystem, and where: mostly where its metadata is.
fn damage(blocks: u64) -> impl Strategy<Value = Vec<(u64, Vec<u8>)>> {
    let place = prop_oneof![1024..2048_u64, 4096..65536_u64, 0..blocks * 512, 0..blocks * 4096];
    let odd = prop_oneof![Just(0), Just(1), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()];
    proptest::collection::vec((place, proptest::collection::vec(odd, 1..9)), 1..24)
}

/// Whether the walks of a damaged copy end in time; what was damaged is put back, and what was zeroed is not.
fn ends(image: &Image, damage: &[(u64, Vec<u8>)]) -> Result<(), TestCaseError> {
    let copy = Image::empty(image.window.1);
    std::fs::copy(image.path(), copy.path()).unwrap();
    let file = copy.open();
    for (at, bytes) in damage.iter().filter(|(at, bytes)| at + bytes.len() as u64 <= image.window.1) {
        file.write_all_at(bytes, *at).unwrap();
    }
    let volume = VolumeBytes::new(&file, 0, image.window.1);
    let start = Instant::now();
    let counted = ext::walk(&volume, Act::Count);
    let zeroed = ext::walk(&volume, Act::Zero);
    prop_assert!(start.elapsed() < LONGEST);
    // What is only counted needs no right checksum.
    prop_assert!(counted.is_ok() || zeroed.is_err(), "{:?} and {:?}", counted, zeroed);
    Ok(())
}

/// Without checksums, so that the damage is not seen at once.
const FORMS: [&str; 4] = [
    "-t ext4 -b 1024 -O ^metadata_csum,^resize_inode -N 2048",
    "-t ext3 -b 1024 -N 2048 -J size=1",
    "-t ext4 -b 1024 -O ^metadata_csum,inline_data,bigalloc -C 4096 -N 2048",
    "-t ext4 -b 1024 -O metadata_csum,^resize_inode -N 2048",
];

#[test]
fn a_walk_over_damage_ends() {
    if !possible() {
        return;
    }
    for form in FORMS {
        let image = Image::make(16 << 20, form);
        let mounted = image.mount("rw");
        plant(mounted.path());
        drop(mounted);
        let mut runner = TestRunner::new(Config { cases: 24, max_shrink_iters: 20, ..Config::default() });
        runner.run(&damage(image.window.1 / 4096), |damage| ends(&image, &damage)).unwrap();
    }
}
