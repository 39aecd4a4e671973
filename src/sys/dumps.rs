//! No core dumps: passwords and keys of guests are in memory, also in that of children.

#![forbid(unsafe_code)]

use std::fs;
use std::io;

use nix::sys::resource::{Resource, setrlimit};

use crate::error::{Context, Result};

/// Which of a process's memory a core dump holds (core(5)).
const FILTER: &str = "/proc/self/coredump_filter";

/// Turns core dumps off for this process and all that it starts, before any secret is read. The limit holds back dumps
/// into files; the programs to which many systems pipe them instead (systemd-coredump, apport) need not obey it, so what
/// they get is left empty too.
///
/// # Errors
/// When the kernel refuses.
pub fn none() -> Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context(|| "cannot turn core dumps off")?;
    match fs::write(FILTER, "0") {
        // A kernel without it writes no core dumps.
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).context(|| format!("cannot turn core dumps off in {FILTER}"))
        }
        _ => Ok(()),
    }
}
