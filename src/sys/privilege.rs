//! What this process may do on its host: in a container the number of root's user says little.

#![forbid(unsafe_code)]

use std::fs;

use nix::unistd::geteuid;
use rustix::thread::{CapabilitySet, capabilities};

/// Why this process cannot mount the filesystems of disks; none when it can.
pub fn cannot_mount() -> Option<&'static str> {
    if !geteuid().is_root() {
        return Some("only root can mount on this host");
    }
    // Without /proc nothing is known, and mounting will tell.
    if fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !is_of_the_host(&map)) {
        return Some("root of a user namespace cannot mount disks");
    }
    let may = |set: CapabilitySet| set.contains(CapabilitySet::SYS_ADMIN);
    let lacks = capabilities(None).is_ok_and(|sets| !may(sets.effective));
    lacks.then_some("without CAP_SYS_ADMIN nobody can mount on this host")
}

/// Whether a map of users is that of the first user namespace (user_namespaces(7)), whose root may mount block devices.
fn is_of_the_host(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_of_a_namespace_is_not_root_of_the_host() {
        assert!(is_of_the_host("         0          0 4294967295\n"));
        for map in ["0 1000 1\n", "0 100000 65536\n", "0 0 4294967295\n1 2 3\n", ""] {
            assert!(!is_of_the_host(map), "{map}");
        }
    }
}
