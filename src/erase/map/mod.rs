//! Maps of what no file uses, one way of reading it per kind of filesystem.

#![forbid(unsafe_code)]

pub mod btrfs;
mod gather;
pub mod swap;
