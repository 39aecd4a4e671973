//! Patterns of perl as those of the crate `regex`.

#![forbid(unsafe_code)]

use std::iter::Peekable;
use std::str::Chars;

use regex::bytes::{Regex, RegexBuilder};

use super::Refusal;

/// The end of a line as perl's `$` means it: before the line end or behind it.
const LINE_END: &str = "(?m:$)";

/// Compiles a pattern that has these flags of perl.
pub(super) fn compile(pattern: &str, flags: &str) -> Result<Regex, Refusal> {
    if pattern.is_empty() {
        return Err("an empty pattern means the last one in perl, which cannot be translated".into());
    }
    let translated = translate(pattern)?;
    // Bytes, not letters, as perl takes a file.
    let mut builder = RegexBuilder::new(&translated);
    builder.unicode(false).case_insensitive(flags.contains('i')).ignore_whitespace(flags.contains('x'));
    builder.build().map_err(|error| {
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("the pattern `{pattern}` cannot be translated: {last}")
    })
}

fn translate(pattern: &str) -> Result<String, Refusal> {
    let mut new = String::with_capacity(pattern.len() + 16);
    let mut letters = pattern.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => escape(&mut letters, false, &mut new)?,
            '[' => class(&mut letters, &mut new)?,
            '^' => new.push_str(r"\A"),
            '$' => {
                refuse_variable('$', &mut letters)?;
                new.push_str(LINE_END);
            }
            '@' => {
                refuse_variable('@', &mut letters)?;
                new.push('@');
            }
            '(' => group(&mut letters, &mut new)?,
            '*' | '+' | '?' | '}' if letters.peek() == Some(&'+') => {
                return Err(format!("the possessive `{letter}+` cannot be translated"));
            }
            other => new.push(other),
        }
    }
    Ok(new)
}

/// `$name` and `@name` are variables of perl.
fn refuse_variable(sign: char, letters: &mut Peekable<Chars<'_>>) -> Result<(), Refusal> {
    match letters.peek() {
        Some(next) if next.is_ascii_alphanumeric() || matches!(next, '_' | '{') => {
            Err(format!("`{sign}{next}` begins a variable of perl: write \\{sign} for the sign itself"))
        }
        _ => Ok(()),
    }
}

fn escape(letters: &mut Peekable<Chars<'_>>, in_class: bool, new: &mut String) -> Result<(), Refusal> {
    let Some(letter) = letters.next() else { return Err("a pattern ends with a backslash".into()) };
    match letter {
        'b' if in_class => new.push_str(r"\x08"),
        'd' | 'D' | 'w' | 'W' | 's' | 'S' | 't' | 'n' | 'r' | 'f' | 'x' => new.extend(['\\', letter]),
        'b' | 'B' | 'A' | 'z' if !in_class => new.extend(['\\', letter]),
        'Z' if !in_class => new.push_str(LINE_END),
        'h' if !in_class => new.push_str(r"[ \t]"),
        'h' => new.push_str(r" \t"),
        'e' => new.push_str(r"\x1B"),
        '1'..='9' => return Err(format!("a reference back such as `\\{letter}` cannot be translated")),
        // These would be words' beginnings and ends in the other language.
        '<' | '>' => new.push(letter),
        letter if letter.is_ascii_punctuation() => new.extend(['\\', letter]),
        ' ' => new.push_str(r"\x20"),
        letter => return Err(format!("`\\{letter}` cannot be translated")),
    }
    Ok(())
}

fn class(letters: &mut Peekable<Chars<'_>>, new: &mut String) -> Result<(), Refusal> {
    new.push('[');
    if letters.next_if_eq(&'^').is_some() {
        new.push('^');
    }
    if letters.next_if_eq(&']').is_some() {
        new.push_str(r"\]");
    }
    while let Some(letter) = letters.next() {
        match letter {
            ']' => {
                new.push(']');
                return Ok(());
            }
            '\\' => escape(letters, true, new)?,
            '[' if letters.peek() == Some(&':') => {
                new.push('[');
                // Up to its end, `:]`.
                for inner in letters.by_ref() {
                    new.push(inner);
                    if inner == ']' {
                        break;
                    }
                }
            }
            '$' | '@' => {
                refuse_variable(letter, letters)?;
                new.push(letter);
            }
            // Signs of nested classes in the other language.
            '[' | '&' | '~' => new.extend(['\\', letter]),
            other => new.push(other),
        }
    }
    Err("a `[` of the pattern has no `]`".into())
}

fn group(letters: &mut Peekable<Chars<'_>>, new: &mut String) -> Result<(), Refusal> {
    new.push('(');
    if letters.next_if_eq(&'?').is_none() {
        return Ok(());
    }
    let rest: String = letters.clone().take(2).collect();
    let known = rest.starts_with(':')
        || rest.starts_with(['i', 'x', '-'])
        || (rest.starts_with('<') && rest[1..].starts_with(|letter: char| letter.is_ascii_alphabetic()));
    if !known {
        return Err(format!("`(?{rest}` cannot be translated: it looks around, or is a rule of perl's own"));
    }
    new.push('?');
    Ok(())
}
