//! Texts of perl in which groups, escapes and the line itself stand: the second half of s///, and strings.

#![forbid(unsafe_code)]

use std::iter::Peekable;
use std::str::Chars;

use super::{LONGEST, Refusal, State};

/// A piece of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// These bytes.
    Text(Vec<u8>),
    /// What a group matched; 0 is all that matched.
    Group(usize),
    /// `$_`
    Line,
    /// `$lineno`
    Number,
    /// How letters are written from here on.
    Case(Case),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    /// `\U` and `\L`: all, up to `\E`.
    All(Letters),
    /// `\u` and `\l`: the next one.
    Next(Letters),
    /// `\E`
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Letters {
    Large,
    Small,
}

impl Letters {
    fn of(self, byte: u8) -> u8 {
        match self {
            Self::Large => byte.to_ascii_uppercase(),
            Self::Small => byte.to_ascii_lowercase(),
        }
    }
}

/// Puts everything in its place.
pub(super) fn fill(parts: &[Part], state: &State) -> Vec<u8> {
    let mut text = Vec::new();
    let (mut all, mut next): (Option<Letters>, Option<Letters>) = (None, None);
    for part in parts {
        let number;
        let bytes: &[u8] = match part {
            Part::Text(bytes) => bytes,
            Part::Group(group) => state.groups.get(*group).map_or(&[], Vec::as_slice),
            Part::Line => &state.line,
            Part::Number => {
                number = state.number.to_string();
                number.as_bytes()
            }
            Part::Case(case) => {
                match case {
                    Case::All(letters) => all = Some(*letters),
                    Case::Next(letters) => next = Some(*letters),
                    Case::End => all = None,
                }
                continue;
            }
        };
        if text.len() > LONGEST {
            break;
        }
        for byte in bytes {
            let byte = all.map_or(*byte, |letters| letters.of(*byte));
            text.push(next.take().map_or(byte, |letters| letters.of(byte)));
        }
    }
    text
}

/// The groups that a text names.
pub(super) fn groups(parts: &[Part]) -> impl Iterator<Item = usize> {
    parts.iter().filter_map(|part| match part {
        Part::Group(number) => Some(*number),
        _ => None,
    })
}

/// Whether what it makes may have a line end that is not at its end.
pub(super) fn has_inner_line_end(parts: &[Part]) -> bool {
    let (last, before) = match parts.split_last() {
        Some((Part::Text(last), before)) => (last.strip_suffix(b"\n").unwrap_or(last).to_vec(), before),
        Some(_) => (Vec::new(), parts),
        None => return false,
    };
    let ends = |bytes: &[u8]| bytes.contains(&b'\n');
    // The line has its own end, which is inside where something follows.
    let line = before.contains(&Part::Line) && !last.is_empty() && parts.len() > before.len();
    line || ends(&last) || before.iter().any(|part| matches!(part, Part::Text(bytes) if ends(bytes)))
}

/// Whether it makes a line end at all.
pub(super) fn has_line_end(parts: &[Part]) -> bool {
    parts.iter().any(|part| matches!(part, Part::Text(bytes) if bytes.contains(&b'\n')))
}

/// Reads a text; `\1` is a group in the second half of s/// only.
pub(super) fn parse(text: &str, in_substitution: bool) -> Result<Vec<Part>, Refusal> {
    let mut parts = Vec::new();
    let mut plain = Vec::new();
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let part = match letter {
            '\\' => escape(&mut letters, &mut plain, in_substitution)?,
            '$' => Some(variable(&mut letters)?),
            '@' if letters.peek().is_some_and(|next| begins_list(*next) || matches!(next, '+' | '-')) => {
                return Err("`@name` is a variable of perl: write \\@ for the sign itself".into());
            }
            other => {
                plain.extend(other.encode_utf8(&mut [0; 4]).as_bytes());
                None
            }
        };
        if let Some(part) = part {
            parts.extend([Part::Text(std::mem::take(&mut plain)), part]);
        }
    }
    parts.push(Part::Text(plain));
    parts.retain(|part| *part != Part::Text(Vec::new()));
    check_cases(&parts)?;
    Ok(parts)
}

/// Whether a list's name goes on like this behind `@`.
pub(super) fn begins_list(next: char) -> bool {
    next.is_alphanumeric() || matches!(next, '_' | '{' | '$' | ':' | '\'')
}

/// Cases in cases follow rules of their own in perl; one after the other they do not.
fn check_cases(parts: &[Part]) -> Result<(), Refusal> {
    let mut open = None;
    for (at, part) in parts.iter().enumerate() {
        let Part::Case(case) = part else { continue };
        let right = match case {
            // `\L\u` at once is `\u\L`.
            Case::Next(_) => open.is_none_or(|open| open + 1 == at),
            Case::All(_) => open.is_none(),
            Case::End => open.is_some(),
        };
        if !right {
            return Err("\\U, \\L, \\u, \\l and \\E within one another cannot be translated".into());
        }
        match case {
            Case::Next(_) => {}
            Case::All(_) => open = Some(at),
            Case::End => open = None,
        }
    }
    Ok(())
}

fn escape(
    letters: &mut Peekable<Chars<'_>>,
    plain: &mut Vec<u8>,
    in_substitution: bool,
) -> Result<Option<Part>, Refusal> {
    let case = match letters.next() {
        Some('n') => return push(plain, b'\n'),
        Some('t') => return push(plain, b'\t'),
        Some('r') => return push(plain, b'\r'),
        Some('e') => return push(plain, 0x1b),
        Some('U') => Case::All(Letters::Large),
        Some('L') => Case::All(Letters::Small),
        Some('u') => Case::Next(Letters::Large),
        Some('l') => Case::Next(Letters::Small),
        Some('E') => Case::End,
        Some(digit @ '1'..='9') if in_substitution && !letters.peek().is_some_and(char::is_ascii_digit) => {
            let group = digit.to_digit(10).and_then(|digit| usize::try_from(digit).ok()).unwrap_or_default();
            return Ok(Some(Part::Group(group)));
        }
        Some(letter) if letter.is_ascii_alphanumeric() => {
            return Err(format!("`\\{letter}` in the text cannot be translated"));
        }
        Some(letter) => {
            plain.extend(letter.encode_utf8(&mut [0; 4]).as_bytes());
            return Ok(None);
        }
        None => return Err("the text ends with a backslash".into()),
    };
    Ok(Some(Part::Case(case)))
}

fn push(plain: &mut Vec<u8>, byte: u8) -> Result<Option<Part>, Refusal> {
    plain.push(byte);
    Ok(None)
}

/// `$1`, `${1}`, `$&`, `$_`, `$lineno` or `$.`.
pub(super) fn variable(letters: &mut Peekable<Chars<'_>>) -> Result<Part, Refusal> {
    let braces = letters.next_if_eq(&'{').is_some();
    let mut name = String::new();
    if let Some(sign) = letters.next_if(|next| matches!(next, '&' | '.')) {
        name.push(sign);
    } else if let Some(first) = letters.next_if(|next| next.is_ascii_alphanumeric() || *next == '_') {
        name.push(first);
        // The name of a group has digits only.
        let digits = first.is_ascii_digit();
        let goes_on =
            |next: &char| next.is_ascii_digit() || !digits && (next.is_ascii_alphabetic() || *next == '_');
        while let Some(next) = letters.next_if(goes_on) {
            name.push(next);
        }
    }
    let closed = !braces || letters.next_if_eq(&'}').is_some();
    // Behind a name these begin an element of a list, a method, or a name of another package.
    let element = matches!(letters.peek(), Some('[' | '{')) && !braces;
    let rest: String = letters.clone().take(2).collect();
    let other = element || rest == "->" || rest == "::";
    let part = match name.as_str() {
        "&" => Some(Part::Group(0)),
        "_" => Some(Part::Line),
        "lineno" | "." => Some(Part::Number),
        name => name.parse().ok().filter(|group| *group > 0 && !name.starts_with('0')).map(Part::Group),
    };
    match part {
        Some(part) if closed && !other => Ok(part),
        _ => Err("after `$` the text must name a group, $_ or $lineno: write \\$ for the sign itself".into()),
    }
}
