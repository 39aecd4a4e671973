//! Image files: format, header, locks, the working overlay and the commit. Touches the image's folder and qemu-img.

pub mod backing;
pub mod commit;
pub mod container;
pub mod format;
pub mod group;
pub mod identity;
pub mod info;
pub mod journal;
pub mod live;
pub mod lock;
pub mod nameless;
pub mod overlay;
mod part;
pub mod past;
pub mod peek;
pub mod place;
pub mod qcow2;
mod qcow2_geometry;
pub mod qcow2_tables;
pub mod qcow2_write;
pub mod uri;
pub mod vmdk;

use serde::{Serialize, Serializer};

/// What there is of each disk of a guest: by itself for a guest with one disk, as a list for others.
pub(crate) fn one_or_all<T: Serialize, S: Serializer>(all: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    match all {
        [one] => one.serialize(serializer),
        all => all.serialize(serializer),
    }
}
