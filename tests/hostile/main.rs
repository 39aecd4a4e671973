//! Guests and images that want to do harm, sealed end to end by the built program: links that lead to the host, files
//! that are no files, sizes and names beyond all bounds, headers that lie. Each is refused with a clear message or handled,
//! in bounded time and memory, and files of the host are neither opened nor changed. Needs root.
//!
//! The hostile trees are scripts, one an attack, in `trees/`; the headers are made by code from real images.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails or says so")]

#[path = "../images/common.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod common;
#[path = "../images/disks.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod disks;
#[path = "../images/guests.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod guests;
#[path = "../images/leftovers.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod leftovers;
#[path = "../images/mounts.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod mounts;
#[path = "../images/stage.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod stage;

mod bases;
mod headers;
mod host;
mod measured;
mod trees;
mod volumes;
