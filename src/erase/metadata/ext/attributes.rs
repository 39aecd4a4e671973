//! Extended attributes, in inodes and in blocks of their own: the kernel's fs/ext4/xattr.h. Entries grow from the
//! front and values from the back; what lies between, and what removed values left, is in use by nobody.

#![forbid(unsafe_code)]

use std::ops::Range;

use super::fields::{byte, le32, part, part_mut, put, size16};
use super::layout::{Layout, damaged};
use super::tally::{Kind, Tally};
use crate::disk::crc::crc32c;
use crate::error::Result;

const MAGIC: u32 = 0xea02_0000;

/// The header of a block, and in it how many blocks there are and the checksum.
const HEADER: usize = 32;
const BLOCKS: usize = 8;
const CHECKSUM: usize = 16;

/// Attribute class and name of inline data.
const SYSTEM: u8 = 7;
const DATA: &[u8] = b"data";

/// Wipes what no attribute needs in the part of an inode behind its fields; whether it changed.
pub(super) fn clean_inode(tally: &mut Tally, rest: &mut [u8]) -> Result<bool> {
    if le32(rest, 0) != MAGIC {
        return Ok(tally.clean(Kind::InodeSlack, rest));
    }
    clean(tally, part_mut(rest, 4..usize::MAX), 0)
}

/// The same for a block of attributes, whose checksum is mended.
pub(super) fn clean_block(tally: &mut Tally, layout: &Layout, number: u64, block: &mut [u8]) -> Result<bool> {
    if le32(block, 0) != MAGIC || le32(block, BLOCKS) != 1 {
        return Err(damaged(format_args!("block {number} has no attributes")));
    }
    if layout.checksums && checksum(layout, number, block) != le32(block, CHECKSUM) {
        return Err(damaged(format_args!("the checksum of block {number}")));
    }
    let changed = clean(tally, block, HEADER)?;
    if changed && layout.checksums {
        let sum = checksum(layout, number, block);
        put(block, CHECKSUM, &sum.to_le_bytes());
    }
    Ok(changed)
}

/// Where the inline data stands that an inode holds as an attribute, in the part behind its fields.
pub(super) fn inline_data(rest: &[u8]) -> Result<Option<Range<usize>>> {
    if le32(rest, 0) != MAGIC {
        return Ok(None);
    }
    let listed = list(part(rest, 4..usize::MAX), 0)?;
    Ok(listed.inline.map(|value| value.start + 4..value.end + 4))
}

/// What a list of entries says.
struct Listed {
    /// The first byte behind it.
    end: usize,
    /// Where values are, with the bytes that fill them up to whole words, as their hashes do.
    values: Vec<Range<usize>>,
    inline: Option<Range<usize>>,
}

/// Reads the entries from `first` on; the places of values count from the start of `bytes`.
fn list(bytes: &[u8], first: usize) -> Result<Listed> {
    let wrong = || damaged("the list of a file's attributes");
    let mut listed = Listed { end: first, values: Vec::new(), inline: None };
    while le32(bytes, listed.end) != 0 {
        let at = listed.end;
        let name = usize::from(byte(bytes, at));
        let value = size16(bytes, at + 2);
        let length = usize::try_from(le32(bytes, at + 8)).map_err(|_| wrong())?;
        listed.end = at + (16 + name).next_multiple_of(4);
        if listed.end > bytes.len() {
            return Err(wrong());
        }
        // A value that an inode of its own holds has no place here.
        if le32(bytes, at + 4) == 0 && length > 0 {
            let end = value.checked_add(length).filter(|end| *end <= bytes.len()).ok_or_else(wrong)?;
            if byte(bytes, at + 1) == SYSTEM && part(bytes, at + 16..at + 16 + name) == DATA {
                listed.inline = Some(value..end);
            }
            listed.values.push(value..end.next_multiple_of(4).min(bytes.len()));
        }
    }
    listed.end += 4;
    listed.values.sort_unstable_by_key(|value| value.start);
    let sound =
        listed.end <= bytes.len() && listed.values.first().is_none_or(|value| value.start >= listed.end);
    if sound { Ok(listed) } else { Err(wrong()) }
}

/// Wipes what is behind the entries and is no value.
fn clean(tally: &mut Tally, bytes: &mut [u8], first: usize) -> Result<bool> {
    let Listed { end, values, .. } = list(bytes, first)?;
    let (mut at, mut changed) = (end, false);
    for value in values.into_iter().chain(std::iter::once(bytes.len()..bytes.len())) {
        changed |= tally.clean(Kind::InodeSlack, part_mut(bytes, at..value.start));
        at = at.max(value.end);
    }
    Ok(changed)
}

fn checksum(layout: &Layout, number: u64, block: &[u8]) -> u32 {
    let mut sum = crc32c(layout.seed, &number.to_le_bytes());
    sum = crc32c(sum, part(block, 0..CHECKSUM));
    sum = crc32c(sum, &[0; 4]);
    crc32c(sum, part(block, CHECKSUM + 4..block.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::erase::metadata::Act;
    use proptest::prelude::*;

    /// The part of an inode behind its fields, full of `#` but for attributes of these names and values.
    fn rest(attributes: &[(&str, &str)]) -> Vec<u8> {
        let mut rest = vec![b'#'; 200];
        put(&mut rest, 0, &MAGIC.to_le_bytes());
        let (mut at, mut value_at) = (4, 200);
        for (name, value) in attributes {
            value_at -= value.len().next_multiple_of(4);
            put(&mut rest, at, &[u8::try_from(name.len()).unwrap(), SYSTEM]);
            put(&mut rest, at + 2, &u16::try_from(value_at - 4).unwrap().to_le_bytes());
            put(&mut rest, at + 4, &[0; 12]);
            put(&mut rest, at + 8, &u32::try_from(value.len()).unwrap().to_le_bytes());
            put(&mut rest, at + 16, name.as_bytes());
            put(&mut rest, value_at, value.as_bytes());
            at += (16 + name.len()).next_multiple_of(4);
        }
        put(&mut rest, at, &[0; 4]);
        rest
    }

    #[test]
    fn attributes_stay_and_what_is_between_them_goes() {
        let mut bytes = rest(&[("data", "inline data!"), ("name", "value")]);
        assert_eq!(inline_data(&bytes).unwrap(), Some(188..200));
        assert!(clean_inode(&mut Tally::new(Act::Zero), &mut bytes).unwrap());
        let text = String::from_utf8_lossy(&bytes);
        assert!(["data", "inline data!", "name", "value"].iter().all(|word| text.contains(word)));
        // What fills the last word of a value belongs to its hash.
        assert_eq!(text.matches('#').count(), 3);
        bytes[3] = 0;
        assert!(clean_inode(&mut Tally::new(Act::Zero), &mut bytes).unwrap());
        assert!(bytes.iter().all(|byte| *byte == 0));
    }

    proptest! {
        #[test]
        fn any_attributes_are_cleaned_or_refused(
            bytes in proptest::collection::vec(prop_oneof![3 => Just(0), 1 => 0_u8..32, 1 => any::<u8>()], 0..1024),
            magic: bool, block: bool,
        ) {
            let (layout, mut bytes) = (Layout::small(false), bytes);
            if magic {
                put(&mut bytes, 0, &MAGIC.to_le_bytes());
                put(&mut bytes, BLOCKS, &[1, 0, 0, 0]);
            }
            let clean = |act, bytes: &mut [u8]| {
                let mut tally = Tally::new(act);
                let cleaned = match block {
                    true => clean_block(&mut tally, &layout, 3, bytes),
                    false => clean_inode(&mut tally, bytes),
                };
                cleaned.map(|_| tally.remains().iter().map(|remains| remains.nonzero).sum::<u64>())
            };
            let _ = inline_data(&bytes);
            if clean(Act::Zero, &mut bytes).is_ok() {
                prop_assert_eq!(clean(Act::Count, &mut bytes).unwrap(), 0);
            }
        }
    }
}
