//! What the block map of a VDI file does not refer to. By block/vdi.c of qemu; numbers are little-endian.

#![forbid(unsafe_code)]

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::Account;
use crate::disk::number::{le32, le64};
use crate::erase::extent::Extent;

const SIGNATURE: u32 = 0xbeda_107f;
const HEADER: usize = 512;
/// Blocks from here on are none: the last two numbers say that there is none, and that it was discarded.
const NO_BLOCK: u32 = 0xffff_fffe;
/// The most blocks of a disk: 4 TiB of the 1 MiB blocks that every program makes.
const BLOCKS: u64 = 4 << 20;

/// The stretches of the file that hold nothing of the disk, or why they cannot be told.
pub(super) fn unreferenced(file: &File, end: u64) -> Result<Vec<Extent>, String> {
    let mut header = [0u8; HEADER];
    file.read_exact_at(&mut header, 0).map_err(|error| format!("its header cannot be read: {error}"))?;
    let (map_at, data_at) = (u64::from(le32(&header, 0x154)), u64::from(le32(&header, 0x158)));
    let (disk, block) = (le64(&header, 0x170), u64::from(le32(&header, 0x178)));
    let (extra, blocks) = (u64::from(le32(&header, 0x17c)), u64::from(le32(&header, 0x180)));
    // qemu writes no others.
    if le32(&header, 0x40) != SIGNATURE || block != 1 << 20 || extra != 0 {
        return Err("it is no VDI of the usual kind".into());
    }
    if blocks > BLOCKS || disk.div_ceil(block) > blocks || data_at % 512 != 0 {
        return Err("its header makes no sense".into());
    }
    let mut live = Account::new(end);
    live.take("header", 0, HEADER as u64)?;
    live.take("block map", map_at, blocks * 4)?;
    let mut map = vec![0; usize::try_from(blocks * 4).map_err(|error| error.to_string())?];
    file.read_exact_at(&mut map, map_at).map_err(|error| format!("its block map cannot be read: {error}"))?;
    for (index, entry) in (0..disk.div_ceil(block)).zip(map.chunks_exact(4)) {
        let number = le32(entry, 0);
        if number < NO_BLOCK {
            let inside = (disk - index * block).next_multiple_of(512).min(block);
            live.take("block", data_at + u64::from(number) * block, inside)?;
        }
    }
    live.rest()
}
