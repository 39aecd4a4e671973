//! The names of many clones, from a pattern: `web-%d` or `web-%03d`, as printf(3) and seq(1) have it.

#![forbid(unsafe_code)]

use crate::error::{Error, Result};

/// A text in which a number may stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    before: String,
    /// How many digits the number has at least, and what comes behind it.
    number: Option<(usize, String)>,
}

impl Pattern {
    /// Reads one: `%d` or `%0Nd` at most once, `%%` for a percent sign.
    ///
    /// # Errors
    /// A usage error for anything else behind a percent sign, and for two numbers.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            Error::usage(format!("cannot understand the pattern {text:?}")).hint(
                "%d stands for the number of a clone, %03d for one of three digits, %% for a percent sign",
            )
        };
        let (mut part, mut number, mut rest) = (String::new(), None, text);
        while let Some((plain, after)) = rest.split_once('%') {
            part.push_str(plain);
            if let Some(after) = after.strip_prefix('%') {
                part.push('%');
                rest = after;
                continue;
            }
            let (digits, after) = after.split_once('d').ok_or_else(wrong)?;
            let width = match digits.strip_prefix('0') {
                None if digits.is_empty() => 0,
                Some(digits) => {
                    digits.parse().ok().filter(|width| (1..=9).contains(width)).ok_or_else(wrong)?
                }
                None => return Err(wrong()),
            };
            if number.replace((width, std::mem::take(&mut part))).is_some() {
                return Err(wrong());
            }
            rest = after;
        }
        part.push_str(rest);
        Ok(match number {
            None => Self { before: part, number: None },
            Some((width, before)) => Self { before, number: Some((width, part)) },
        })
    }

    /// Whether it gives each number a text of its own.
    pub fn has_number(&self) -> bool {
        self.number.is_some()
    }

    /// The text for this number.
    pub fn fill(&self, number: u32) -> String {
        match &self.number {
            None => self.before.clone(),
            Some((width, after)) => format!("{}{number:0width$}{after}", self.before),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_stand_where_the_pattern_says() {
        let fill = |text: &str| Pattern::parse(text).unwrap().fill(7);
        assert_eq!(fill("web-%d.qcow2"), "web-7.qcow2");
        assert_eq!(fill("web-%03d"), "web-007");
        assert_eq!(fill("100%%-%d%%"), "100%-7%");
        assert_eq!(fill("web"), "web");
        assert_eq!(Pattern::parse("%02d").unwrap().fill(12345), "12345");
    }

    #[test]
    fn anything_else_is_refused() {
        for wrong in ["%", "%s", "%d-%d", "a%3d", "%0d", "%00d", "%010d", "%-1d", "%x"] {
            assert!(Pattern::parse(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_ends_in_an_answer_and_numbers_differ(text in ".{0,20}", one in 0u32..2000, other in 0u32..2000) {
            if let Ok(pattern) = Pattern::parse(&text)
                && pattern.has_number()
            {
                prop_assert_eq!(pattern.fill(one) == pattern.fill(other), one == other);
            }
        }
    }
}
