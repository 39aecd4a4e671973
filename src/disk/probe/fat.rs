//! FAT12, FAT16 and FAT32, which `blkid` and the kernel call vfat. The BIOS parameter block is the one of Microsoft's
//! "FAT32 File System Specification" (fatgen103).

use std::io::{self, Read, Seek};

use super::windows;
use crate::disk::bytes::{Block, Window};
use crate::disk::content::{Content, FsState, Superblock};

const LEN: u32 = 512;
/// Bytes of a root folder that are searched for the label, which is nearly always its first entry.
const MAX_ROOT: u64 = 2 << 20;
const MAX_CLUSTERS: u32 = 100;
const ENTRY: usize = 32;
const DELETED: u8 = 0xe5;
const CHUNK: u32 = 4096;

const FAT12_MAX: u32 = 0xff4;
const FAT16_MAX: u32 = 0xfff4;
const FAT32_MAX: u32 = 0x0fff_fff6;

/// The state byte of the boot sector: bit 0 is set while Linux has it mounted for writing, bit 1 asks for a surface
/// test.
const DIRTY: u8 = 0x3;

/// What the boot sector says of where everything is; lengths in bytes or sectors as named.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    /// Bytes of a sector.
    pub(crate) sector: u32,
    /// Bytes of a cluster.
    pub(crate) cluster: u32,
    /// Sectors before the first file allocation table.
    pub(crate) reserved: u32,
    /// Sectors of one file allocation table.
    pub(crate) table: u32,
    /// Sectors that all file allocation tables take together.
    pub(crate) tables: u32,
    /// Entries of the root folder of FAT12 and FAT16.
    pub(crate) root_entries: u32,
    /// Sectors of the whole filesystem.
    pub(crate) sectors: u32,
    /// How many clusters there are.
    pub(crate) clusters: u32,
    /// Bits of an entry of the table: 12, 16 or 32.
    pub(crate) bits: u32,
    fat32: bool,
}

/// The geometry in a boot sector; none when it cannot be one of FAT.
pub(crate) fn geometry_of(boot: &[u8]) -> Option<Geometry> {
    geometry(&Block::from(boot))
}

pub(super) fn vfat<R: Read + Seek>(window: &mut Window<'_, R>) -> io::Result<Option<Superblock>> {
    let Some(boot) = window.block(0, LEN)? else {
        return Ok(None);
    };
    let Some(geometry) = geometry(&boot) else {
        return Ok(None);
    };
    if windows::bitlocker(window)?.is_some() || !has_sane_fsinfo(window, &boot, &geometry)? {
        return Ok(None);
    }
    // FAT32 moved what follows the parameter block by 28 bytes.
    let extended = if geometry.fat32 { 0x40 } else { 0x24 };
    let has_serial = geometry.fat32 || matches!(boot.u8(extended + 2), 0x28 | 0x29);
    let label = match geometry.fat32 {
        true => label_of_chain(window, &boot, &geometry)?,
        false => {
            let root = u64::from(geometry.reserved) + u64::from(geometry.tables);
            let length = u64::from(geometry.root_entries) * ENTRY as u64;
            label_in(window, root * u64::from(geometry.sector), length)?.found()
        }
    };
    Ok(Some(Superblock {
        uuid: has_serial.then(|| serial(boot.bytes(extended + 3))),
        label,
        block_size: Some(geometry.sector),
        total_bytes: Some(u64::from(geometry.sector) * u64::from(geometry.sectors)),
        state: if boot.u8(extended + 1) & DIRTY == 0 { FsState::Clean } else { FsState::Errors },
        ..Superblock::new(Content::Vfat)
    }))
}

/// The serial number as `blkid` and fstab write it.
pub(super) fn serial([a, b, c, d]: [u8; 4]) -> String {
    format!("{d:02X}{c:02X}-{b:02X}{a:02X}")
}

/// None when this cannot be a FAT boot sector. Sectors with a FAT name in them need no boot signature.
fn geometry(boot: &Block) -> Option<Geometry> {
    let named = boot.has(0x52, b"MSWIN")
        || boot.has(0x52, b"FAT32   ")
        || [&b"MSDOS"[..], b"FAT16   ", b"FAT12   ", b"FAT     "].iter().any(|name| boot.has(0x36, name));
    // OS/2 put a FAT-like parameter block before other filesystems.
    let foreign = boot.has(0x36, b"JFS     ") || boot.has(0x36, b"HPFS    ");
    if !named && (foreign || !boot.has(0x1fe, &[0x55, 0xaa])) {
        return None;
    }
    let (sector, per_cluster) = (u32::from(boot.le16(0x0b)), u32::from(boot.u8(0x0d)));
    let (reserved, tables) = (u32::from(boot.le16(0x0e)), u32::from(boot.u8(0x10)));
    let media = boot.u8(0x15);
    let plausible = matches!(sector, 512 | 1024 | 2048 | 4096)
        && per_cluster.is_power_of_two()
        && reserved != 0
        && tables != 0
        && (media == 0xf0 || media >= 0xf8);
    if !plausible {
        return None;
    }
    let root_entries = u32::from(boot.le16(0x11));
    let sectors = if boot.le16(0x13) == 0 { boot.le32(0x20) } else { boot.le16(0x13).into() };
    let fat32 = boot.le16(0x16) == 0 && boot.le32(0x24) != 0;
    let table: u32 = if fat32 { boot.le32(0x24) } else { boot.le16(0x16).into() };
    let tables = table.checked_mul(tables)?;
    let root = (root_entries * 32).div_ceil(sector);
    let data = sectors.checked_sub(reserved.checked_add(tables)?.checked_add(root)?)?;
    let clusters = data / per_cluster;
    let (bits, max) = match fat32 {
        true => (32, FAT32_MAX),
        false if clusters > FAT12_MAX => (16, FAT16_MAX),
        false => (12, FAT12_MAX),
    };
    let cluster = sector * per_cluster;
    (tables != 0 && clusters <= max).then_some(Geometry {
        sector,
        cluster,
        reserved,
        table,
        tables,
        root_entries,
        sectors,
        clusters,
        bits,
        fat32,
    })
}

/// FAT32 has a sector with signatures of its own, which some tools leave zero.
fn has_sane_fsinfo<R: Read + Seek>(
    window: &mut Window<'_, R>,
    boot: &Block,
    geometry: &Geometry,
) -> io::Result<bool> {
    let number = boot.le16(0x30);
    if !geometry.fat32 || number == 0 {
        return Ok(true);
    }
    let Some(info) = window.block(u64::from(number) * u64::from(geometry.sector), LEN)? else {
        return Ok(false);
    };
    let first = [&b"RRaA"[..], b"RRdA", &[0; 4]].iter().any(|magic| info.has(0, magic));
    Ok(first && (info.has(484, b"rrAa") || info.has(484, &[0; 4])))
}

/// The label of FAT32 is in a root folder that is a chain of clusters.
fn label_of_chain<R: Read + Seek>(
    window: &mut Window<'_, R>,
    boot: &Block,
    geometry: &Geometry,
) -> io::Result<Option<String>> {
    let table = u64::from(geometry.reserved) * u64::from(geometry.sector);
    let data = table + u64::from(geometry.tables) * u64::from(geometry.sector);
    let mut cluster = boot.le32(0x2c) & 0x0fff_ffff;
    let mut left = MAX_ROOT;
    for _ in 0..MAX_CLUSTERS {
        if !(2..=FAT32_MAX).contains(&cluster) || left == 0 {
            break;
        }
        let at = data + u64::from(cluster - 2) * u64::from(geometry.cluster);
        let folder = label_in(window, at, left.min(geometry.cluster.into()))?;
        if !matches!(folder, Folder::GoesOn) {
            return Ok(folder.found());
        }
        left = left.saturating_sub(geometry.cluster.into());
        match window.block(table + u64::from(cluster) * 4, 4)? {
            Some(next) => cluster = next.le32(0) & 0x0fff_ffff,
            None => break,
        }
    }
    Ok(None)
}

/// What a stretch of a folder's entries tells about the label.
enum Folder {
    Label(Option<String>),
    Ended,
    GoesOn,
}

impl Folder {
    fn found(self) -> Option<String> {
        match self {
            Self::Label(label) => label,
            Self::Ended | Self::GoesOn => None,
        }
    }
}

fn label_in<R: Read + Seek>(window: &mut Window<'_, R>, at: u64, length: u64) -> io::Result<Folder> {
    let mut done = 0;
    while done < length.min(MAX_ROOT) {
        let len = u32::try_from(length - done).map_or(CHUNK, |left| left.min(CHUNK));
        let Some(chunk) = window.block(at + done, len)? else {
            return Ok(Folder::Ended);
        };
        for entry in chunk.all().as_chunks::<ENTRY>().0 {
            match entry[0] {
                0 => return Ok(Folder::Ended),
                DELETED => {}
                _ if is_label(entry) => return Ok(Folder::Label(label_text(entry))),
                _ => {}
            }
        }
        done += u64::from(len);
    }
    Ok(Folder::GoesOn)
}

/// A volume id (0x08) that is no folder (0x10) and no long name (0x0f), and has no data.
fn is_label(entry: &[u8; ENTRY]) -> bool {
    let attributes = entry[11];
    let has_data = entry[20..22] != [0; 2] || entry[26..28] != [0; 2];
    attributes & 0x3f != 0x0f && attributes & 0x18 == 0x08 && !has_data
}

fn label_text(entry: &[u8; ENTRY]) -> Option<String> {
    let mut name = [0; 11];
    name.copy_from_slice(&entry[..11]);
    if name[0] == 0x05 {
        name[0] = DELETED; // 5 stands for this byte where it is not meant as the mark
    }
    crate::disk::bytes::text(&name)
}
