//! `tr/list/list/`, also called `y`: letters for letters.

#![forbid(unsafe_code)]

use super::Refusal;

/// What becomes of each byte.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// None: it is not in the list.
    of: Vec<Option<Fate>>,
    /// A row of the same new byte becomes one.
    squeeze: bool,
}

#[derive(Debug, Clone, Copy)]
enum Fate {
    Gone,
    Becomes(u8),
}

impl Table {
    /// From the two lists and the flags `c`, `d` and `s`.
    pub(super) fn new(from: &str, to: &str, flags: &str) -> Result<Self, Refusal> {
        let (mut from, mut to) = (list(from)?, list(to)?);
        let delete = flags.contains('d');
        if flags.contains('c') {
            from = (0..=u8::MAX).filter(|byte| !from.contains(byte)).collect();
        }
        if to.is_empty() && !delete {
            to.clone_from(&from);
        }
        let mut of = vec![None; 256];
        for (at, byte) in from.iter().enumerate() {
            let fate = match to.get(at) {
                Some(new) => Fate::Becomes(*new),
                None if delete => Fate::Gone,
                // The last one stands for all that have none.
                None => to.last().map_or(Fate::Gone, |last| Fate::Becomes(*last)),
            };
            of[usize::from(*byte)].get_or_insert(fate);
        }
        Ok(Self { of, squeeze: flags.contains('s') })
    }

    pub(super) fn apply(&self, line: &[u8]) -> Vec<u8> {
        let mut new = Vec::with_capacity(line.len());
        let mut last = None;
        for byte in line {
            match self.of[usize::from(*byte)] {
                None => {
                    new.push(*byte);
                    last = None;
                }
                Some(Fate::Gone) => {}
                Some(Fate::Becomes(byte)) => {
                    if !self.squeeze || last != Some(byte) {
                        new.push(byte);
                    }
                    last = Some(byte);
                }
            }
        }
        new
    }

    /// Whether it makes line ends.
    pub(super) fn makes_line_ends(&self) -> bool {
        self.of.iter().any(|fate| matches!(fate, Some(Fate::Becomes(b'\n'))))
    }
}

/// The bytes of a list, its ranges written out.
fn list(text: &str) -> Result<Vec<u8>, Refusal> {
    let mut letters = text.chars();
    let mut signs: Vec<(u8, bool)> = Vec::new();
    while let Some(letter) = letters.next() {
        let (letter, plain) = match letter {
            '\\' => (escaped(letters.next())?, false),
            letter => (letter, true),
        };
        let byte = u8::try_from(letter).ok().filter(u8::is_ascii);
        signs.push((byte.ok_or("only ASCII letters can be translated in tr///")?, plain));
    }
    let mut bytes = Vec::new();
    let mut at = 0;
    while let Some((first, _)) = signs.get(at) {
        match (signs.get(at + 1), signs.get(at + 2)) {
            (Some((b'-', true)), Some((last, _))) => {
                if last < first {
                    return Err("a range of tr/// goes backwards".into());
                }
                bytes.extend(*first..=*last);
                at += 3;
                if matches!(signs.get(at), Some((b'-', true))) && signs.len() > at + 1 {
                    return Err("a range of tr/// goes on behind its end".into());
                }
            }
            _ => {
                bytes.push(*first);
                at += 1;
            }
        }
    }
    Ok(bytes)
}

fn escaped(letter: Option<char>) -> Result<char, Refusal> {
    match letter {
        Some('n') => Ok('\n'),
        Some('t') => Ok('\t'),
        Some('r') => Ok('\r'),
        Some(letter) if !letter.is_ascii_alphanumeric() => Ok(letter),
        Some(letter) => Err(format!("`\\{letter}` in tr/// cannot be translated")),
        None => Err("a list of tr/// ends with a backslash".into()),
    }
}
