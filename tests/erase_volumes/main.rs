//! Swap space, and vfat, whose free space guestseal reads itself: what was there is gone, what is used is the same.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod fat;
mod image;
mod swap;
