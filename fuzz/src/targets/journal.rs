//! The journal of a commit. With a first byte of 1 the first line is made right for the body, up to its line end, so
//! that what is behind the digest is reached.

use guestseal::image::journal::{Journal, written_line};
use sha2::{Digest, Sha256};

use crate::targets::check_error;

pub(crate) fn run(data: &[u8]) {
    let Some((which, data)) = data.split_first() else { return };
    let text = if which & 1 == 1 { corrected(data) } else { data.to_vec() };
    let journal = match Journal::parse(&text) {
        Ok(journal) => journal,
        Err(error) => return check_error(&error),
    };
    // What is past `bytes` is cut off and read again as the same.
    let length = usize::try_from(journal.bytes).expect("it is not longer than the text");
    let again = Journal::parse(&text[..length]).unwrap_or_else(|error| panic!("{}", error.chain()));
    assert_eq!(again, journal);
    let mut printed = journal.entry.print().expect("it was read from less");
    if let Some(stamp) = journal.written {
        let line = written_line(stamp);
        assert!(text.ends_with(line.as_bytes()));
        printed.extend(line.bytes());
    }
    let again = Journal::parse(&printed).unwrap_or_else(|error| panic!("{}", error.chain()));
    assert_eq!((again.entry, again.written), (journal.entry, journal.written));
}

fn corrected(data: &[u8]) -> Vec<u8> {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (body, rest) = data.split_at(end);
    let digest: String = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut text = format!("guestseal-journal 1 {digest} {}\n", body.len()).into_bytes();
    text.extend(body);
    text.extend(rest.get(1..).unwrap_or_default());
    text
}
