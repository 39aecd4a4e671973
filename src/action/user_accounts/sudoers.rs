//! Rules of sudoers(5) for accounts that go: whoever gets the name next must not get the rights too.

use std::collections::BTreeSet;

/// Takes out each rule that is for one of these users alone and stands on a line of its own. Also tells whether a name is
/// left elsewhere, such as in a list of users, where only a person can say what is meant.
pub(super) fn without(text: &[u8], names: &BTreeSet<&[u8]>) -> (Vec<u8>, bool) {
    let (mut new, mut left, mut continued) = (Vec::with_capacity(text.len()), false, false);
    for whole in text.split_inclusive(|byte| *byte == b'\n') {
        let line = whole.trim_ascii();
        let within = continued;
        continued = line.ends_with(b"\\");
        let mut words = line.split(|byte| byte.is_ascii_whitespace() || b",=:!()".contains(byte));
        let named = !line.starts_with(b"#") && words.any(|word| names.contains(word));
        let first = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
        if named && !within && !continued && names.contains(first) {
            continue;
        }
        left |= named;
        new.extend_from_slice(whole);
    }
    (new, left)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn without_bob(text: &str) -> (String, bool) {
        let (new, left) = without(text.as_bytes(), &BTreeSet::from([&b"bob"[..]]));
        (String::from_utf8(new).unwrap(), left)
    }

    #[test]
    fn rules_of_one_user_go_and_lists_are_left() {
        let rules = "root ALL=(ALL:ALL) ALL\n# bob is nice\nbobby ALL=ALL\n%bob ALL=ALL\n";
        let text = format!("{rules}bob ALL=(ALL) NOPASSWD: ALL\n  bob\thost = /bin/ls");
        assert_eq!(without_bob(&text), (rules.to_owned(), false));
        for kept in [
            "User_Alias ADMINS = alice, bob\n",
            "alice,bob ALL=ALL\n",
            "bob, alice ALL=ALL\n",
            "alice ALL=(bob) ALL\n",
            "bob ALL=/bin/ls, \\\n /bin/cat\n",
            "alice ALL=/bin/ls, \\\n bob ALL\n",
            "Defaults:bob !lecture\n",
        ] {
            assert_eq!(without_bob(kept), (kept.to_owned(), true));
        }
    }

    proptest! {
        #[test]
        fn what_names_nobody_stays_as_it_is(text: Vec<u8>) {
            prop_assert_eq!(without(&text, &BTreeSet::from([&b"nobody-has-this-name"[..]])), (text, false));
        }
    }
}
