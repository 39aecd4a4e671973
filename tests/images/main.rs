//! The built program on real images of real guests: nothing is simulated. Needs root; what this machine lacks is a
//! skip that says so, and a failure with GUESTSEAL_REQUIRE_ALL=1.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails or says so")]

mod bad;
mod busy;
mod common;
mod disks;
mod formats;
mod guests;
mod holders;
mod host;
mod kills;
mod layouts;
mod leftovers;
mod looks;
mod mounts;
mod pair;
mod past;
mod repair;
mod several;
mod stage;
mod variants;
mod worker;
