//! Reading integers and text out of raw blocks, and reading blocks out of a disk, without ever going out of bounds.

use std::io::{self, Read, Seek, SeekFrom};

/// The bytes of one on-disk structure. A field that lies beyond the end reads as zero.
#[derive(Debug, Clone)]
pub(super) struct Block(Vec<u8>);

impl Block {
    /// `len` bytes at `at`, filled with zeros where the structure is shorter.
    pub(super) fn bytes<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        if let Some(tail) = self.0.get(at..) {
            let len = tail.len().min(N);
            out[..len].copy_from_slice(&tail[..len]);
        }
        out
    }

    /// The byte at `at`.
    pub(super) fn u8(&self, at: usize) -> u8 {
        self.bytes::<1>(at)[0]
    }

    /// A little-endian number.
    pub(super) fn le16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.bytes(at))
    }

    /// A little-endian number.
    pub(super) fn le32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes(at))
    }

    /// A little-endian number.
    pub(super) fn le64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }

    /// A big-endian number.
    pub(super) fn be16(&self, at: usize) -> u16 {
        u16::from_be_bytes(self.bytes(at))
    }

    /// A big-endian number.
    pub(super) fn be32(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.bytes(at))
    }

    /// A big-endian number.
    pub(super) fn be64(&self, at: usize) -> u64 {
        u64::from_be_bytes(self.bytes(at))
    }

    /// Whether `magic` stands at `at`.
    pub(super) fn has(&self, at: usize, magic: &[u8]) -> bool {
        self.0.get(at..).is_some_and(|tail| tail.starts_with(magic))
    }

    /// The bytes in `range`, cut at the end of the structure.
    pub(super) fn slice(&self, at: usize, len: usize) -> &[u8] {
        let tail = self.0.get(at..).unwrap_or_default();
        &tail[..tail.len().min(len)]
    }

    /// All bytes.
    pub(super) fn all(&self) -> &[u8] {
        &self.0
    }

    /// Text up to the first NUL, at most `len` bytes, without white space at its end; none when empty.
    pub(super) fn text(&self, at: usize, len: usize) -> Option<String> {
        text(self.slice(at, len))
    }

    /// The same for UTF-16LE; `len` counts bytes.
    pub(super) fn text_utf16(&self, at: usize, len: usize) -> Option<String> {
        let (pairs, _) = self.slice(at, len).as_chunks::<2>();
        let units = pairs.iter().map(|pair| u16::from_le_bytes(*pair)).take_while(|unit| *unit != 0);
        let text: String =
            char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        trimmed(&text)
    }

    /// A UUID stored as 16 bytes in the order of its text; none when all are zero.
    pub(super) fn uuid(&self, at: usize) -> Option<String> {
        uuid(self.bytes(at))
    }
}

impl From<&[u8]> for Block {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

/// Text up to the first NUL without white space at its end; none when empty.
pub(super) fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    trimmed(&String::from_utf8_lossy(&bytes[..end]))
}

fn trimmed(text: &str) -> Option<String> {
    let text = text.trim_end_matches(|c: char| c.is_ascii_whitespace());
    (!text.is_empty()).then(|| text.to_owned())
}

/// The text of a UUID whose bytes stand in the order of its text; none when all are zero.
pub(super) fn uuid(bytes: [u8; 16]) -> Option<String> {
    let number = u128::from_be_bytes(bytes);
    (number != 0).then(|| {
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            number >> 96,
            (number >> 80) & 0xffff,
            (number >> 64) & 0xffff,
            (number >> 48) & 0xffff,
            number & 0xffff_ffff_ffff
        )
    })
}

/// The text of a GUID as UEFI and Microsoft store it: its first three fields are little-endian.
pub(super) fn guid(mut bytes: [u8; 16]) -> Option<String> {
    bytes[0..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    uuid(bytes)
}

/// Bytes from the start of a volume that are read at once: reaches to the end of the btrfs superblock at 64 KiB.
const HEAD: u64 = 72 << 10;

/// A part of a disk. Nothing outside it can be read through it.
#[derive(Debug)]
pub(super) struct Window<'a, R> {
    disk: &'a mut R,
    offset: u64,
    length: u64,
    head: Vec<u8>,
}

impl<'a, R: Read + Seek> Window<'a, R> {
    /// The `length` bytes from `offset` on; ends earlier when the disk does.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub(super) fn new(disk: &'a mut R, offset: u64, length: u64) -> io::Result<Self> {
        let length = length.min(u64::MAX - offset);
        let head = read_up_to(disk, offset, length.min(HEAD))?;
        Ok(Self { disk, offset, length, head })
    }

    /// Its length in bytes.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// `len` bytes at `at`; none when they do not all lie inside.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub(super) fn block(&mut self, at: u64, len: u32) -> io::Result<Option<Block>> {
        let Some(end) = at.checked_add(len.into()).filter(|end| *end <= self.length) else {
            return Ok(None);
        };
        let in_head = usize::try_from(at).ok().zip(usize::try_from(end).ok());
        if let Some(bytes) = in_head.and_then(|(at, end)| self.head.get(at..end)) {
            return Ok(Some(Block(bytes.to_vec())));
        }
        let bytes = read_up_to(self.disk, self.offset + at, len.into())?;
        Ok((bytes.len() as u64 == u64::from(len)).then_some(Block(bytes)))
    }
}

/// `len` bytes of the disk at `at`; none when the disk ends before.
///
/// # Errors
/// When the disk cannot be read.
pub(super) fn read_block<R: Read + Seek>(disk: &mut R, at: u64, len: u32) -> io::Result<Option<Block>> {
    let bytes = read_up_to(disk, at, len.into())?;
    Ok((bytes.len() as u64 == u64::from(len)).then_some(Block(bytes)))
}

/// Callers bound `len` by a constant, so a hostile disk cannot make this allocate much.
fn read_up_to<R: Read + Seek>(disk: &mut R, at: u64, len: u64) -> io::Result<Vec<u8>> {
    disk.seek(SeekFrom::Start(at))?;
    // Not read_to_end, which begins with small reads: each may be a message to a server.
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    let mut filled = 0;
    while filled < bytes.len() {
        match disk.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    #[test]
    fn a_window_gives_nothing_from_outside() {
        let mut disk = Cursor::new((0..=255).collect::<Vec<u8>>());
        let mut window = Window::new(&mut disk, 16, 32).unwrap();
        assert_eq!(window.block(0, 4).unwrap().unwrap().all(), [16, 17, 18, 19]);
        assert_eq!(window.block(28, 4).unwrap().unwrap().all(), [44, 45, 46, 47]);
        assert!(window.block(29, 4).unwrap().is_none());
        assert!(window.block(u64::MAX, 4).unwrap().is_none());
        // The disk ends before the window does.
        let mut window = Window::new(&mut disk, 250, 100).unwrap();
        assert!(window.block(0, 6).unwrap().is_some());
        assert!(window.block(0, 7).unwrap().is_none());
        let mut window = Window::new(&mut disk, u64::MAX, u64::MAX).unwrap();
        assert!(window.block(0, 1).unwrap().is_none());
    }

    #[test]
    fn fields_beyond_the_end_read_as_zero() {
        let block = Block(vec![1, 2, 3]);
        assert_eq!((block.le16(1), block.le32(1), block.be32(0)), (0x0302, 0x0302, 0x0102_0300));
        assert_eq!((block.u8(3), block.le64(usize::MAX)), (0, 0));
        assert_eq!(block.slice(2, 9), [3]);
    }

    #[test]
    fn uuids_and_text() {
        let bytes: Vec<u8> = (1..=16).collect();
        assert_eq!(Block(bytes.clone()).uuid(0).as_deref(), Some("01020304-0506-0708-090a-0b0c0d0e0f10"));
        let guid = guid(bytes.try_into().unwrap());
        assert_eq!(guid.as_deref(), Some("04030201-0605-0807-090a-0b0c0d0e0f10"));
        assert_eq!(uuid([0; 16]), None);
        assert_eq!(Block(b"root  \0junk".to_vec()).text(0, 11).as_deref(), Some("root"));
        assert_eq!(Block(b"   \0".to_vec()).text(0, 4), None);
        assert_eq!(Block(b"E\0\xfc\0 \0\0\0x\0".to_vec()).text_utf16(0, 10).as_deref(), Some("Eü"));
    }
}
