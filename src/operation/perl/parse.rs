//! Reads programs: statements, their verbs, and what stands between delimiters.

#![forbid(unsafe_code)]

use super::condition::{self, Condition, strip_word};
use super::text::{self, Part};
use super::transliterate::Table;
use super::{Refusal, Statement, Verb, pattern};

/// Blocks in blocks: more stand for nothing but malice.
const DEEPEST: usize = 16;
const STATEMENTS: &str = "statements are s/PATTERN/TEXT/, tr/LIST/LIST/, $_ = \"TEXT\", print \"TEXT\", next and last, each with \
                          `if /PATTERN/` or `unless /PATTERN/` behind it, and if (…) {…} else {…}";

pub(super) fn program(text: &str) -> Result<Vec<Statement>, Refusal> {
    let mut reader = Reader::default();
    let (statements, rest) = reader.statements(text, 0)?;
    if !rest.is_empty() {
        return Err(format!("`{}` ends a block that was not begun", short(rest)));
    }
    if statements.is_empty() {
        return Err("it is empty".into());
    }
    Ok(statements)
}

/// What earlier statements may have made of the line.
#[derive(Default)]
struct Reader {
    /// It may hold several, and then `$` does not mean what it means in perl.
    several_lines: bool,
}

impl Reader {
    /// Statements up to the end, or to the `}` of a block.
    fn statements<'a>(&mut self, text: &'a str, depth: usize) -> Result<(Vec<Statement>, &'a str), Refusal> {
        if depth > DEEPEST {
            return Err("its blocks nest too deeply".into());
        }
        let mut rest = skip(text);
        let mut statements = Vec::new();
        while !rest.is_empty() && !rest.starts_with('}') {
            if let Some(next) = rest.strip_prefix(';') {
                rest = skip(next);
                continue;
            }
            let (statement, after) = self.statement(rest, depth)?;
            let block = matches!(statement, Statement::Block { .. });
            statements.push(statement);
            rest = skip(after);
            if !block && !rest.is_empty() && !rest.starts_with([';', '}']) {
                return Err(format!("after a statement a `;` is missing before `{}`", short(rest)));
            }
        }
        Ok((statements, rest))
    }

    fn statement<'a>(&mut self, text: &'a str, depth: usize) -> Result<(Statement, &'a str), Refusal> {
        for (word, wanted) in [("if", true), ("unless", false)] {
            if let Some(rest) = strip_word(text, word) {
                return self.block(skip(rest), wanted, depth);
            }
        }
        let (verb, rest) = verb(text)?;
        let rest = skip(rest);
        let behind = [("if", true), ("unless", false)]
            .into_iter()
            .find_map(|(word, wanted)| Some((strip_word(rest, word)?, wanted)));
        let (when, rest) = match behind {
            Some((after, wanted)) => {
                let (condition, rest) = condition::parse(skip(after))?;
                (Some(turned(condition, wanted)), rest)
            }
            None => (None, rest),
        };
        self.check_line_ends(&verb, when.as_ref())?;
        Ok((Statement::Simple(verb, when), rest))
    }

    /// `(…) {…}`, and what may follow it.
    fn block<'a>(
        &mut self,
        text: &'a str,
        wanted: bool,
        depth: usize,
    ) -> Result<(Statement, &'a str), Refusal> {
        if !text.starts_with('(') {
            return Err("the condition in front of a block must be in brackets".into());
        }
        let (condition, rest) = condition::parse(text)?;
        let when = turned(condition, wanted);
        self.check_condition(&when)?;
        let (then, rest) = self.body(skip(rest), depth)?;
        let rest = skip(rest);
        let (otherwise, rest) = if let Some(rest) = strip_word(rest, "elsif") {
            let (inner, rest) = self.block(skip(rest), true, depth + 1)?;
            (vec![inner], rest)
        } else if let Some(rest) = strip_word(rest, "else") {
            self.body(skip(rest), depth)?
        } else {
            (Vec::new(), rest)
        };
        Ok((Statement::Block { when, then, otherwise }, rest))
    }

    fn body<'a>(&mut self, text: &'a str, depth: usize) -> Result<(Vec<Statement>, &'a str), Refusal> {
        let inner = text.strip_prefix('{').ok_or("behind the condition of a block a `{` is missing")?;
        let (statements, rest) = self.statements(inner, depth + 1)?;
        let rest = rest.strip_prefix('}').ok_or("the `}` that ends a block is missing")?;
        Ok((statements, rest))
    }

    /// In perl `$` is the end of all that is in `$_`, here that of each line in it.
    fn check_line_ends(&mut self, verb: &Verb, when: Option<&Condition>) -> Result<(), Refusal> {
        when.map_or(Ok(()), |when| self.check_condition(when))?;
        match verb {
            Verb::Substitute { pattern, with, .. } => {
                if self.several_lines && pattern.has_line_end() {
                    return Err(several_lines());
                }
                self.several_lines |= text::has_line_end(with) || with.contains(&Part::Line);
            }
            Verb::Assign(parts) => {
                self.several_lines = (self.several_lines && (when.is_some() || parts.contains(&Part::Line)))
                    || text::has_inner_line_end(parts);
            }
            Verb::Transliterate(table) => self.several_lines |= table.makes_line_ends(),
            Verb::Print(_) | Verb::Next | Verb::Last => {}
        }
        Ok(())
    }

    fn check_condition(&self, condition: &Condition) -> Result<(), Refusal> {
        if self.several_lines && condition.has_line_end() { Err(several_lines()) } else { Ok(()) }
    }
}

fn several_lines() -> Refusal {
    "a `$` in a pattern cannot be translated where an earlier text has a line end in it".into()
}

fn turned(condition: Condition, wanted: bool) -> Condition {
    if wanted { condition } else { Condition::Not(Box::new(condition)) }
}

fn verb(text: &str) -> Result<(Verb, &str), Refusal> {
    if let Some(rest) = strip_word(text, "$_") {
        return assignment(skip(rest));
    }
    for name in ["tr", "y"] {
        if let Some(rest) = text.strip_prefix(name).filter(|rest| begins_quote(rest)) {
            return transliteration(rest);
        }
    }
    if let Some(rest) = text.strip_prefix('s').filter(|rest| begins_quote(rest)) {
        return substitution(rest);
    }
    if let Some(rest) = strip_word(text, "next") {
        return Ok((Verb::Next, rest));
    }
    if let Some(rest) = strip_word(text, "last") {
        return Ok((Verb::Last, rest));
    }
    if let Some(rest) = strip_word(text, "undef") {
        let rest = strip_word(skip(rest), "$_").ok_or("only `undef $_` can be translated")?;
        return Ok((Verb::Assign(Vec::new()), rest));
    }
    if let Some(rest) = strip_word(text, "print") {
        let rest = skip(rest);
        let bare = rest.is_empty() || rest.starts_with([';', '}']);
        if bare || strip_word(rest, "if").or_else(|| strip_word(rest, "unless")).is_some() {
            return Ok((Verb::Print(vec![Part::Line]), rest));
        }
        let (parts, rest) = expression(rest)?;
        return Ok((Verb::Print(parts), rest));
    }
    let name: String = text.chars().take_while(|letter| letter.is_alphanumeric()).collect();
    let what = if name.is_empty() { short(text) } else { name };
    Err(format!("`{what}` is nothing that can be translated: {STATEMENTS}"))
}

/// Whether a delimiter follows. `s = 1` and `y => 2` are no s/// and y///.
pub(super) fn begins_quote(rest: &str) -> bool {
    rest.starts_with(|letter: char| {
        letter.is_ascii_punctuation() && !matches!(letter, '_' | ';' | '\\' | '=')
    })
}

/// Both halves of s/// and tr///. With brackets the second has its own; otherwise one delimiter ends the first and
/// begins the second.
fn halves(text: &str) -> Result<(&str, &str, &str), Refusal> {
    let (first, rest) = quoted(text)?;
    let open = text.chars().next().unwrap_or_default();
    let (second, rest) = if closing(open) == open { until(rest, open)? } else { quoted(skip(rest))? };
    Ok((first, second, rest))
}

fn substitution(text: &str) -> Result<(Verb, &str), Refusal> {
    let (pattern, with, rest) = halves(text)?;
    let (flags, rest) = flags(rest, "gixms")?;
    let pattern = pattern::compile(pattern, &flags)?;
    let with = text::parse(with, true)?;
    if let Some(group) = text::groups(&with).find(|group| *group >= pattern.groups()) {
        return Err(format!("the pattern has no group {group}"));
    }
    let all = flags.contains('g');
    if all && pattern.may_be_empty_by_choice() {
        return Err("with `g`, a pattern that may match nothing by choice cannot be translated".into());
    }
    Ok((Verb::Substitute { pattern, with, all }, rest))
}

fn transliteration(text: &str) -> Result<(Verb, &str), Refusal> {
    let (from, to, rest) = halves(text)?;
    let (flags, rest) = flags(rest, "cds")?;
    Ok((Verb::Transliterate(Table::new(from, to, &flags)?), rest))
}

fn assignment(text: &str) -> Result<(Verb, &str), Refusal> {
    let (append, rest) = match (text.strip_prefix('='), text.strip_prefix(".=")) {
        (Some(rest), _) if !rest.starts_with(['=', '~']) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return Err("behind `$_` only `=` and `.=` with a text can be translated".into()),
    };
    let rest = skip(rest);
    if let Some(rest) = strip_word(rest, "undef").filter(|_| !append) {
        return Ok((Verb::Assign(Vec::new()), rest));
    }
    let (mut parts, rest) = expression(rest)?;
    if append {
        parts.insert(0, Part::Line);
    }
    Ok((Verb::Assign(parts), rest))
}

/// Texts and variables, joined by `.`.
fn expression(text: &str) -> Result<(Vec<Part>, &str), Refusal> {
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (more, after) = if rest.starts_with('"') {
            let (inner, after) = quoted(rest)?;
            (text::parse(inner, false)?, after)
        } else if let Some(inner) = rest.strip_prefix('\'') {
            let (inner, after) = until(inner, '\'')?;
            (vec![Part::Text(inner.replace("\\\\", "\\").replace("\\'", "'").into_bytes())], after)
        } else if let Some(name) = rest.strip_prefix('$') {
            let mut letters = name.chars().peekable();
            let part = text::variable(&mut letters)?;
            (vec![part], &name[name.len() - letters.collect::<String>().len()..])
        } else {
            return Err("a text must be in double quotes".into());
        };
        // What \U began ends with its text.
        let open = more.iter().any(|part| matches!(part, Part::Case(_)));
        let goes_on = skip(after).strip_prefix('.').filter(|rest| !rest.starts_with('.'));
        if open && goes_on.is_some() {
            return Err(
                "a text with \\U, \\L, \\u or \\l that is joined to another cannot be translated".into()
            );
        }
        parts.extend(more);
        match goes_on {
            Some(next) => rest = skip(next),
            None => return Ok((parts, after)),
        }
    }
}

/// What stands between the delimiter at the beginning and its other end, and the rest.
pub(super) fn quoted(text: &str) -> Result<(&str, &str), Refusal> {
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

pub(super) fn flags<'a>(text: &'a str, known: &str) -> Result<(String, &'a str), Refusal> {
    let end = text.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(text.len());
    let (flags, rest) = text.split_at(end);
    match flags.chars().find(|flag| !known.contains(*flag)) {
        Some(flag) => Err(format!("the flag `{flag}` cannot be translated")),
        None => Ok((flags.to_owned(), rest)),
    }
}

pub(super) fn skip(text: &str) -> &str {
    text.trim_start()
}

/// The beginning of a text, for messages.
pub(super) fn short(text: &str) -> String {
    text.chars().take(20).collect()
}
