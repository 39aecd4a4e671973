//! Patterns of perl as those of the crate `regex`.

#![forbid(unsafe_code)]

use std::iter::Peekable;
use std::str::Chars;

use regex::bytes::{Captures, Regex, RegexBuilder};

use super::text::{self, Part};
use super::{LONGEST, Refusal, State};

/// The end of a line as perl's `$` means it: before the line end or behind it.
const LINE_END: &str = "(?m:$)";

/// A pattern of perl.
#[derive(Debug, Clone)]
pub(super) struct Pattern(Regex);

impl Pattern {
    /// Whether it matches the line; its groups are kept.
    pub(super) fn matches(&self, state: &mut State) -> bool {
        let Some(found) = self.0.captures(&state.line) else { return false };
        let groups = groups_of(&found);
        state.groups = groups;
        true
    }

    /// `s///`. As perl does it, an empty match may follow another match at once, but not another empty one.
    pub(super) fn substitute(&self, with: &[Part], all: bool, state: &mut State) {
        let old = std::mem::take(&mut state.line);
        let (mut new, mut kept, mut from) = (Vec::with_capacity(old.len()), 0, 0);
        while let Some(found) = self.0.captures_at(&old, from) {
            let Some(whole) = found.get(0) else { break };
            state.groups = groups_of(&found);
            new.extend(&old[kept..whole.start()]);
            // `$_` in the text is the line as it was.
            state.line.clone_from(&old);
            new.extend(text::fill(with, state));
            kept = whole.end();
            from = if whole.is_empty() { whole.end() + 1 } else { whole.end() };
            if !all || from > old.len() || new.len() > LONGEST {
                break;
            }
        }
        new.extend(&old[kept..]);
        state.line = new;
    }

    pub(super) fn groups(&self) -> usize {
        self.0.captures_len()
    }

    pub(super) fn has_line_end(&self) -> bool {
        self.0.as_str().contains(LINE_END)
    }

    /// Whether perl would look for a longer match where this one matches nothing.
    pub(super) fn may_be_empty_by_choice(&self) -> bool {
        let text = self.0.as_str();
        self.0.is_match(b"")
            && (text.contains('|') || ["*?", "+?", "??", "}?"].iter().any(|lazy| text.contains(lazy)))
    }
}

fn groups_of(found: &Captures<'_>) -> Vec<Vec<u8>> {
    found.iter().map(|group| group.map_or_else(Vec::new, |group| group.as_bytes().to_vec())).collect()
}

/// Compiles a pattern that has these flags of perl.
pub(super) fn compile(pattern: &str, flags: &str) -> Result<Pattern, Refusal> {
    if pattern.is_empty() {
        return Err("an empty pattern means the last one in perl, which cannot be translated".into());
    }
    let translated = translate(pattern)?;
    // Bytes, not letters, as perl takes a file.
    let mut builder = RegexBuilder::new(&translated);
    builder.unicode(false).case_insensitive(flags.contains('i')).ignore_whitespace(flags.contains('x'));
    builder.dot_matches_new_line(flags.contains('s'));
    builder.build().map(Pattern).map_err(|error| {
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

/// `$name` and `@name` are variables of perl, and `$` with most signs is one too: only before these it is the line's end.
fn refuse_variable(sign: char, letters: &mut Peekable<Chars<'_>>) -> Result<(), Refusal> {
    let Some(next) = letters.peek() else { return Ok(()) };
    let variable = match sign {
        '$' => !"()| \t\r\n".contains(*next),
        _ => text::begins_list(*next),
    };
    if variable {
        return Err(format!("`{sign}{next}` begins a variable of perl: write \\{sign} for the sign itself"));
    }
    Ok(())
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
