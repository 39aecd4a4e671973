//! Values such as `bob:groups=sudo:key=file:bob.pub`: a first word, then settings. A setting goes on to the next one that
//! begins with a known key, so that addresses and selectors keep their colons.

#![forbid(unsafe_code)]

/// A value in its parts.
#[derive(Debug)]
pub(super) struct Pairs<'a> {
    /// What stands before the first setting.
    pub(super) head: &'a str,
    settings: Vec<(&'static str, &'a str)>,
}

/// Where `:KEY=` with a known key begins next, and that key.
fn next(text: &str, keys: &[&'static str]) -> Option<(usize, &'static str)> {
    text.match_indices(':').find_map(|(place, _)| {
        let (word, _) = text[place + 1..].split_once('=')?;
        keys.iter().find(|key| **key == word).map(|key| (place, *key))
    })
}

/// A key that is nearly a known one: what it sets would else become a part of the setting before it.
fn misspelt(text: &str, keys: &[&'static str]) -> Option<&'static str> {
    text.split(':').skip(1).find_map(|part| {
        let (word, _) = part.split_once('=')?;
        keys.iter().copied().find(|key| strsim::damerau_levenshtein(word, key) <= key.len().min(5) / 2)
    })
}

impl<'a> Pairs<'a> {
    /// Takes a value apart.
    ///
    /// # Errors
    /// When a setting is misspelt, empty, or given twice. No value is quoted: it may be a password.
    pub(super) fn parse(text: &'a str, keys: &[&'static str]) -> Result<Self, String> {
        let upto =
            |text: &'a str| next(text, keys).map_or((text, None), |(end, key)| (&text[..end], Some(key)));
        let (head, mut found) = upto(text);
        let mut pairs = Self { head, settings: Vec::new() };
        let (mut rest, mut parts) = (&text[head.len()..], vec![head]);
        while let Some(key) = found {
            rest = &rest[key.len() + ":=".len()..];
            let (value, after) = upto(rest);
            (rest, found) = (&rest[value.len()..], after);
            if value.is_empty() {
                return Err(format!("nothing stands behind {key}="));
            }
            if pairs.get(key).is_some() {
                return Err(format!("{key}= is given twice"));
            }
            parts.push(value);
            pairs.settings.push((key, value));
        }
        if let Some(key) = parts.into_iter().find_map(|part| misspelt(part, keys)) {
            return Err(format!("a key of a setting is misspelt: did you mean {key}=?"));
        }
        Ok(pairs)
    }

    /// The value of a setting.
    pub(super) fn get(&self, key: &str) -> Option<&'a str> {
        self.settings.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
    }

    /// The words of a setting that is a list.
    pub(super) fn list(&self, key: &str) -> Vec<String> {
        self.get(key).map(|list| list.split(',').map(str::to_owned).collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KEYS: [&str; 3] = ["key", "groups", "shell"];

    #[test]
    fn a_setting_goes_on_to_the_next_key() {
        let pairs = Pairs::parse("a:b:key=file:x=y:groups=c,d:shell=/bin/sh", &KEYS).unwrap();
        assert_eq!(
            (pairs.head, pairs.get("key"), pairs.get("shell")),
            ("a:b", Some("file:x=y"), Some("/bin/sh"))
        );
        assert_eq!(pairs.list("groups"), ["c", "d"]);
        assert_eq!(Pairs::parse("a", &KEYS).unwrap().list("groups").len(), 0);
    }

    #[test]
    fn what_is_misspelt_empty_or_twice_is_refused() {
        for (text, words) in [
            ("a:group=b", "did you mean groups="),
            ("a:key=x:shel=/bin/sh", "did you mean shell="),
            ("a:key=", "nothing stands behind key="),
            ("a:key=:shell=x", "nothing stands behind key="),
            ("a:key=x:shell=y:key=z", "key= is given twice"),
        ] {
            let error = Pairs::parse(text, &KEYS).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_does_no_harm(text in "\\PC{0,60}") {
            let _ = Pairs::parse(&text, &KEYS);
        }

        #[test]
        fn parts_put_together_are_the_text(text in "(:|=|a|key|groups|shell){0,12}") {
            if let Ok(pairs) = Pairs::parse(&text, &KEYS) {
                let settings = pairs.settings.iter().map(|(key, value)| format!(":{key}={value}"));
                prop_assert_eq!(settings.fold(pairs.head.to_owned(), |all, part| all + &part), text);
            }
        }
    }
}
