//! Swap space, and whether it holds a suspended system. Layout: `union swap_header` of the kernel's
//! include/linux/swap.h; the magic stands at the end of the first page, whatever the page size of the machine was.

use std::io::{self, Read, Seek};

use crate::disk::bytes::Window;
use crate::disk::content::{Content, Superblock};

const PAGE_SIZES: [u32; 5] = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10];
const MAGIC_LEN: u32 = 10;
/// A swap space of fewer pages is refused by mkswap.
const MIN_PAGES: u64 = 10;

/// What the kernel (first), uswsusp, and others write over the magic while a system is suspended.
const SUSPENDED: [&[u8]; 4] = [b"S1SUSPEND", b"S2SUSPEND", b"ULSUSPEND", b"LINHIB0001"];
/// TuxOnIce writes its mark at the very start and keeps the magic.
const TUX_ON_ICE: &[u8] = b"\xed\xc3\x02\xe9\x98\x56\xe5\x0c";

pub(super) fn swap<R: Read + Seek>(window: &mut Window<'_, R>) -> io::Result<Option<Superblock>> {
    if window.length() < MIN_PAGES * 4096 {
        return Ok(None);
    }
    let Some(header) = window.block(0, 2048)? else {
        return Ok(None);
    };
    for page in PAGE_SIZES {
        let Some(magic) = window.block(u64::from(page - MAGIC_LEN), MAGIC_LEN)? else { break };
        let suspended = SUSPENDED.iter().any(|mark| magic.has(0, mark)) || header.has(0, TUX_ON_ICE);
        if magic.has(0, b"SWAP-SPACE") {
            let hibernated = suspended;
            return Ok(Some(Superblock {
                block_size: Some(page),
                hibernated,
                ..Superblock::new(Content::Swap)
            }));
        }
        if !magic.has(0, b"SWAPSPACE2") && !SUSPENDED.iter().any(|mark| magic.has(0, mark)) {
            continue;
        }
        let last_page = match (header.le32(1024), header.be32(1024)) {
            (1, _) => header.le32(1028),
            (_, 1) => header.be32(1028),
            _ => continue,
        };
        if last_page == 0 {
            continue;
        }
        // The reserved words are zero in a header that has an identity.
        let has_identity = header.le64(1196) == 0;
        return Ok(Some(Superblock {
            uuid: header.uuid(1036).filter(|_| has_identity),
            label: header.text(1052, 16).filter(|_| has_identity),
            block_size: Some(page),
            total_bytes: Some((u64::from(last_page) + 1) * u64::from(page)),
            hibernated: suspended,
            ..Superblock::new(Content::Swap)
        }));
    }
    Ok(None)
}
