//! Buffers for both ends of the pipe that are wiped: passwords and pieces of deleted files go through them.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};

use zeroize::{Zeroize, Zeroizing};

/// What is written or read at once, in bytes.
const BUFFER: usize = 64 << 10;

/// Writes in big pieces. What was not flushed when it is dropped is lost.
#[derive(Debug)]
pub(super) struct WipedWriter<W: Write> {
    inner: W,
    buffer: Zeroizing<Vec<u8>>,
}

impl<W: Write> WipedWriter<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, buffer: Zeroizing::new(Vec::with_capacity(BUFFER)) }
    }

    fn give(&mut self) -> io::Result<()> {
        let written = self.inner.write_all(&self.buffer);
        self.buffer.iter_mut().zeroize();
        self.buffer.clear();
        written
    }
}

impl<W: Write> Write for WipedWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > BUFFER {
            self.give()?;
        }
        if bytes.len() > BUFFER {
            return self.inner.write(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.give()?;
        self.inner.flush()
    }
}

/// Reads in big pieces.
#[derive(Debug)]
pub(super) struct WipedReader<R: Read> {
    inner: R,
    buffer: Zeroizing<Vec<u8>>,
    /// What was read and not taken yet.
    start: usize,
    end: usize,
}

impl<R: Read> WipedReader<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, buffer: Zeroizing::new(vec![0; BUFFER]), start: 0, end: 0 }
    }
}

impl<R: Read> Read for WipedReader<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.start == self.end {
            if bytes.len() >= BUFFER {
                return self.inner.read(bytes);
            }
            (self.start, self.end) = (0, 0);
            self.end = self.inner.read(&mut self.buffer)?;
        }
        let length = bytes.len().min(self.end - self.start);
        let taken = &mut self.buffer[self.start..self.start + length];
        bytes[..length].copy_from_slice(taken);
        taken.zeroize();
        self.start += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_went_through_is_not_left() {
        let mut writer = WipedWriter::new(Vec::new());
        writer.write_all(&[7; 1000]).unwrap();
        assert_eq!((writer.inner.len(), writer.buffer.len()), (0, 1000));
        writer.flush().unwrap();
        assert_eq!((writer.inner.len(), writer.buffer.len()), (1000, 0));
        writer.buffer.resize(1000, 1);
        assert!(writer.buffer.iter().all(|byte| *byte == 1));
        let mut reader = WipedReader::new(&[7; 1000][..]);
        reader.read_exact(&mut [0; 999]).unwrap();
        assert_eq!(reader.buffer.iter().map(|byte| usize::from(*byte)).sum::<usize>(), 7);
    }

    proptest! {
        #[test]
        fn all_goes_through_in_order(lengths in prop::collection::vec(0usize..200_000, 0..12), ask in 1usize..150_000) {
            let bytes: Vec<u8> = (0..lengths.iter().sum()).map(|place: usize| (place % 251).to_le_bytes()[0]).collect();
            let (mut writer, mut at) = (WipedWriter::new(Vec::new()), 0);
            for length in lengths {
                writer.write_all(&bytes[at..at + length]).unwrap();
                at += length;
            }
            writer.flush().unwrap();
            prop_assert!(writer.inner == bytes);
            let (mut reader, mut read, mut part) = (WipedReader::new(&bytes[..]), Vec::new(), vec![0; ask]);
            while let Ok(length @ 1..) = reader.read(&mut part) {
                read.extend_from_slice(&part[..length]);
            }
            prop_assert!(read == bytes);
        }
    }
}
