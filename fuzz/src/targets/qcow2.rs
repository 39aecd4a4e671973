//! The header and tables of a qcow2 image, as a sparse file.

use std::collections::BTreeMap;
use std::io::Cursor;

use guestseal::image::info::check_qcow2;
use guestseal::image::past::Past;
use guestseal::image::qcow2::{held_clusters, read_header};
use guestseal::image::qcow2_write::Thin;

use crate::sparse::{Disk, Input};
use crate::targets::check_error;

pub(crate) fn run(data: &[u8]) {
    let mut file = Disk::parse(&mut Input(data));
    // Cut, or a lawful but huge sparse file would be read through.
    file.bytes = file.bytes.min(64 << 20);
    match read_header(&mut file) {
        Ok(header) => {
            assert!(
                header.cluster_bytes.is_power_of_two() && (512..=2 << 20).contains(&header.cluster_bytes)
            );
            assert!(header.backing_file.as_ref().is_none_or(|name| name.len() <= 3 * 1023));
        }
        Err(error) => check_error(&error),
    }
    if let Err(error) = held_clusters(&mut file, 16) {
        check_error(&error);
    }
    file.read = 0;
    match check_qcow2(&mut file, false, Past::default()) {
        Ok(header) => overlay(header.virtual_bytes),
        Err(error) => check_error(&error),
    }
    // Its header up to a cluster, and each of its tables once.
    let most = 2 * file.bytes + (8 << 20);
    assert!(file.read <= most, "{} bytes were read of a file of {}", file.read, file.bytes);
}

/// An overlay over a disk of this length says so.
fn overlay(bytes: u64) {
    // Longer disks have tables of many clusters, which only take time.
    if bytes <= 1 << 40 {
        let mut overlay = Cursor::new(Vec::new());
        let thin = Thin {
            virtual_bytes: bytes,
            backing_file: "/srv/a.qcow2",
            backing_format: "qcow2",
            mark: Some(7),
            template: None,
        };
        thin.write(&mut overlay, &BTreeMap::new()).expect("it is written to memory");
        let header = read_header(&mut overlay).expect("it was just made");
        assert_eq!((header.virtual_bytes, header.backing_file.as_deref()), (bytes, Some("/srv/a.qcow2")));
    }
}
