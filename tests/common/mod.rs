//! What every test binary needs: skips that are seen and counted.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::Write;
use std::path::Path;

/// Whether a test may go on. Where it may not, `SKIPPED: name: reason` goes to stderr past the harness, so that the
/// skips of a run can be counted; with GUESTSEAL_REQUIRE_ALL=1 the test fails instead.
#[expect(clippy::disallowed_methods, reason = "the switch of the whole test suite")]
pub(crate) fn require(there: bool, reason: &str) -> bool {
    if !there {
        let all = std::env::var_os("GUESTSEAL_REQUIRE_ALL").is_some_and(|value| value == "1");
        assert!(!all, "cannot be skipped: {reason}");
        let thread = std::thread::current();
        // A closed stderr is no reason to fail.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {}: {reason}", thread.name().unwrap_or("test"));
    }
    there
}

/// Whether the test runs as root and may therefore make devices and change owners.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether this host has a program of this name where the system keeps them.
pub(crate) fn has_tool(name: &str) -> bool {
    ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|folder| Path::new(folder).join(name).is_file())
}
