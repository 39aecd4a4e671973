//! Bytes flipped anywhere in the metadata: a walk ends, with an answer or an error, and stays inside the volume.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use guestseal::erase::metadata::{Act, xfs};
use guestseal::erase::volume::VolumeBytes;
use proptest::prelude::*;

use crate::image::{Image, ready};
use crate::{old, plant};

/// What lies before and behind the volume, and must stay.
const AROUND: u64 = PAGE as u64;
const PAGE: usize = 4096;

/// The pages of an image that are not zero.
struct Base {
    length: u64,
    pages: Vec<(u64, Vec<u8>)>,
}

impl Base {
    fn new(image: &Image) -> Self {
        let bytes = std::fs::read(image.path()).unwrap();
        let pages = bytes.chunks(PAGE).enumerate().filter(|(_, page)| page.iter().any(|byte| *byte != 0));
        let pages = pages.map(|(index, page)| ((index * PAGE) as u64, page.to_vec())).collect();
        Self { length: bytes.len() as u64, pages }
    }

    /// The image with these pages changed, in the middle of a file of ones.
    fn file(&self, changes: &[Change]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(self.length + 2 * AROUND).unwrap();
        for at in [0, AROUND + self.length] {
            file.write_all_at(&[0xff; PAGE], at).unwrap();
        }
        for (at, page) in &self.pages {
            file.write_all_at(page, AROUND + at).unwrap();
        }
        for change in changes {
            let (at, page) = &self.pages[change.page.index(self.pages.len())];
            let place = change.place.index(page.len() - change.bytes.len());
            file.write_all_at(&change.bytes, AROUND + at + place as u64).unwrap();
        }
        file
    }
}

#[derive(Debug, Clone)]
struct Change {
    page: prop::sample::Index,
    place: prop::sample::Index,
    bytes: Vec<u8>,
}

fn change() -> impl Strategy<Value = Change> {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..8),
        (1..8_usize).prop_map(|length| vec![0xff; length]),
        (1..8_usize).prop_map(|length| vec![0; length]),
    ];
    (any::<prop::sample::Index>(), any::<prop::sample::Index>(), bytes)
        .prop_map(|(page, place, bytes)| Change { page, place, bytes })
}

fn bases() -> &'static [Base] {
    static BASES: OnceLock<Vec<Base>> = OnceLock::new();
    BASES.get_or_init(|| {
        let new = Image::new(64, "-l size=4m -b size=1024");
        new.mounted("rw", plant::plant_little);
        [&new, &old::image(40, "-b size=1024"), &old::image(400, "")].map(Base::new).into()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_damage_ends_in_an_answer(base in 0..3_usize, changes in prop::collection::vec(change(), 1..24)) {
        if !ready() {
            return Ok(());
        }
        let base = &bases()[base];
        let file = base.file(&changes);
        let start = Instant::now();
        for act in [Act::Count, Act::Zero, Act::Count] {
            let _ = xfs::walk(&VolumeBytes::new(&file, AROUND, base.length), act);
        }
        prop_assert!(start.elapsed() < Duration::from_secs(60));
        let mut around = [0; 2 * PAGE];
        let (before, behind) = around.split_at_mut(PAGE);
        file.read_exact_at(before, 0).unwrap();
        file.read_exact_at(behind, AROUND + base.length).unwrap();
        prop_assert!(around.iter().all(|byte| *byte == 0xff));
    }
}

#[test]
fn undamaged_ones_are_walked() {
    if ready() {
        for base in bases() {
            let file = base.file(&[]);
            xfs::walk(&VolumeBytes::new(&file, AROUND, base.length), Act::Zero).unwrap();
        }
    }
}
