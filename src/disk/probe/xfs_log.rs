//! Whether the log of an XFS filesystem is empty: the last record in it must be an unmount record. Follows the on-disk
//! format (fs/xfs/libxfs/xfs_log_format.h): the log is a ring of 512-byte blocks, each stamped with the number of the
//! round in which it was written; where the number drops is the head.

use std::io::{self, Read, Seek};

use crate::disk::bytes::{Block, Window};
use crate::disk::content::FsState;

const BLOCK: u32 = 512;
const RECORD_MAGIC: u32 = 0xfeed_babe;
/// `XLOG_UNMOUNT_TRANS` in `oh_flags`.
const UNMOUNT: u8 = 0x20;
/// Blocks that hold the cycle numbers of 32 KiB of a version 2 record.
const HEADER_COVERS: u32 = 32 << 10;
/// A record takes at most 256 KiB and its header blocks; an unmount record is far smaller.
const SEARCH_BACK: u32 = 1024;

pub(super) fn state<R: Read + Seek>(window: &mut Window<'_, R>, sb: &Block) -> io::Result<FsState> {
    let Some(mut log) = Log::find(window, sb) else {
        return Ok(FsState::Unknown);
    };
    Ok(match log.is_unmounted()? {
        None => FsState::Unknown,
        Some(true) => FsState::Clean,
        Some(false) => FsState::NeedsRecovery,
    })
}

struct Log<'w, 'd, R> {
    window: &'w mut Window<'d, R>,
    start: u64,
    blocks: u32,
}

impl<'w, 'd, R: Read + Seek> Log<'w, 'd, R> {
    /// An internal log that lies inside the volume.
    fn find(window: &'w mut Window<'d, R>, sb: &Block) -> Option<Self> {
        let block_size = u64::from(sb.be32(4));
        let (log_start, ag_bits) = (sb.be64(48), u32::from(sb.u8(124)));
        let ag = log_start.checked_shr(ag_bits)?;
        let in_ag = log_start.checked_sub(ag.checked_shl(ag_bits)?)?;
        let start = ag.checked_mul(sb.be32(84).into())?.checked_add(in_ag)?.checked_mul(block_size)?;
        let length = u64::from(sb.be32(96)).checked_mul(block_size)?;
        let blocks = u32::try_from(length / u64::from(BLOCK)).ok().filter(|blocks| *blocks > 1)?;
        (start.checked_add(length)? <= window.length()).then_some(Self { window, start, blocks })
    }

    fn block(&mut self, number: u32) -> io::Result<Option<Block>> {
        self.window.block(self.start + u64::from(number % self.blocks) * u64::from(BLOCK), BLOCK)
    }

    /// The block that is so many before this one. Two numbers of a log of a terabyte add up to more than 32 bits.
    fn back(&self, from: u32, by: u32) -> u32 {
        from.checked_sub(by).unwrap_or_else(|| from + (self.blocks - by))
    }

    fn cycle(&mut self, number: u32) -> io::Result<Option<u32>> {
        let block = self.block(number)?;
        Ok(block.map(|block| if is_record(&block) { block.be32(4) } else { block.be32(0) }))
    }

    /// None when the log cannot be made sense of.
    fn is_unmounted(&mut self) -> io::Result<Option<bool>> {
        let Some(head) = self.head()? else {
            return Ok(None);
        };
        if head == 0 && self.cycle(0)? == Some(0) {
            return Ok(Some(true)); // never written to
        }
        for back in 1..=SEARCH_BACK.min(self.blocks) {
            let number = self.back(head, back);
            match self.block(number)? {
                None => return Ok(None),
                Some(record) if is_record(&record) => return self.ends_with_unmount(number, &record, head),
                Some(_) => {}
            }
        }
        Ok(Some(false))
    }

    /// The block that is written next: the first one of an older round.
    fn head(&mut self) -> io::Result<Option<u32>> {
        let last = self.blocks - 1;
        let (Some(first_cycle), Some(last_cycle)) = (self.cycle(0)?, self.cycle(last)?) else {
            return Ok(None);
        };
        if first_cycle == last_cycle {
            return Ok(Some(0));
        }
        let (mut newer, mut older) = (0, last);
        while older - newer > 1 {
            let middle = newer + (older - newer) / 2;
            match self.cycle(middle)? {
                None => return Ok(None),
                Some(cycle) if cycle == last_cycle => older = middle,
                Some(_) => newer = middle,
            }
        }
        Ok(Some(older))
    }

    /// Whether the last record ends at the head and holds nothing but the mark of an unmount.
    fn ends_with_unmount(&mut self, number: u32, record: &Block, head: u32) -> io::Result<Option<bool>> {
        let (version, length, iclog_size) = (record.be32(8), record.be32(12), record.be32(320));
        let headers = if version & 2 != 0 && iclog_size > HEADER_COVERS {
            iclog_size.div_ceil(HEADER_COVERS)
        } else {
            1
        };
        let data = u64::from(number) + u64::from(headers);
        let end = data + u64::from(length.div_ceil(BLOCK));
        if record.be32(40) != 1 || end % u64::from(self.blocks) != u64::from(head) {
            return Ok(Some(false));
        }
        let data = u32::try_from(data % u64::from(self.blocks)).unwrap_or_default();
        Ok(self.block(data)?.map(|operation| operation.u8(9) & UNMOUNT != 0))
    }
}

fn is_record(block: &Block) -> bool {
    block.be32(0) == RECORD_MAGIC
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::testing::Disk;

    #[test]
    fn the_head_of_a_log_of_two_terabytes_is_looked_behind() {
        let blocks = u32::MAX;
        let mut disk = Disk::new(u64::from(blocks) * 512);
        let last = u64::from(blocks - 1) * 512;
        disk.put(last, &[0, 0, 0, 7]);
        let mut window = Window::new(&mut disk, 0, u64::from(blocks) * 512).unwrap();
        let mut log = Log { window: &mut window, start: 0, blocks };
        assert_eq!(log.head().unwrap(), Some(blocks - 1));
        assert_eq!(log.is_unmounted().unwrap(), Some(false));
        assert_eq!(
            [log.back(9, 9), log.back(9, 10), log.back(blocks - 1, blocks)],
            [0, blocks - 1, blocks - 1]
        );
    }
}
