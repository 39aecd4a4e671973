//! A user for a child of root's that shall have no power over anything: its number is one of those that belong to nobody
//! and own nothing, of the range from which systemd takes the users of services for the time they run (systemd.exec(5),
//! `DynamicUser=`).

#![forbid(unsafe_code)]

use std::fs;
use std::ops::RangeInclusive;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::geteuid;

use super::child::User;

const NOBODYS: RangeInclusive<u32> = 61_184..=65_519;
/// The user nobody, for containers that have no more numbers.
const NOBODY: u32 = 65_534;

/// The user that a child becomes; None when this process is not root anyway, or its container has no other numbers.
/// It is in the group that `device` belongs to, so that it may open it.
pub fn user(device: &Path) -> Option<User> {
    if !geteuid().is_root() {
        return None;
    }
    let maps = ["uid_map", "gid_map"].map(|name| fs::read_to_string(Path::new("/proc/self").join(name)));
    let [users, groups] = maps.map(|map| parse_map(&map.unwrap_or_default()));
    let own = NOBODYS.start() + std::process::id() % (NOBODYS.end() - NOBODYS.start() + 1);
    let has = |ranges: &[RangeInclusive<u32>], id| ranges.iter().any(|range| range.contains(&id));
    let id = [own, NOBODY].into_iter().find(|id| has(&users, *id) && has(&groups, *id))?;
    let metadata = fs::metadata(device).ok().filter(|metadata| metadata.mode() & 0o060 == 0o060);
    // Never root's group: that would be power.
    let group = metadata.map(|metadata| metadata.gid()).filter(|group| *group != 0 && has(&groups, *group));
    Some(User { user: id, group: id, groups: group.into_iter().collect() })
}

/// The numbers that a user namespace has (user_namespaces(7)): lines of "inside outside length".
fn parse_map(text: &str) -> Vec<RangeInclusive<u32>> {
    let ranges = text.lines().filter_map(|line| {
        let mut numbers = line.split_whitespace().map(|word| word.parse::<u32>().ok());
        let (start, length) = (numbers.next()??, numbers.nth(1)??);
        Some(start..=start.saturating_add(length.checked_sub(1)?))
    });
    ranges.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_map("         0          0 4294967295\n"), [0..=4_294_967_294]);
        assert_eq!(parse_map("0 1000 1\n1 100000 65536\n"), [0..=0, 1..=65_536]);
        assert!(parse_map("odd\n0 0 0\n").is_empty());
    }

    #[test]
    fn only_root_has_to_become_another() {
        let user = user(Path::new("/dev/null"));
        assert_eq!(user.is_some(), geteuid().is_root());
        assert!(user.is_none_or(|user| user.user >= *NOBODYS.start() && user.groups.is_empty()));
    }
}
