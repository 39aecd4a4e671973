//! The last words of the machine's kernel: kept for errors, never shown as they are.

#![forbid(unsafe_code)]

use std::collections::VecDeque;

use crate::sys::plain::plain;

/// How much is kept, in bytes.
const KEPT: usize = 64 << 10;
/// How much of it goes into an error.
const LINES: usize = 40;
const LINE: usize = 160;

/// What came from the machine's console, as far as it is kept.
#[derive(Debug, Default)]
pub struct Console {
    bytes: VecDeque<u8>,
}

impl Console {
    /// Takes what came.
    pub fn hear(&mut self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(KEPT)..];
        let surplus = (self.bytes.len() + bytes.len()).saturating_sub(KEPT);
        self.bytes.drain(..surplus);
        self.bytes.extend(bytes);
    }

    /// The last lines, for people; whatever a terminal might obey is spelled out. Empty when nothing came.
    pub fn last_lines(&self) -> String {
        let bytes: Vec<u8> = self.bytes.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(LINES)..];
        last.iter().map(|line| plain(line, LINE)).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_lines_are_told_and_escapes_are_spelled_out() {
        let mut console = Console::default();
        assert_eq!(console.last_lines(), "");
        console.hear(b"first\r\n\x1b[31mred\x07\r\n\xff\xe2\x80\xae\r\n\r\n");
        assert_eq!(console.last_lines(), "first\n\\u{1b}[31mred\\u{7}\n\\u{fffd}\\u{202e}");
        (0..100_000).for_each(|number| console.hear(format!("line {number}\n").as_bytes()));
        let lines = console.last_lines();
        assert_eq!((lines.lines().count(), lines.lines().last()), (LINES, Some("line 99999")));
        assert!(console.bytes.len() <= KEPT);
    }

    proptest! {
        #[test]
        fn nothing_but_plain_signs_comes_out(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..400), 0..9)) {
            let mut console = Console::default();
            pieces.iter().for_each(|piece| console.hear(piece));
            let lines = console.last_lines();
            prop_assert!(lines.chars().all(|sign| sign == '\n' || sign == ' ' || sign.is_ascii_graphic()));
            prop_assert!(lines.len() <= LINES * (LINE * 10 + 1));
        }
    }
}
