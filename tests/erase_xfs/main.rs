//! The metadata of real XFS filesystems: what is planted in names, links, attributes, small and large files and then
//! deleted is nowhere on the image afterwards, and the filesystem is sound. Needs root.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod damage;
mod image;
mod kinds;
mod log;
mod old;
mod plant;
