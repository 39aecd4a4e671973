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

    proptest! {
        #[test]
        fn any_bytes_survive(bytes: Vec<u8>) {
            let mut ids = SubIds::parse(&bytes);
            prop_assert!(!ids.remove(&BTreeSet::from([b"nobody-has-this-name".to_vec()]), &BTreeSet::new()));
            prop_assert_eq!(ids.as_bytes(), &bytes[..]);
        }
    }
}
