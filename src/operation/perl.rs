//! The expressions of `--edit`: those forms of perl that people edit files with, on the crate `regex`. As with
//! `perl -pe`, a program runs once for each line, its line end included. What cannot be done the same is refused by
//! name: nothing is translated by half. Forms: perlop(1), perlre(1), virt-edit(1).

#![forbid(unsafe_code)]

mod pattern;
mod text;

use regex::bytes::{Captures, Regex};
use text::Part;

/// What is wrong with an expression, in words that follow it.
pub type Refusal = String;

/// An expression that can be run.
#[derive(Debug, Clone)]
pub struct Program(Vec<Statement>);

#[derive(Debug, Clone)]
struct Statement {
    verb: Verb,
    /// The line is changed only when it matches (or, when false, only when it does not).
    condition: Option<(Regex, bool)>,
}

#[derive(Debug, Clone)]
enum Verb {
    /// `s/pattern/text/`, with `g` or without.
    Substitute { pattern: Regex, with: Vec<Part>, all: bool },
    /// `$_ = "text"`
    Assign(Vec<Part>),
}

impl Program {
    /// Parses statements that are separated by `;`.
    ///
    /// # Errors
    /// What cannot be translated.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let mut rest = skip(text);
        let mut statements = Vec::new();
        while !rest.is_empty() {
            let (statement, after) = statement(rest)?;
            statements.push(statement);
            rest = match after.strip_prefix(';') {
                Some(next) => skip(next),
                None if after.is_empty() => after,
                None => return Err(format!("after a statement a `;` is missing before `{}`", short(after))),
            };
        }
        if statements.is_empty() {
            return Err("it is empty".into());
        }
        Ok(Self(statements))
    }

    /// The new content of a file.
    pub fn run(&self, content: &[u8]) -> Vec<u8> {
        let lines = content.split_inclusive(|byte| *byte == b'\n');
        let mut new = Vec::with_capacity(content.len());
        for line in lines {
            let changed = self.0.iter().fold(line.to_vec(), |line, statement| statement.run(line));
            new.extend(changed);
        }
        new
    }
}

impl Statement {
    fn run(&self, line: Vec<u8>) -> Vec<u8> {
        if self.condition.as_ref().is_some_and(|(pattern, wanted)| pattern.is_match(&line) != *wanted) {
            return line;
        }
        match &self.verb {
            Verb::Substitute { pattern, with, all } => {
                let filled = |found: &Captures<'_>| {
                    text::fill(with, |group| found.get(group).map_or(&b""[..], |part| part.as_bytes()))
                };
                pattern.replacen(&line, usize::from(!all), filled).into_owned()
            }
            Verb::Assign(parts) => text::fill(parts, |_| &line),
        }
    }
}

fn statement(text: &str) -> Result<(Statement, &str), Refusal> {
    let (verb, rest) = if let Some(rest) = text.strip_prefix("$_") {
        assignment(skip(rest))?
    } else if let Some(rest) = text.strip_prefix('s').filter(|rest| begins_quote(rest)) {
        substitution(rest)?
    } else {
        let name: String = text.chars().take_while(|letter| letter.is_alphanumeric()).collect();
        let what = if name.is_empty() { short(text) } else { name };
        return Err(format!(
            "`{what}` is nothing that can be translated: statements are s/PATTERN/TEXT/ and $_ = \"TEXT\", each with \
             `if /PATTERN/` or `unless /PATTERN/` behind it"
        ));
    };
    let rest = skip(rest);
    let (wanted, after) = match (rest.strip_prefix("if"), rest.strip_prefix("unless")) {
        (Some(after), _) => (true, after),
        (_, Some(after)) => (false, after),
        _ => return Ok((Statement { verb, condition: None }, rest)),
    };
    let (pattern, rest) = condition(skip(after))?;
    Ok((Statement { verb, condition: Some((pattern, wanted)) }, skip(rest)))
}

fn begins_quote(rest: &str) -> bool {
    rest.starts_with(|letter: char| letter.is_ascii_punctuation() && !matches!(letter, '_' | ';' | '\\'))
}

fn substitution(text: &str) -> Result<(Verb, &str), Refusal> {
    let (pattern, rest) = quoted(text)?;
    // With brackets the second part has its own; otherwise one delimiter ends the first and begins the second.
    let open = text.chars().next().unwrap_or_default();
    let (with, rest) = if closing(open) == open { until(rest, open)? } else { quoted(skip(rest))? };
    let (flags, rest) = flags(rest, "gixm")?;
    let pattern = pattern::compile(pattern, &flags)?;
    let with = text::parse(with)?;
    if let Some(group) = text::groups(&with).find(|group| *group >= pattern.captures_len()) {
        return Err(format!("the pattern has no group {group}"));
    }
    Ok((Verb::Substitute { pattern, with, all: flags.contains('g') }, rest))
}

fn assignment(text: &str) -> Result<(Verb, &str), Refusal> {
    let (append, rest) = match (text.strip_prefix('='), text.strip_prefix(".=")) {
        (Some(rest), _) if !rest.starts_with(['=', '~']) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return Err("behind `$_` only `=` and `.=` with a text can be translated".into()),
    };
    let rest = skip(rest);
    if !rest.starts_with('"') {
        return Err("what `$_` gets must be a text in double quotes".into());
    }
    let (text, rest) = quoted(rest)?;
    let mut parts = text::parse(&text.replace("$_", "$&"))?;
    if text::groups(&parts).any(|group| group > 0) {
        return Err("a group such as `$1` means nothing outside of s///".into());
    }
    if append {
        parts.insert(0, Part::Group(0));
    }
    Ok((Verb::Assign(parts), rest))
}

fn condition(text: &str) -> Result<(Regex, &str), Refusal> {
    let (bracket, text) = match text.strip_prefix('(') {
        Some(inner) => (true, skip(inner)),
        None => (false, text),
    };
    let other = text.strip_prefix('m').filter(|rest| begins_quote(rest));
    let Some(text) = other.or(text.starts_with('/').then_some(text)) else {
        return Err("behind `if` and `unless` only a pattern such as /^#/ can be translated".into());
    };
    let (pattern, rest) = quoted(text)?;
    let (flags, rest) = flags(rest, "ixm")?;
    let pattern = pattern::compile(pattern, &flags)?;
    match skip(rest).strip_prefix(')') {
        Some(rest) if bracket => Ok((pattern, rest)),
        None if !bracket => Ok((pattern, rest)),
        _ => Err("the brackets behind `if` or `unless` do not match".into()),
    }
}

/// What stands between the delimiter at the beginning and its other end, and the rest.
fn quoted(text: &str) -> Result<(&str, &str), Refusal> {
    match text.chars().next() {
        Some('\'') => {
            Err("the delimiter ' turns variables off, which cannot be translated: use another".into())
        }
        Some(open) => until(&text[open.len_utf8()..], open),
        None => Err("it ends where a pattern or text is missing".into()),
    }
}

fn until(text: &str, open: char) -> Result<(&str, &str), Refusal> {
    let close = closing(open);
    let (mut depth, mut escaped) = (0, false);
    for (at, letter) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if letter == '\\' {
            escaped = true;
        } else if letter == close && depth == 0 {
            return Ok((&text[..at], &text[at + close.len_utf8()..]));
        } else if letter == close {
            depth -= 1;
        } else if letter == open {
            depth += 1;
        }
    }
    Err(format!("the `{close}` that ends `{}` is missing", short(text)))
}

fn closing(open: char) -> char {
    match open {
        '{' => '}',
        '[' => ']',
        '(' => ')',
        '<' => '>',
        other => other,
    }
}

fn flags<'a>(text: &'a str, known: &str) -> Result<(String, &'a str), Refusal> {
    let end = text.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(text.len());
    let (flags, rest) = text.split_at(end);
    match flags.chars().find(|flag| !known.contains(*flag)) {
        Some(flag) => Err(format!("the flag `{flag}` cannot be translated")),
        None => Ok((flags.to_owned(), rest)),
    }
}

fn skip(text: &str) -> &str {
    text.trim_start()
}

/// The beginning of a text, for messages.
fn short(text: &str) -> String {
    text.chars().take(20).collect()
}

#[cfg(test)]
#[path = "perl/tests.rs"]
mod tests;
