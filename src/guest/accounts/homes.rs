//! Which home folders of passwd(5) are real ones: places where people and services keep keys and histories.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::passwd::Passwd;

/// Linux's PATH_MAX: no longer path can be opened.
const LONGEST_PATH: usize = 4096;

/// Folders that stand in passwd(5) as homes of accounts that have none, each with all below it.
const NO_HOMES: [&str; 18] = [
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nonexistent",
    "/no-such-dir",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var/empty",
    "/var/run",
    "/var/lib/empty",
];

/// Where a person's home may be although it is below one of them.
const HOMES_BELOW: [&str; 2] = ["/usr/home", "/usr/local"];

/// The home folders of the guest: /root first, then those of its accounts, sorted, each once.
///
/// Taken are absolute paths without `..` that are no system folder. Homes of system accounts count, since services
/// such as a CI server keep keys there. An account of a person, one with a number from `uid_min` on, may also live in
/// /usr/home or /usr/local. Folders below /home that belong to no account are the caller's to add.
pub fn homes(passwd: &Passwd, uid_min: u32) -> Vec<PathBuf> {
    let root = PathBuf::from("/root");
    let mut found = BTreeSet::new();
    for account in passwd.accounts() {
        let Some(home) = clean_path(account.home()) else { continue };
        let may_be_below =
            account.uid() >= uid_min && HOMES_BELOW.iter().any(|folder| home.starts_with(folder));
        if home != root && (may_be_below || is_real(&home)) {
            found.insert(home);
        }
    }
    std::iter::once(root).chain(found).collect()
}

/// Whether a clean path can be somebody's home.
fn is_real(home: &Path) -> bool {
    home != Path::new("/") && !NO_HOMES.iter().any(|folder| home.starts_with(folder))
}

/// The path without doubled slashes, `.` and a slash at its end. None when it is relative, has a `..`, or is too long
/// to be opened: such a home is none.
pub fn clean_path(path: &Path) -> Option<PathBuf> {
    let climbs = path.components().any(|part| part == Component::ParentDir);
    let fits = path.as_os_str().len() < LONGEST_PATH;
    (path.is_absolute() && !climbs && fits).then(|| path.components().collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn homes_of(lines: &[(&str, u32)]) -> Vec<String> {
        let text: String =
            lines.iter().map(|(home, uid)| format!("u{uid}:x:{uid}:{uid}::{home}:/bin/sh\n")).collect();
        homes(&Passwd::parse(text.as_bytes()), 1000).iter().map(|home| home.display().to_string()).collect()
    }

    #[test]
    fn real_homes_only() {
        let lines = [
            ("/root", 0),
            ("/", 1),
            ("/nonexistent", 2),
            ("/dev/null", 3),
            ("/bin", 4),
            ("/usr/sbin", 5),
            ("/usr/home/svc", 6),
            ("/var/empty/sshd", 7),
            ("/run/ircd", 8),
            ("/proc/self", 9),
            ("relative", 10),
            ("", 11),
            ("/srv/../etc", 12),
            ("/var/lib/jenkins/", 13),
            ("//srv//home/./bob", 1000),
            ("/srv/home/bob", 1001),
            ("/usr/home/carl", 1002),
            ("/usr/bin", 1003),
        ];
        assert_eq!(homes_of(&lines), ["/root", "/srv/home/bob", "/usr/home/carl", "/var/lib/jenkins"]);
    }

    #[test]
    fn root_is_always_there() {
        assert_eq!(homes_of(&[]), ["/root"]);
        assert_eq!(homes_of(&[("/roots", 0)]), ["/root", "/roots"]);
    }

    proptest! {
        #[test]
        fn homes_are_absolute_and_never_climb(paths in prop::collection::vec("[/.a-c]{0,12}", 0..8)) {
            let text: String = paths.iter().map(|home| format!("u:x:1000:1000::{home}:/bin/sh\n")).collect();
            for home in homes(&Passwd::parse(text.as_bytes()), 1000) {
                prop_assert!(home.is_absolute() && home != Path::new("/"));
                prop_assert!(home.components().all(|part| part != Component::ParentDir));
                prop_assert!(!home.as_os_str().to_string_lossy().contains("//"));
            }
        }
    }
}
