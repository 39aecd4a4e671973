//! What stands behind `if` and `unless`: patterns, line numbers, and what joins them.

#![forbid(unsafe_code)]

use super::parse::{quoted, short, skip};
use super::pattern::{self, Pattern};
use super::{Refusal, State};

#[derive(Debug, Clone)]
pub(super) enum Condition {
    /// `/pattern/`
    Matches(Pattern),
    /// `$lineno == 3`: which orders of the line's number and this one it holds for.
    Number(&'static [std::cmp::Ordering], usize),
    Not(Box<Condition>),
    All(Vec<Condition>),
    Any(Vec<Condition>),
}

/// What joins conditions, the loosest first; every second kind means "or".
const JOINTS: [&str; 4] = ["or", "and", "||", "&&"];
/// Conditions in conditions: more stand for nothing but malice.
const DEEPEST: usize = 32;

impl Condition {
    pub(super) fn holds(&self, state: &mut State) -> bool {
        match self {
            Self::Matches(pattern) => pattern.matches(state),
            Self::Number(orders, number) => orders.contains(&state.number.cmp(number)),
            Self::Not(inner) => !inner.holds(state),
            Self::All(parts) => parts.iter().all(|part| part.holds(state)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(state)),
        }
    }

    /// Whether it asks for the end of a line.
    pub(super) fn has_line_end(&self) -> bool {
        match self {
            Self::Matches(pattern) => pattern.has_line_end(),
            Self::Number(..) => false,
            Self::Not(inner) => inner.has_line_end(),
            Self::All(parts) | Self::Any(parts) => parts.iter().any(Self::has_line_end),
        }
    }
}

/// Reads a condition, and returns what is behind it.
pub(super) fn parse(text: &str) -> Result<(Condition, &str), Refusal> {
    joined(text, 0, 0)
}

fn joined(text: &str, level: usize, depth: usize) -> Result<(Condition, &str), Refusal> {
    let Some(joint) = JOINTS.get(level) else { return single(text, depth) };
    let (first, mut rest) = joined(text, level + 1, depth)?;
    let mut parts = vec![first];
    while let Some(behind) = strip_word(skip(rest), joint) {
        let (next, after) = joined(skip(behind), level + 1, depth)?;
        parts.push(next);
        rest = after;
    }
    let one = if parts.len() == 1 { parts.pop() } else { None };
    let all = if level.is_multiple_of(2) { Condition::Any(parts) } else { Condition::All(parts) };
    Ok((one.unwrap_or(all), rest))
}

/// What is behind a word, or a sign; a longer word is another.
pub(super) fn strip_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(word)?;
    let letters = word.ends_with(|letter: char| letter.is_ascii_alphanumeric());
    let goes_on = rest.starts_with(|letter: char| letter.is_ascii_alphanumeric() || letter == '_');
    (!letters || !goes_on).then_some(rest)
}

fn single(text: &str, depth: usize) -> Result<(Condition, &str), Refusal> {
    if depth > DEEPEST {
        return Err("its conditions nest too deeply".into());
    }
    if let Some(inner) = text.strip_prefix('(') {
        let (condition, rest) = joined(skip(inner), 0, depth + 1)?;
        let closed = skip(rest).strip_prefix(')');
        return closed
            .map(|rest| (condition, rest))
            .ok_or_else(|| "the brackets behind `if` or `unless` do not match".into());
    }
    if let Some(inner) = text.strip_prefix('!') {
        let (condition, rest) = single(skip(inner), depth + 1)?;
        return Ok((Condition::Not(Box::new(condition)), rest));
    }
    if let Some(rest) = strip_word(text, "$lineno").or_else(|| text.strip_prefix("$.")) {
        return number(skip(rest));
    }
    if let Some(rest) = strip_word(text, "$_") {
        let rest = skip(rest);
        if let Some(rest) = rest.strip_prefix("=~") {
            return matches(skip(rest));
        }
        if let Some(rest) = rest.strip_prefix("!~") {
            let (condition, rest) = matches(skip(rest))?;
            return Ok((Condition::Not(Box::new(condition)), rest));
        }
    }
    matches(text)
}

fn matches(text: &str) -> Result<(Condition, &str), Refusal> {
    let other = text.strip_prefix('m').filter(|rest| super::parse::begins_quote(rest));
    let Some(text) = other.or(text.starts_with('/').then_some(text)) else {
        return Err(format!(
            "`{}` is no condition that can be translated: behind `if` and `unless` only a pattern such as /^#/ or a \
             line's number such as $lineno == 1",
            short(text)
        ));
    };
    let (pattern, rest) = quoted(text)?;
    let (flags, rest) = super::parse::flags(rest, "ixms")?;
    Ok((Condition::Matches(pattern::compile(pattern, &flags)?), rest))
}

fn number(text: &str) -> Result<(Condition, &str), Refusal> {
    use std::cmp::Ordering::{Equal, Greater, Less};
    const ORDERS: [(&str, &[std::cmp::Ordering]); 6] = [
        ("==", &[Equal]),
        ("!=", &[Less, Greater]),
        ("<=", &[Less, Equal]),
        (">=", &[Greater, Equal]),
        ("<", &[Less]),
        (">", &[Greater]),
    ];
    let known = ORDERS.iter().find_map(|(sign, orders)| Some((orders, text.strip_prefix(sign)?)));
    let Some((orders, rest)) = known else {
        return Err(format!("a line's number can be compared by == != < > <= >=, not by `{}`", short(text)));
    };
    let rest = skip(rest);
    let end = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    let number = rest[..end].parse().map_err(|_| "a line's number can be compared with a number only")?;
    // 010 is eight in perl, and 1.5 and 1_000 are numbers too.
    if rest.starts_with('0') && end > 1 || rest[end..].starts_with(['.', '_']) {
        return Err(format!("the number `{}` cannot be translated", short(rest)));
    }
    Ok((Condition::Number(orders, number), &rest[end..]))
}
