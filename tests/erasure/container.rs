//! What is in a qcow2 file and in no table of it: clusters that were freed, leaked, or stand behind the last one.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::cells::{Sealed, Way};
use crate::common::{run, tool};
use crate::disk::Planted;
use crate::scan::{Counts, count, text};
use crate::stage::Stage;
use crate::variants::{EXT4, planted, possible};

const CLUSTER: u64 = 64 << 10;
/// Guest addresses behind the last partition.
const FREED: u64 = 374 << 20;
const LEAKED: u64 = 376 << 20;

#[test]
fn bytes_of_the_file_that_no_table_knows() {
    if possible() {
        let planted = planted(EXT4, &[]);
        for way in [Way::Overlay, Way::InPlace] {
            let stage = stale_clusters(&planted);
            let file = count(&stage.image);
            for kind in ["freed", "leaked", "behind"] {
                assert_eq!(file.get(kind), Some(&(CLUSTER / 64)), "{file:?}");
            }
            let sealed = Sealed::of(stage, "qcow2", way, "");
            assert_eq!(sealed.left(&["boot"]), (Counts::new(), Counts::new()), "{way:?}");
            sealed.is_whole(&planted);
        }
    }
}

fn stale_clusters(planted: &Planted) -> Stage {
    let stage = Stage::convert(&planted.disk, "qcow2", &[]);
    let image = stage.image.to_str().unwrap();
    let write = |kind: &str, at: u64| {
        let source = stage.path(kind);
        fs::write(&source, text(kind, usize::try_from(CLUSTER).unwrap())).unwrap();
        let command = format!("write -q -s {} {at} {CLUSTER}", source.display());
        tool("qemu-io", ["-f", "qcow2", "-c", &command, image]);
        fs::remove_file(source).unwrap();
    };
    write("freed", FREED);
    write("leaked", LEAKED);
    // As a guest's discard that the host does not pass on to the file.
    let free = format!("write -q -z -u {FREED} {CLUSTER}");
    tool("qemu-io", ["-f", "qcow2", "-d", "ignore", "-c", &free, image]);
    leak(&stage.image, LEAKED);
    let file = File::options().write(true).open(&stage.image).unwrap();
    let end = file.metadata().unwrap().len().next_multiple_of(CLUSTER);
    let behind = text("behind", usize::try_from(CLUSTER).unwrap());
    file.write_all_at(behind.as_bytes(), end).unwrap();
    // Three is for leaked clusters and no error.
    run("qemu-img", ["check", "-q", "-f", "qcow2", image]).expect(3);
    stage
}

/// Takes the cluster of this guest address out of its table: see qemu's docs/interop/qcow2.rst.
fn leak(image: &Path, address: u64) {
    let file = File::options().read(true).write(true).open(image).unwrap();
    let word = |at: u64| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).unwrap();
        u64::from_be_bytes(bytes)
    };
    let offset = |entry: u64| entry & 0x00ff_ffff_ffff_fe00;
    let per_table = CLUSTER / 8;
    let index = address / CLUSTER;
    let table = offset(word(word(40) + index / per_table * 8));
    let entry = table + index % per_table * 8;
    assert!(table != 0 && offset(word(entry)) != 0, "{address} has no cluster");
    file.write_all_at(&[0; 8], entry).unwrap();
}
