//! What the tests of the nbd protocol share.

use std::io::{self, Read, Write};

/// A server whose whole speech is known beforehand; keeps what the client said.
pub(super) struct Script {
    pub(super) speech: io::Cursor<Vec<u8>>,
    pub(super) heard: Vec<u8>,
}

impl Script {
    pub(super) fn new(speech: Vec<u8>) -> Self {
        Self { speech: io::Cursor::new(speech), heard: Vec::new() }
    }
}

impl Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.speech.read(buffer)
    }
}

impl Write for Script {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.heard.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The server's answer of this kind to an option.
pub(super) fn reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap();
    let magic = 0x0003_e889_0455_65a9_u64.to_be_bytes();
    [&magic[..], &option.to_be_bytes(), &kind.to_be_bytes(), &length.to_be_bytes(), data].concat()
}
