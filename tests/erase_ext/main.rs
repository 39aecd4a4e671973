//! The erasure on ext2, ext3 and ext4 that the real tools make and the kernel mounts, as root.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clean;
#[path = "../common/mod.rs"]
mod common;
mod fsmap;
mod guest;
mod hostile;
mod image;
mod plant;
mod slack;
