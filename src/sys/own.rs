//! This process in /proc. Its number there need not be the one it has itself: /proc may be that of an outer process
//! namespace (pid_namespaces(7); unshare(1) without `--mount-proc`).

#![forbid(unsafe_code)]

use std::fs;
use std::os::fd::AsRawFd;

/// The number of this process in /proc.
pub fn number() -> u32 {
    let link = fs::read_link("/proc/self").ok();
    link.and_then(|link| link.to_str()?.parse().ok()).unwrap_or_else(std::process::id)
}

/// The path by which this process or a child of it opens anew what it has open.
pub fn path_of(file: &impl AsRawFd) -> String {
    format!("/proc/{}/fd/{}", number(), file.as_raw_fd())
}
