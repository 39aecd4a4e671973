//! Images that are no files: block devices of this host, which are loop devices here, and disks that servers on this host show.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails or says so")]

mod crash;
mod device;
mod devices;
mod servers;
mod uris;

#[allow(dead_code, reason = "used whole by the tests on images")]
#[path = "../images/common.rs"]
mod common;
#[allow(dead_code, reason = "used whole by the tests on images")]
#[path = "../images/guests.rs"]
mod guests;
#[allow(dead_code, reason = "used whole by the tests on images")]
#[path = "../images/mounts.rs"]
mod mounts;
