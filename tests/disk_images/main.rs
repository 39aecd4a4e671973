//! Partition tables and superblocks against images that the real tools make, as an ordinary user and without mounts:
//! what `src/disk` says must be what `blkid` and `sfdisk` say.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod hostile;
mod superblocks;
mod tables;
mod tools;
