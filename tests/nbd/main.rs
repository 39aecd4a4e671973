//! Attaching by nbd, for real: needs root, the kernel's nbd driver, qemu-utils and e2fsprogs. Where they are missing
//! each test says so and passes, unless `GUESTSEAL_REQUIRE_ALL=1`; `scripts/vm-run` makes a machine that has them.
#![expect(
    clippy::disallowed_methods,
    reason = "tests run the host's tools, look at the environment and wait"
)]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test says what it measured, and fails by panic"
)]

mod deaths;
mod disks;
mod handshake;
mod host;
