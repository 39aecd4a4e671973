//! What guestseal needs to know of ELF files (elf(5)): which loader they ask for, whether a kernel can be entered
//! directly, and how much of a file is ever loaded.

#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::disk::number::{byte, le16, le32, le64};

const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
/// The note that says where a virtual machine enters an uncompressed kernel (xen/interface/elfnote.h).
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;
const HEADER: usize = 64;

/// A 64-bit little-endian ELF file.
#[derive(Debug, Clone, Copy)]
pub struct Elf<'a> {
    bytes: &'a [u8],
}

/// A program header: what the file says of one stretch of itself.
#[derive(Debug, Clone, Copy)]
struct Segment {
    kind: u32,
    offset: u64,
    length: u64,
}

impl<'a> Elf<'a> {
    /// None when these are no bytes of such a file.
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        let is_elf = bytes.starts_with(b"\x7fELF") && byte(bytes, 4) == 2 && byte(bytes, 5) == 1;
        (is_elf && bytes.len() >= HEADER).then_some(Self { bytes })
    }

    fn segments(self) -> impl Iterator<Item = Segment> + use<'a> {
        let bytes = self.bytes;
        let (start, size, count) = (le64(bytes, 32), u64::from(le16(bytes, 54)), u64::from(le16(bytes, 56)));
        (0..count).filter_map(move |number| {
            let at = usize::try_from(start.checked_add(number * size)?).ok()?;
            at.checked_add(56).filter(|end| *end <= bytes.len())?;
            Some(Segment { kind: le32(bytes, at), offset: le64(bytes, at + 8), length: le64(bytes, at + 32) })
        })
    }

    fn content(self, segment: Segment) -> Option<&'a [u8]> {
        let start = usize::try_from(segment.offset).ok()?;
        let end = start.checked_add(usize::try_from(segment.length).ok()?)?;
        self.bytes.get(start..end)
    }

    /// The program that loads it; None for one that is linked statically, and for a library.
    pub fn loader(self) -> Option<PathBuf> {
        let segment = self.segments().find(|segment| segment.kind == PT_INTERP)?;
        let name = self.content(segment)?.split(|byte| *byte == 0).next()?;
        Some(PathBuf::from(OsStr::from_bytes(name)))
    }

    /// Whether it is a kernel that a virtual machine can enter without a boot loader (PVH).
    pub fn has_pvh_entry(self) -> bool {
        let notes = self.segments().filter(|segment| segment.kind == PT_NOTE);
        notes.filter_map(|segment| self.content(segment)).any(has_entry_note)
    }

    /// The file without what is never loaded: names and debug information, many times the rest of a debug build.
    pub fn stripped(self) -> Vec<u8> {
        let segments = self.segments().filter(|segment| segment.kind == PT_LOAD);
        let ends = segments.filter_map(|segment| segment.offset.checked_add(segment.length));
        let end = ends.max().and_then(|end| usize::try_from(end).ok()).filter(|end| *end >= HEADER);
        let mut bytes = end.and_then(|end| self.bytes.get(..end)).unwrap_or(self.bytes).to_vec();
        if bytes.len() < self.bytes.len() {
            // The table of sections is gone, so the header must not point to it: e_shoff, then e_shnum, e_shstrndx.
            bytes[40..48].fill(0);
            bytes[60..64].fill(0);
        }
        bytes
    }
}

/// Notes follow each other: length of the name, of the content, the kind, then both, each padded to 4 bytes.
fn has_entry_note(mut notes: &[u8]) -> bool {
    while notes.len() >= 12 {
        let lengths = [le32(notes, 0), le32(notes, 4)].map(|length| length.next_multiple_of(4) as usize);
        if le32(notes, 8) == XEN_ELFNOTE_PHYS32_ENTRY && notes[12..].starts_with(b"Xen\0") {
            return true;
        }
        notes = notes.get(12 + lengths[0] + lengths[1]..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn note(name: &[u8; 4], kind: u32, content: &[u8; 8]) -> Vec<u8> {
        [&4u32.to_le_bytes()[..], &8u32.to_le_bytes(), &kind.to_le_bytes(), name, content].concat()
    }

    #[test]
    fn this_test_has_a_loader_and_is_smaller_without_its_names() {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        let elf = Elf::new(&bytes).unwrap();
        assert!(elf.loader().is_some_and(|loader| loader.is_file()));
        assert!(!elf.has_pvh_entry());
        let stripped = elf.stripped();
        assert!(stripped.len() < bytes.len() / 2, "{} of {}", stripped.len(), bytes.len());
        assert_eq!(Elf::new(&stripped).unwrap().loader(), elf.loader());
        assert_eq!(Elf::new(&stripped).unwrap().stripped(), stripped);
    }

    #[test]
    fn the_entry_is_found_behind_other_notes() {
        let other = note(b"Xen\0", 6, &[0; 8]);
        let entry = note(b"Xen\0", XEN_ELFNOTE_PHYS32_ENTRY, &[1; 8]);
        assert!(has_entry_note(&[other.clone(), entry.clone()].concat()));
        assert!(!has_entry_note(&other));
        assert!(!has_entry_note(&note(b"GNU\0", XEN_ELFNOTE_PHYS32_ENTRY, &[1; 8])));
        assert!(!has_entry_note(&entry[..11]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(mut bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            if bytes.len() > 6 {
                bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
            }
            if let Some(elf) = Elf::new(&bytes) {
                prop_assert!(elf.stripped().len() <= bytes.len());
                let _ = (elf.loader(), elf.has_pvh_entry());
            }
            has_entry_note(&bytes);
        }
    }
}
