//! The bytes of one volume of an attached disk of which nothing is mounted, read and written in place.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use super::extent::Extents;
use crate::error::{Context, Error, Result};
use crate::sys::holes::first_data;

/// The bytes of a volume. Nothing outside of it can be reached.
#[derive(Debug, Clone, Copy)]
pub struct VolumeBytes<'a> {
    disk: &'a File,
    offset: u64,
    length: u64,
    data: Option<&'a Extents>,
}

impl<'a> VolumeBytes<'a> {
    /// The `length` bytes of the disk from `offset` on.
    pub fn new(disk: &'a File, offset: u64, length: u64) -> Self {
        Self { disk, offset, length, data: None }
    }

    /// The same where it is known what of the disk may hold data: its holes are not asked for one by one.
    #[must_use]
    pub fn with_data(self, data: &'a Extents) -> Self {
        Self { data: Some(data), ..self }
    }

    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Reads exactly `bytes.len()` bytes.
    ///
    /// # Errors
    /// When they are not all inside, or cannot be read.
    pub fn read(&self, at: u64, bytes: &mut [u8]) -> Result<()> {
        let place = self.place(at, bytes.len())?;
        self.disk.read_exact_at(bytes, place).context(|| format!("cannot read at byte {place} of the disk"))
    }

    /// The same into a vector of its own.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_vec(&self, at: u64, length: usize) -> Result<Vec<u8>> {
        self.place(at, length)?;
        let mut bytes = vec![0; length];
        self.read(at, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// When they do not all go inside, or cannot be written.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<()> {
        let place = self.place(at, bytes.len())?;
        self.disk.write_all_at(bytes, place).context(|| format!("cannot write at byte {place} of the disk"))
    }

    /// The first byte from `at` on, and not behind `end`, that may be something else than zero. Where the disk does not
    /// tell its holes (lseek(2), SEEK_DATA), this is `at`.
    ///
    /// # Errors
    /// When they do not lie inside, or the disk cannot be asked.
    pub fn next_data(&self, at: u64, end: u64) -> Result<u64> {
        let (place, last) = (self.place(at, 0)?, self.place(end, 0)?);
        let found = match self.data {
            Some(data) => data.first_from(place),
            None => first_data(self.disk, place).context(|| "cannot tell where the disk has data")?,
        };
        Ok(found.unwrap_or(last).clamp(place, last.max(place)) - self.offset)
    }

    /// The same bytes as a stream, for what reads any disk so.
    pub fn stream(&self) -> Stream<'a> {
        Stream { volume: *self, at: 0 }
    }

    fn place(&self, at: u64, length: usize) -> Result<u64> {
        let end = at.checked_add(length as u64).filter(|end| *end <= self.length);
        end.and_then(|_| self.offset.checked_add(at)).ok_or_else(|| {
            Error::unsupported(format!("the filesystem names byte {at}, which is not in its volume"))
        })
    }
}

/// The bytes of a volume as a stream.
#[derive(Debug)]
pub struct Stream<'a> {
    volume: VolumeBytes<'a>,
    at: u64,
}

impl Read for Stream<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.volume.length.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let length = bytes.len().min(left);
        if length == 0 {
            return Ok(0);
        }
        let place = self.volume.place(self.at, length).map_err(io::Error::other)?;
        let read = self.volume.disk.read_at(&mut bytes[..length], place)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Stream<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.volume.length.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_is_read_or_written() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&(0..100).collect::<Vec<u8>>(), 0).unwrap();
        let volume = VolumeBytes::new(&file, 20, 30);
        assert_eq!(volume.read_vec(28, 2).unwrap(), [48, 49]);
        for (at, length) in [(29, 2), (30, 1), (u64::MAX, 1), (0, 31)] {
            volume.read_vec(at, length).unwrap_err();
            volume.write(at, &vec![0; length]).unwrap_err();
        }
        let mut stream = volume.stream();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert_eq!(all, (20..50).collect::<Vec<u8>>());
        assert_eq!(stream.seek(SeekFrom::End(-3)).unwrap(), 27);
        all.clear();
        stream.read_to_end(&mut all).unwrap();
        assert_eq!(all, [47, 48, 49]);
        stream.seek(SeekFrom::Current(-31)).unwrap_err();
        stream.seek(SeekFrom::Start(u64::MAX)).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
}
