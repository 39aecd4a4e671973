//! The image file's own bytes, as an ordinary user: what no table of an image refers to is found and made zero, and the
//! disk in it is the same afterwards.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod file;
mod hostile;
mod others;
mod qcow2;

#[allow(dead_code, reason = "used whole by the tests on disk images")]
#[path = "../disk_images/tools.rs"]
mod tools;
