//! Images with bytes changed: cleaning ends, with an answer or an error, and an error changes nothing.

use std::fs::File;

use guestseal::image::container::{clean, residue};
use guestseal::image::format::Format;
use proptest::prelude::*;

use crate::file::{Image, ready};

/// Changes bytes near `hot` places, looks at the file and cleans it.
fn survives(image: &Image, format: Format, hot: &[u64]) {
    let good = std::fs::read(image.path()).unwrap();
    let change =
        (prop::sample::select(hot.to_vec()), 0..64_u64, prop_oneof![Just(0), Just(0xff), any::<u8>()]);
    let config = ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(changes in prop::collection::vec(change, 1..8))| {
        let mut bytes = good.clone();
        for (place, offset, byte) in changes {
            if let Some(target) = bytes.get_mut(usize::try_from(place + offset).unwrap()) {
                *target = byte;
            }
        }
        std::fs::write(image.path(), &bytes).unwrap();
        let looked = residue(&File::open(image.path()).unwrap(), format);
        prop_assert!(std::fs::read(image.path()).unwrap() == bytes);
        match (looked, clean(&image.open(), format)) {
            (Ok(looked), Ok(done)) => {
                prop_assert_eq!(looked.bytes_unreferenced, done.bytes_unreferenced);
                prop_assert_eq!(done.bytes_nonzero, 0);
            }
            (Err(_), Err(_)) => prop_assert!(std::fs::read(image.path()).unwrap() == bytes),
            (looked, done) => prop_assert!(false, "{looked:?} and {done:?}"),
        }
    });
}

#[test]
fn changed_qcow2_tables() {
    if !ready() {
        return;
    }
    for options in ["cluster_size=4096", "extended_l2=on,cluster_size=16k", "compat=0.10,cluster_size=4096"] {
        let image = Image::new("qcow2", options, "1M");
        image.io(&[
            "write {marker} 0 128k",
            "write {live} 256k 64k",
            "discard 0 64k",
            "write -c {live} 512k 16k",
        ]);
        let l1 = image.be64(40);
        let l2 = image.be64(l1) & 0x00ff_ffff_ffff_fe00;
        let counts = image.be64(48);
        survives(
            &image,
            Format::Qcow2,
            &[0, 32, 64, 100, l1, l2, l2 + 128, l2 + 256, counts, image.be64(counts)],
        );
    }
}

#[test]
fn changed_maps_of_other_formats() {
    if !ready() {
        return;
    }
    let image = Image::new("vdi", "", "4M");
    image.io(&["write {live} 0 1M", "write {marker} 2M 1M"]);
    survives(&image, Format::Vdi, &[0x150, 0x170, 512]);
    let image = Image::new("vmdk", "", "4M");
    image.io(&["write {live} 0 1M", "write {marker} 2M 1M"]);
    survives(&image, Format::Vmdk, &[0, 40, 21 * 512, 22 * 512]);
}
