//! The virtual machine itself, under emulation: it starts, has its disks, does small jobs, powers off; one that misbehaves
//! is an error in time. Everything goes as an ordinary user too.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails or says so")]

#[path = "../common/mod.rs"]
mod common;
mod jobs;
mod kept;
#[path = "../common/kernel.rs"]
mod kernel;
mod misbehaviour;
mod overlay;
mod rig;
mod unprivileged;
