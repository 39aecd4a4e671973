//! Disks of any size from a few bytes of input: a size, and patches at places where formats keep their magic numbers.
//!
//! Form: size (mantissa u16, shift u8), then patches of: place u8, offset, length u16, bytes. The place names an
//! anchor below and takes a u16 offset, or, when it is none of them, is absolute with a u64 offset. All numbers are
//! little-endian. scripts/fuzz-seeds writes this form from real images.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};

const PAGE: u64 = 512;

/// Where structures begin: from the start of the disk, and back from its end.
const ANCHORS: [u64; 8] = [0, 4 << 10, 8 << 10, 32 << 10, 64 << 10, 256 << 10, 1 << 20, 2 << 20];
const FROM_END: [u64; 6] = [512, 4 << 10, 8 << 10, 34 * 512, 64 << 10, 512 << 10];

/// Takes numbers and stretches off the front of an input; what is missing is zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(self.0.len().min(len));
        self.0 = tail;
        head
    }

    fn number<const N: usize>(&mut self) -> [u8; N] {
        let head = self.take(N);
        let mut bytes = [0; N];
        bytes[..head.len()].copy_from_slice(head);
        bytes
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.number::<1>()[0]
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.number())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.number())
    }
}

/// A disk of which only the written pages take memory; counts what is read from it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    pages: BTreeMap<u64, [u8; 512]>,
    pub(crate) bytes: u64,
    position: u64,
    pub(crate) read: u64,
}

impl Disk {
    pub(crate) fn parse(input: &mut Input<'_>) -> Self {
        let (mantissa, shift) = (u64::from(input.u16()), input.u8() % 47);
        let mut disk = Self { bytes: mantissa << shift, ..Self::default() };
        while !input.0.is_empty() {
            let place = usize::from(input.u8());
            let at = match (ANCHORS.get(place), FROM_END.get(place.wrapping_sub(ANCHORS.len()))) {
                (Some(start), _) => start + u64::from(input.u16()),
                (None, Some(back)) => disk.bytes.saturating_sub(*back) + u64::from(input.u16()),
                (None, None) => input.u64(),
            };
            let length = input.u16().into();
            disk.put(at, input.take(length));
        }
        disk
    }

    pub(crate) fn put(&mut self, at: u64, bytes: &[u8]) {
        for (place, byte) in (at..u64::MAX).zip(bytes) {
            let offset = (place % PAGE) as usize;
            self.pages.entry(place / PAGE).or_insert([0; 512])[offset] = *byte;
        }
    }

    /// `len` bytes at `at`, zeros beyond the end.
    pub(crate) fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut copy = Self { position: at, ..self.clone() };
        let mut bytes = vec![0; len];
        let mut done = 0;
        while let Ok(read @ 1..) = copy.read(&mut bytes[done..]) {
            done += read;
        }
        bytes
    }
}

impl Read for Disk {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.bytes.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let len = buffer.len().min(left);
        if len == 0 {
            return Ok(0);
        }
        let end = self.position + len as u64;
        buffer[..len].fill(0);
        for (number, page) in self.pages.range(self.position / PAGE..end.div_ceil(PAGE)) {
            let (from, to) = ((number * PAGE).max(self.position), ((number + 1) * PAGE).min(end));
            let place = |at: u64, start: u64| (at - start) as usize;
            buffer[place(from, self.position)..place(to, self.position)]
                .copy_from_slice(&page[place(from, number * PAGE)..place(to, number * PAGE)]);
        }
        self.position = end;
        self.read += len as u64;
        Ok(len)
    }
}

impl Seek for Disk {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match to {
            SeekFrom::Start(at) => self.position = at,
            SeekFrom::Current(by) => self.position = self.position.saturating_add_signed(by),
            SeekFrom::End(by) => self.position = self.bytes.saturating_add_signed(by),
        }
        Ok(self.position)
    }
}
