//! subuid(5) and subgid(5): ranges of subordinate ids that users may map into containers.

use std::collections::BTreeSet;

use super::text::{Edit, Text, name_of, number};

/// /etc/subuid or /etc/subgid: lines `owner:first:count`, where the owner is a name or a user number.
#[derive(Debug, Clone)]
pub struct SubIds(Text);

impl SubIds {
    /// Takes any bytes; lines that are no range are kept.
    pub fn parse(bytes: &[u8]) -> Self {
        Self(Text::new(bytes))
    }

    /// The file's content: exactly the bytes it was parsed from while nothing was changed.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Gives a user who has no range the first free one between `least` and `most`. Returns whether anything changed;
    /// where nothing is free, nothing does.
    pub fn add(&mut self, name: &str, uid: u32, (least, most, count): (u64, u64, u64)) -> bool {
        let number_of = |field: Option<&[u8]>| field.and_then(number).map(u64::from);
        let mut taken = Vec::new();
        for (_, entry) in self.0.entries() {
            let mut fields = entry.splitn(3, |&byte| byte == b':');
            let owner = fields.next().unwrap_or_default();
            let (Some(first), Some(length)) = (number_of(fields.next()), number_of(fields.next())) else {
                continue;
            };
            if owner == name.as_bytes() || number(owner) == Some(uid) {
                return false;
            }
            taken.push((first, first.saturating_add(length)));
        }
        taken.sort_unstable();
        let first = taken.into_iter().fold(least, |free, (first, end)| {
            if free.saturating_add(count) <= first { free } else { free.max(end) }
        });
        let fits = count > 0 && first.saturating_add(count - 1) <= most;
        if fits {
            self.0.add(format!("{name}:{first}:{count}").as_bytes());
        }
        fits
    }

    /// Removes the ranges of these users, named or numbered. Returns whether there was one.
    pub fn remove(&mut self, users: &BTreeSet<Vec<u8>>, uids: &BTreeSet<u32>) -> bool {
        self.0.edit(|entry| match name_of(entry) {
            Some(owner) if users.contains(owner) || number(owner).is_some_and(|uid| uids.contains(&uid)) => {
                Edit::Remove
            }
            _ => Edit::Keep,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_go_by_name_and_by_number() {
        let mut ids =
            SubIds::parse(b"bob:100000:65536\n1000:165536:65536\nalice:231072:65536\n# bob:\n1001:1:1");
        assert!(ids.remove(&BTreeSet::from([b"bob".to_vec()]), &BTreeSet::from([1000])));
        assert_eq!(ids.as_bytes(), b"alice:231072:65536\n# bob:\n1001:1:1");
    }

    #[test]
    fn a_range_is_the_first_that_is_free() {
        let limits = (100_000, 600_100_000, 65_536);
        for (old, first) in [
            ("", Some(100_000)),
            ("bob:100000:65536\n", Some(165_536)),
            ("bob:500000:65536\n", Some(100_000)),
            ("bob:165536:65536\neve:100000:65536\n", Some(231_072)),
            ("bob:100001:10\n", Some(100_011)),
            ("alice:5:1\n", None),
            ("1000:5:1\n", None),
            ("bob:4294967295:4294967295\n", Some(100_000)),
        ] {
            let mut ids = SubIds::parse(old.as_bytes());
            assert_eq!(ids.add("alice", 1000, limits), first.is_some(), "{old}");
            let line = first.map(|first| format!("alice:{first}:65536\n")).unwrap_or_default();
            assert_eq!(String::from_utf8_lossy(ids.as_bytes()), format!("{old}{line}"));
        }
        assert!(!SubIds::parse(b"bob:100000:65536\n").add("alice", 1000, (100_000, 100_010, 11)));
    }

    proptest! {
        #[test]
        fn any_bytes_survive(bytes: Vec<u8>) {
            let mut ids = SubIds::parse(&bytes);
            prop_assert!(!ids.remove(&BTreeSet::from([b"nobody-has-this-name".to_vec()]), &BTreeSet::new()));
            prop_assert_eq!(ids.as_bytes(), &bytes[..]);
        }
    }
}
