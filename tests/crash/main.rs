//! guestseal is killed, and its children are: at each of its fault points, at random moments, while it recovers.
//! Afterwards nothing may be left of it on the host, and the image is what it was, sealed, or one `recover` from
//! sealed. How to run it, and what it has shown: docs/reliability.md.
//!
//! It looks by means of its own: /proc, /sys/block, digests of the files, qemu-img, the filesystems' checkers. What
//! attaches by nbd is in a module of its own, which scripts/test runs in a virtual machine.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails or says so")]

mod check;
mod children;
mod journals;
mod mode;
mod nbd;
mod pair;
mod points;
mod process;
mod random;
mod run;
mod tally;
mod traces;

#[allow(dead_code, reason = "used whole by the tests on images")]
#[path = "../images/common.rs"]
mod common;
#[allow(dead_code, reason = "used whole by the tests on images")]
#[path = "../images/disks.rs"]
mod disks;
#[allow(dead_code, reason = "used whole by the tests on images")]
#[path = "../images/guests.rs"]
mod guests;
#[allow(dead_code, reason = "used whole by the tests on images")]
#[path = "../images/leftovers.rs"]
mod leftovers;
#[allow(dead_code, reason = "used whole by the tests on images")]
#[path = "../images/mounts.rs"]
mod mounts;
#[allow(dead_code, reason = "used whole by the tests on images")]
#[path = "../images/stage.rs"]
mod stage;
#[allow(dead_code, reason = "used whole by the tests on images")]
#[path = "../images/pair.rs"]
mod two;

use std::path::PathBuf;

/// A variable of this harness.
#[expect(clippy::disallowed_methods, reason = "the switches of the test suite")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The image of this guest, which nobody writes. A virtual machine can make none, so one is named there.
fn guest(variant: &str) -> PathBuf {
    variable("GUESTSEAL_TEST_GUEST").map_or_else(|| guests::guest(variant).image, PathBuf::from)
}
