//! What an NBD server and the kernel's netlink may say. The first byte says who speaks.

use std::io::{self, Read, Write};

use guestseal::attach::nbd_protocol::negotiate;
use guestseal::sys::netlink::{attributes, parse_datagram};

pub(crate) fn run(data: &[u8]) {
    match data.split_first() {
        Some((which, data)) if which & 1 == 0 => server(data),
        Some((_, data)) => kernel(data, 0),
        None => {}
    }
}

/// A server that says this, whatever it hears.
struct Speech<'a> {
    said: &'a [u8],
    heard: usize,
}

impl Read for Speech<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.said.read(buffer)
    }
}

impl Write for Speech<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.heard += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn server(said: &[u8]) {
    let mut speech = Speech { said, heard: 0 };
    match negotiate(&mut speech, "disk") {
        Ok(export) => {
            assert!(export.size_bytes <= i64::MAX as u64);
            let sizes = export.block_sizes;
            assert!(
                sizes.is_none_or(|sizes| sizes.minimum.is_power_of_two() && sizes.maximum >= sizes.minimum)
            );
        }
        Err(error) => {
            let shown = error.to_string();
            assert!(shown.len() <= 2000 && !shown.contains(char::is_control), "{shown:?}");
        }
    }
    assert!(speech.heard <= 64, "{} bytes were sent", speech.heard);
}

fn kernel(data: &[u8], depth: usize) {
    let answer = parse_datagram(data, 1);
    let list = answer.attributes.as_deref().unwrap_or(data);
    let mut total = 0;
    for (_, value) in attributes(list) {
        total += value.len();
        if depth < 3 {
            kernel(value, depth + 1);
        }
    }
    assert!(total <= list.len());
}
