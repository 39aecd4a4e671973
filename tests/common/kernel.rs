//! The kernel that scripts/setup unpacked, for virtual machines.

use std::path::{Path, PathBuf};

/// Where the scripts keep the kernel of virtual machines.
#[expect(clippy::disallowed_methods, reason = "the cache of the test scripts")]
pub(crate) fn kernel() -> PathBuf {
    let cache = std::env::var("GUESTSEAL_CACHE").unwrap_or_else(|_| "/var/cache/guestseal-test".into());
    Path::new(&cache).join("kernel/vmlinuz")
}
