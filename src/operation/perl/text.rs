//! Texts of perl in which groups and escapes stand: the second half of s///.

#![forbid(unsafe_code)]

use std::iter::Peekable;
use std::str::Chars;

use super::Refusal;

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// These bytes.
    Text(Vec<u8>),
    /// What a group matched; 0 is all that matched.
    Group(usize),
}

/// Puts the groups in their places.
pub(super) fn fill<'a>(parts: &[Part], group: impl Fn(usize) -> &'a [u8]) -> Vec<u8> {
    parts.iter().fold(Vec::new(), |mut text, part| {
        match part {
            Part::Text(bytes) => text.extend(bytes),
            Part::Group(number) => text.extend(group(*number)),
        }
        text
    })
}

/// The groups that a text names.
pub(super) fn groups(parts: &[Part]) -> impl Iterator<Item = usize> {
    parts.iter().filter_map(|part| match part {
        Part::Group(number) => Some(*number),
        Part::Text(_) => None,
    })
}

/// Reads a text.
pub(super) fn parse(text: &str) -> Result<Vec<Part>, Refusal> {
    let mut parts = Vec::new();
    let mut plain = Vec::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let group = match letter {
            '\\' => escape(&mut letters, &mut plain)?,
            '$' => Some(reference(&mut letters)?),
            '@' if letters.peek().is_some_and(|next| next.is_ascii_alphabetic() || *next == '_') => {
                return Err("`@name` is a variable of perl: write \\@ for the sign itself".into());
            }
            other => {
                plain.extend(other.encode_utf8(&mut [0; 4]).as_bytes());
                None
            }
        };
        if let Some(group) = group {
            parts.extend([Part::Text(std::mem::take(&mut plain)), Part::Group(group)]);
        }
    }
    parts.push(Part::Text(plain));
    parts.retain(|part| *part != Part::Text(Vec::new()));
    Ok(parts)
}

fn escape(letters: &mut Peekable<Chars<'_>>, plain: &mut Vec<u8>) -> Result<Option<usize>, Refusal> {
    match letters.next() {
        Some('n') => plain.push(b'\n'),
        Some('t') => plain.push(b'\t'),
        Some('r') => plain.push(b'\r'),
        Some('e') => plain.push(0x1b),
        Some(digit @ '1'..='9') => {
            return Ok(digit.to_digit(10).and_then(|digit| usize::try_from(digit).ok()));
        }
        Some(letter) if letter.is_ascii_alphanumeric() => {
            return Err(format!("`\\{letter}` in the text cannot be translated"));
        }
        Some(letter) => plain.extend(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        None => return Err("the text ends with a backslash".into()),
    }
    Ok(None)
}

/// `$1`, `${1}` or `$&`.
fn reference(letters: &mut Peekable<Chars<'_>>) -> Result<usize, Refusal> {
    let braces = letters.next_if_eq(&'{').is_some();
    if letters.next_if_eq(&'&').is_some() && !braces {
        return Ok(0);
    }
    let mut digits = String::new();
    while let Some(digit) = letters.next_if(char::is_ascii_digit) {
        digits.push(digit);
    }
    let closed = !braces || letters.next_if_eq(&'}').is_some();
    match digits.parse::<usize>() {
        Ok(number @ 1..) if closed => Ok(number),
        _ => Err("after `$` the text must name a group: write \\$ for the sign itself".into()),
    }
}
