//! The expressions of `--edit`: those forms of perl that people edit files with, on the crate `regex`. As virt-edit has
//! perl do it, a program runs once for each line, its line end included, and then the line is written; what is printed
//! goes in front of it, and after `next` it is not written. What cannot be done the same is refused by name: nothing is
//! translated by half. Forms: perlop(1), perlre(1), perlsyn(1), virt-edit(1).

#![forbid(unsafe_code)]

mod condition;
mod parse;
mod pattern;
mod text;
mod transliterate;

use condition::Condition;
use pattern::Pattern;
use text::Part;
use transliterate::Table;

/// The most that is made of a file, in bytes: as much as is read of one.
const LONGEST: usize = 16 << 20;

/// What is wrong with an expression, in words that follow it.
pub type Refusal = String;

/// An expression that can be run.
#[derive(Debug, Clone)]
pub struct Program(Vec<Statement>);

#[derive(Debug, Clone)]
enum Statement {
    /// A verb, done when the condition behind it holds.
    Simple(Verb, Option<Condition>),
    /// `if (…) {…} else {…}`
    Block { when: Condition, then: Vec<Self>, otherwise: Vec<Self> },
}

#[derive(Debug, Clone)]
enum Verb {
    /// `s/pattern/text/`, with `g` or without.
    Substitute { pattern: Pattern, with: Vec<Part>, all: bool },
    /// `$_ = "text"`
    Assign(Vec<Part>),
    /// `tr/list/list/`
    Transliterate(Table),
    /// `print "text"`
    Print(Vec<Part>),
    /// The line is not written.
    Next,
    /// Neither is what follows it.
    Last,
}

/// Where a program is.
#[derive(Debug)]
struct State {
    /// `$_`
    line: Vec<u8>,
    /// `$lineno` and `$.`, from 1.
    number: usize,
    /// What the groups of the last pattern that matched hold; the first is all of it.
    groups: Vec<Vec<u8>>,
    printed: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Next,
    Last,
    TooLong,
}

impl Program {
    /// Parses statements that are separated by `;`.
    ///
    /// # Errors
    /// What cannot be translated.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        parse::program(text).map(Self).map_err(|what| visible(&what))
    }

    /// The new content of a file.
    ///
    /// # Errors
    /// When it gets too long.
    pub fn run(&self, content: &[u8]) -> Result<Vec<u8>, Refusal> {
        let mut state = State {
            line: Vec::new(),
            number: 0,
            groups: Vec::new(),
            printed: Vec::with_capacity(content.len()),
        };
        for line in content.split_inclusive(|byte| *byte == b'\n') {
            state.line = line.to_vec();
            state.number += 1;
            state.groups.clear();
            match run(&self.0, &mut state) {
                Flow::On => state.printed.append(&mut state.line),
                Flow::Next => {}
                Flow::Last => break,
                Flow::TooLong => return Err(format!("it makes more than {LONGEST} bytes of the file")),
            }
        }
        Ok(state.printed)
    }
}

fn run(statements: &[Statement], state: &mut State) -> Flow {
    for statement in statements {
        let flow = match statement {
            Statement::Simple(verb, when) => {
                if when.as_ref().is_none_or(|when| when.holds(state)) {
                    verb.run(state)
                } else {
                    Flow::On
                }
            }
            Statement::Block { when, then, otherwise } => {
                // What a pattern within a block matched is forgotten at its end.
                let outer = state.groups.clone();
                let chosen = if when.holds(state) { then } else { otherwise };
                let flow = run(chosen, state);
                state.groups = outer;
                flow
            }
        };
        if flow != Flow::On {
            return flow;
        }
    }
    Flow::On
}

impl Verb {
    fn run(&self, state: &mut State) -> Flow {
        match self {
            Self::Substitute { pattern, with, all } => pattern.substitute(with, *all, state),
            Self::Assign(parts) => state.line = text::fill(parts, state),
            Self::Transliterate(table) => state.line = table.apply(&state.line),
            Self::Print(parts) => {
                let text = text::fill(parts, state);
                state.printed.extend(text);
            }
            Self::Next => return Flow::Next,
            Self::Last => return Flow::Last,
        }
        if state.line.len() + state.printed.len() > LONGEST { Flow::TooLong } else { Flow::On }
    }
}

#[cfg(test)]
#[path = "perl/tests.rs"]
mod tests;
/// What is quoted of an expression may have control characters, which a terminal obeys.
fn visible(what: &str) -> String {
    let shown = |letter: char| match letter.is_control() {
        true => letter.escape_default().to_string(),
        false => letter.to_string(),
    };
    what.chars().map(shown).collect()
}
