//! Canaries: secrets of many kinds are planted in real guests, each with a marker of its own; the built program seals
//! the image; then no marker may be found in the guest's disk, nor in the bytes of the image file. Needs root.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails or says so")]

#[path = "../images/common.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod common;
#[path = "../images/leftovers.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod leftovers;
#[path = "../images/mounts.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod mounts;
#[path = "../images/stage.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod stage;

mod beside;
mod cells;
mod container;
mod disk;
mod plant;
mod policies;
mod proof;
mod scan;
mod table;
mod unproven;
mod variants;
