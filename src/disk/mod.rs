//! What is on a disk: partition tables, volumes and superblocks. Pure over `Read + Seek`; opens nothing by path. The
//! input is hostile: every address, count and size in it is checked before it is used.
//!
//! [`read_disk`] gives the whole picture, [`read_table`] and [`probe()`] its two halves; [`fstab`] tells which volume
//! a line of a guest's fstab means.

#![forbid(unsafe_code)]

mod bytes;
mod content;
pub(crate) mod crc;
pub mod fstab;
mod gpt;
mod grow;
mod layout;
mod mbr;
pub(crate) mod number;
mod probe;
mod storage;
mod table;
#[cfg(test)]
mod testing;
pub mod thin;

pub use content::{BtrfsDevice, Content, ContentClass, ExtFeatures, FsState, LastMount, Superblock};
pub use grow::{GrownTable, Patch, grow_partition};
pub use layout::{DiskLayout, Volume, read_disk, read_table};
pub(crate) use probe::fat::{Geometry as FatGeometry, geometry_of as fat_geometry};
pub use probe::probe;
pub use storage::{Disk, Made, Pool, Segment, Storage};
pub use table::{Partition, PartitionTable, TableKind};
