//! Text that somebody else wrote, made fit to be shown: nothing is left in it that a terminal obeys.

#![forbid(unsafe_code)]

/// The first `limit` signs of a line; whatever is no printable ASCII is spelled out.
pub fn plain(line: &str, limit: usize) -> String {
    let mut text = String::new();
    for sign in line.chars().take(limit) {
        if sign == ' ' || sign.is_ascii_graphic() {
            text.push(sign);
        } else {
            text.extend(sign.escape_default());
        }
    }
    text
}
