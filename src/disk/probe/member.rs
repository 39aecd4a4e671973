//! Layers below filesystems: Linux software RAID, LVM2, LUKS, dm-verity, dm-integrity.

use std::io::{self, Read, Seek};

use crate::disk::bytes::{self, Block, Window};
use crate::disk::content::{Content, Superblock};
use crate::disk::crc::crc32;

const MD_MAGIC: u32 = 0xa92b_4efc;
const MD_RESERVED: u64 = 64 << 10;

/// md: `mdp_super_t` (0.90) and `struct mdp_superblock_1` of the kernel's include/uapi/linux/raid/md_p.h.
pub(super) fn md<R: Read + Seek>(window: &mut Window<'_, R>) -> io::Result<Option<Superblock>> {
    let length = window.length();
    if length > MD_RESERVED {
        let at = length / MD_RESERVED * MD_RESERVED - MD_RESERVED;
        if let Some(sb) = window.block(at, 64)?
            && let Some(found) = md0(&sb, at, length)
        {
            return Ok(Some(found));
        }
    }
    let at_end = (length / 4096 * 4096).checked_sub(8192).into_iter();
    for at in at_end.chain([0, 4096]) {
        if let Some(sb) = window.block(at, 4096)?
            && let Some(found) = md1(&sb, at)
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Written in the order of the machine's bytes; the words of the UUID are printed most significant byte first.
fn md0(sb: &Block, at: u64, length: u64) -> Option<Superblock> {
    let word: fn(&Block, usize) -> u32 = match MD_MAGIC {
        magic if sb.le32(0) == magic => Block::le32,
        magic if sb.be32(0) == magic => Block::be32,
        _ => return None,
    };
    let size = u64::from(word(sb, 32)) << 10;
    if at < size || length < size + MD_RESERVED {
        return None;
    }
    let rest = if word(sb, 8) >= 90 { [52, 56, 60].map(|field| word(sb, field)) } else { [0; 3] };
    let mut uuid = [0; 16];
    for (place, part) in uuid.chunks_exact_mut(4).zip([word(sb, 20)].into_iter().chain(rest)) {
        place.copy_from_slice(&part.to_be_bytes());
    }
    Some(Superblock { uuid: bytes::uuid(uuid), ..Superblock::new(Content::MdMember) })
}

fn md1(sb: &Block, at: u64) -> Option<Superblock> {
    if sb.le32(0) != MD_MAGIC || sb.le32(4) != 1 || sb.le64(144) != at / 512 {
        return None;
    }
    let roles = usize::try_from(sb.le32(220)).ok().filter(|roles| *roles <= (4096 - 256) / 2)?;
    let (words, rest) = sb.slice(0, 256 + 2 * roles).as_chunks::<4>();
    let mut sum: u64 = words.iter().map(|word| u64::from(u32::from_le_bytes(*word))).sum();
    if let [low, high] = rest {
        sum += u64::from(u16::from_le_bytes([*low, *high]));
    }
    sum -= u64::from(sb.le32(216));
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sound = sum & 0xffff_ffff == u64::from(sb.le32(216));
    Some(
        Superblock { uuid: sb.uuid(16), label: sb.text(32, 32), ..Superblock::new(Content::MdMember) }
            .checked(sound),
    )
}

/// LVM2: the label of a physical volume is in one of its first four sectors (lib/format_text/layout.h of LVM2).
pub(super) fn lvm<R: Read + Seek>(window: &mut Window<'_, R>) -> io::Result<Option<Superblock>> {
    const FIRST_CRC: u32 = 0xf597_a6cf;
    for sector in 0..4_u64 {
        let Some(label) = window.block(sector * 512, 512)? else { break };
        if !label.has(0, b"LABELONE") || !label.has(24, b"LVM2 001") || label.le64(8) != sector {
            continue;
        }
        let sound = crc32(FIRST_CRC, label.slice(20, 492)) == label.le32(16);
        let id = String::from_utf8_lossy(label.slice(32, 32)).into_owned();
        let uuid = id.is_ascii().then(|| {
            [&id[..6], &id[6..10], &id[10..14], &id[14..18], &id[18..22], &id[22..26], &id[26..]].join("-")
        });
        return Ok(Some(Superblock { uuid, ..Superblock::new(Content::LvmPv) }.checked(sound)));
    }
    Ok(None)
}

/// LUKS, by its on-disk format specifications 1.2.3 and 2.1.
pub(super) fn luks<R: Read + Seek>(window: &mut Window<'_, R>) -> io::Result<Option<Superblock>> {
    let Some(header) = window.block(0, 512)?.filter(|header| header.has(0, b"LUKS\xba\xbe")) else {
        return Ok(None);
    };
    let uuid = header.text(168, 40);
    Ok(match header.be16(6) {
        1 => Some(Superblock { uuid, ..Superblock::new(Content::Luks1) }),
        2 if header.be64(256) == 0 => {
            Some(Superblock { uuid, label: header.text(24, 48), ..Superblock::new(Content::Luks2) })
        }
        _ => None,
    })
}

/// The superblock of a dm-verity hash device.
pub(super) fn verity<R: Read + Seek>(window: &mut Window<'_, R>) -> io::Result<Option<Superblock>> {
    let sb = window.block(0, 512)?.filter(|sb| sb.has(0, b"verity\0\0") && sb.le32(8) == 1);
    Ok(sb.map(|sb| Superblock { uuid: sb.uuid(16), ..Superblock::new(Content::VerityHash) }))
}

/// The superblock of a dm-integrity device.
pub(super) fn integrity<R: Read + Seek>(window: &mut Window<'_, R>) -> io::Result<Option<Superblock>> {
    let sb = window.block(0, 512)?.filter(|sb| sb.has(0, b"integrt\0") && sb.u8(8) != 0);
    Ok(sb.map(|_| Superblock::new(Content::Integrity)))
}
