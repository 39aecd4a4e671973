//! The map of the free space of btrfs against real filesystems: what was deleted is all in it, and nothing that is used.
//! Needs root, loop devices and a kernel with btrfs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod disks;
mod plant;
mod profiles;
mod unread;
