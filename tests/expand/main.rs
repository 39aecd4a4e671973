//! `--expand` by the built program on real images: what is grown, what is refused, and what a failure leaves. Needs root.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails or says so")]

#[path = "../images/common.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod common;
#[path = "../images/disks.rs"]
mod disks;
#[path = "../images/guests.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod guests;
#[path = "../common/kernel.rs"]
mod kernel;
#[path = "../images/mounts.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod mounts;

mod failures;
mod grown;
mod refused;
mod rig;
