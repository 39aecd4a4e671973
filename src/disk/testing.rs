//! Disks made in memory for tests, and a watch on how much is read from them.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};

use super::crc::crc32;

const PAGE: u64 = 512;

/// A disk of any size of which only the written pages take memory.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    pages: BTreeMap<u64, [u8; 512]>,
    pub(super) bytes: u64,
    position: u64,
    /// How many bytes were read, and the largest buffer they were asked into.
    pub(super) read: u64,
    pub(super) largest: usize,
    /// Reads that touch this byte fail.
    pub(super) bad: Option<u64>,
}

impl Disk {
    pub(super) fn new(bytes: u64) -> Self {
        Self { bytes, ..Self::default() }
    }

    pub(super) fn put(&mut self, at: u64, bytes: &[u8]) -> &mut Self {
        for (place, byte) in (at..).zip(bytes) {
            let offset = usize::try_from(place % PAGE).unwrap();
            self.pages.entry(place / PAGE).or_insert([0; 512])[offset] = *byte;
        }
        self
    }

    pub(super) fn get(&self, at: u64) -> u8 {
        self.pages.get(&(at / PAGE)).map_or(0, |page| page[usize::try_from(at % PAGE).unwrap()])
    }
}

impl Read for Disk {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.bytes.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let len = buffer.len().min(left);
        let end = self.position + len as u64;
        if self.bad.is_some_and(|bad| (self.position..end).contains(&bad)) {
            return Err(io::Error::other("bad sector"));
        }
        buffer[..len].fill(0);
        for (number, page) in self.pages.range(self.position / PAGE..end.div_ceil(PAGE)) {
            // Where the page and what is asked for meet.
            let (from, to) = ((number * PAGE).max(self.position), ((number + 1) * PAGE).min(end));
            let place = |at: u64, start: u64| usize::try_from(at - start).unwrap();
            buffer[place(from, self.position)..place(to, self.position)]
                .copy_from_slice(&page[place(from, number * PAGE)..place(to, number * PAGE)]);
        }
        self.position = end;
        self.read += len as u64;
        self.largest = self.largest.max(buffer.len());
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

/// Type, first sector and number of sectors of an MBR entry.
pub(super) type MbrEntry = (u8, u32, u32);

/// Writes a boot record whose entries are numbered from 0.
pub(super) fn put_mbr(disk: &mut Disk, at: u64, entries: &[(u64, MbrEntry)]) {
    disk.put(at + 510, &[0x55, 0xaa]);
    for (index, (kind, start, sectors)) in entries {
        let entry = at + 446 + index * 16;
        disk.put(entry + 4, &[*kind])
            .put(entry + 8, &start.to_le_bytes())
            .put(entry + 12, &sectors.to_le_bytes());
    }
}

/// A GPT to be: first and last sector of each partition, by its number.
#[derive(Debug, Clone)]
pub(super) struct GptPlan {
    pub(super) sector: u64,
    pub(super) partitions: Vec<(u64, u64, u64)>,
    pub(super) count: u32,
    pub(super) entry_size: u32,
    /// When given, what the headers say about where the entries are.
    pub(super) entries_at: Option<u64>,
}

impl GptPlan {
    pub(super) fn new(sector: u64, partitions: &[(u64, u64, u64)]) -> Self {
        Self { sector, partitions: partitions.to_vec(), count: 128, entry_size: 128, entries_at: None }
    }

    /// A forged count is only claimed.
    fn entries_len(&self) -> usize {
        usize::try_from(self.count).ok().filter(|count| (128..=4096).contains(count)).unwrap_or(128) * 128
    }

    /// Writes the protective MBR and both copies, all checksums right.
    pub(super) fn put(&self, disk: &mut Disk) {
        let last = disk.bytes / self.sector - 1;
        put_mbr(disk, 0, &[(0, (0xee, 1, u32::try_from(last).unwrap_or(u32::MAX)))]);
        let mut entries = vec![0; self.entries_len()];
        for (number, first, end) in &self.partitions {
            let at = usize::try_from((number - 1) * 128).unwrap();
            entries[at..at + 16].copy_from_slice(&[0xaf; 16]);
            entries[at + 16..at + 32].copy_from_slice(&u128::from(*number).to_be_bytes());
            entries[at + 32..at + 40].copy_from_slice(&first.to_le_bytes());
            entries[at + 40..at + 48].copy_from_slice(&end.to_le_bytes());
        }
        let length = (self.entries_len() as u64).div_ceil(self.sector);
        self.put_copy(disk, 1, 2, last, &entries);
        self.put_copy(disk, last, last - length, 1, &entries);
    }

    fn put_copy(&self, disk: &mut Disk, at: u64, entries_at: u64, other: u64, entries: &[u8]) {
        let length = (entries.len() as u64).div_ceil(self.sector);
        let last = disk.bytes / self.sector - 1;
        let mut header = vec![0; 92];
        header[..16].copy_from_slice(b"EFI PART\0\0\x01\0\x5c\0\0\0");
        header[24..32].copy_from_slice(&at.to_le_bytes());
        header[32..40].copy_from_slice(&other.to_le_bytes());
        header[40..48].copy_from_slice(&(2 + length).to_le_bytes());
        header[48..56].copy_from_slice(&(last - length - 1).to_le_bytes());
        header[56..72].copy_from_slice(&[0xd1; 16]);
        header[72..80].copy_from_slice(&self.entries_at.unwrap_or(entries_at).to_le_bytes());
        header[80..84].copy_from_slice(&self.count.to_le_bytes());
        header[84..88].copy_from_slice(&self.entry_size.to_le_bytes());
        header[88..92].copy_from_slice(&(!crc32(!0, entries)).to_le_bytes());
        let crc = !crc32(!0, &header);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        disk.put(at * self.sector, &header).put(entries_at * self.sector, entries);
    }
}

/// Writes just enough of an ext2 superblock at the start of a volume.
pub(super) fn put_ext2(disk: &mut Disk, volume: u64, blocks: u32, uuid: u8) {
    let at = volume + 1024;
    disk.put(at + 4, &blocks.to_le_bytes()).put(at + 56, &[0x53, 0xef, 1]).put(at + 104, &[uuid; 16]);
}

/// Bytes that look random, with many of those at which code goes wrong. Cheaper to make than a vector by proptest.
pub(super) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..len).map(|_| [0, 0, 1, 0xff, next(), next()][usize::from(next() % 6)]).collect()
}
