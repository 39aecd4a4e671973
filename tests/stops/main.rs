//! Runs that are stopped half way by a signal, at the places that src/fault.rs names: cargo test --features fault-points.
//! Needs root; what this machine lacks is a skip that says so, and a failure with GUESTSEAL_REQUIRE_ALL=1.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails or says so")]

mod bad_disk;
mod close;
#[allow(dead_code, reason = "shared with tests/images")]
#[path = "../images/common.rs"]
mod common;
#[allow(dead_code, reason = "shared with tests/images")]
#[path = "../images/guests.rs"]
mod guests;
#[path = "../images/leftovers.rs"]
mod leftovers;
#[allow(dead_code, reason = "shared with tests/images")]
#[path = "../images/mounts.rs"]
mod mounts;
mod room;
mod secrets;
mod sick;
mod signals;
#[allow(dead_code, reason = "shared with tests/images")]
#[path = "../images/stage.rs"]
mod stage;
mod stopped;
