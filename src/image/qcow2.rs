//! The qcow2 header, read with suspicion. By the format's specification,
//! docs/interop/qcow2.rst of qemu.

use std::io::{Read, Seek, SeekFrom};

use crate::disk::number::{be32, be64};
use crate::error::{Context, Error, Result};

pub(super) const MAGIC: u32 = 0x5146_49fb;
/// Length of a cluster of the overlays that guestseal makes, in bytes.
pub const CLUSTER: u64 = 65536;
/// The bits of a table entry that hold an offset.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
pub(super) const EXTENSION_BACKING_FORMAT: u32 = 0xE279_2ACA;
const EXTENSION_BITMAPS: u32 = 0x2385_2875;
/// The bit of the autoclear features that says that the bitmaps are in force.
const AUTOCLEAR_BITMAPS: u64 = 1;
/// guestseal's own header extension: which image an overlay is for. Programs skip extensions that they do not know.
pub(super) const EXTENSION_MARK: u32 = 0x6773_6c31;
/// The same of a clone: which template it was made of.
pub(super) const EXTENSION_TEMPLATE: u32 = 0x6773_7431;
/// Length of the mark in bytes.
pub(super) const MARK_BYTES: usize = 8;

/// What a qcow2 header says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// Length of the disk in bytes.
    pub virtual_bytes: u64,
    /// Length of a cluster in bytes.
    pub cluster_bytes: u64,
    /// The backing file's name, as written.
    pub backing_file: Option<String>,
    /// Whether the guest's data is in another file.
    pub external_data: bool,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// How many internal snapshots it has.
    pub snapshots: u32,
    /// Whether it was not closed properly.
    pub dirty: bool,
    /// Whether qemu marked it as corrupt.
    pub corrupt: bool,
    /// Whether it has persistent bitmaps that are in force.
    pub bitmaps: bool,
    /// The backing file's format, as written.
    pub backing_format: Option<String>,
    /// The bytes of the first cluster that mean something: from, to.
    pub head: Vec<(u64, u64)>,
    /// Of an overlay that guestseal made: the inode number of its image.
    pub mark: Option<u64>,
    /// Of a clone that guestseal made: the sha256 of the record of its template.
    pub template: Option<[u8; 32]>,
}

/// Reads the header of a qcow2 image, version 2 or 3.
///
/// # Errors
/// When it cannot be read, is cut off, or says what cannot be.
pub fn read_header<R: Read + Seek>(image: &mut R) -> Result<Header> {
    let lies = |what: &str| {
        Error::failed(format!("the qcow2 header is damaged: {what}")).hint("qemu-img check tells more")
    };
    let mut bytes = [0u8; 104];
    image.seek(SeekFrom::Start(0)).context(|| "cannot read the qcow2 header")?;
    image.read_exact(&mut bytes).map_err(|error| lies("the file ends within it").caused_by(error))?;
    if be32(&bytes, 0) != MAGIC {
        return Err(lies("it does not begin like one"));
    }
    let version = be32(&bytes, 4);
    let cluster_bits = be32(&bytes, 20);
    if !(9..=21).contains(&cluster_bits) {
        return Err(lies("its cluster size is out of range"));
    }
    let incompatible = if version == 3 { be64(&bytes, 72) } else { 0 };
    if incompatible >> 5 != 0 {
        return Err(Error::unsupported("the image uses features of qcow2 that guestseal does not know")
            .hint("convert it first: qemu-img convert -O qcow2 OLD NEW.qcow2"));
    }
    let header_length = if version == 3 { u64::from(be32(&bytes, 100)) } else { 72 };
    if version == 3 && !(104..=1 << cluster_bits).contains(&header_length) {
        return Err(lies("its length is out of range"));
    }
    let mut header = Header {
        virtual_bytes: be64(&bytes, 24),
        cluster_bytes: 1 << cluster_bits,
        encrypted: be32(&bytes, 32) != 0,
        snapshots: be32(&bytes, 60),
        dirty: incompatible & 1 != 0,
        corrupt: incompatible & 2 != 0,
        external_data: incompatible & 4 != 0,
        ..Header::default()
    };
    let (name_at, name_length) = (be64(&bytes, 8), be32(&bytes, 16));
    let extensions_end = if name_at < header_length { header.cluster_bytes } else { name_at };
    if name_at != 0 {
        // 1023 is the longest name the specification allows.
        if name_length > 1023 || name_at > header.cluster_bytes {
            return Err(lies("its backing file's name is out of range"));
        }
        let name = read_at(image, name_at, name_length)
            .map_err(|error| lies("the file ends within it").caused_by(error))?;
        header.backing_file = Some(String::from_utf8_lossy(&name).into_owned());
    }
    // The type of compression stands behind the older fields: 1, zstd, goes with the feature bit and with nothing else.
    let type_at = if header_length > 104 { read_at(image, 104, 1).ok() } else { None };
    let zstd = type_at.is_some_and(|byte| byte != [0]);
    if version == 3 && zstd != (incompatible & 8 != 0) {
        return Err(lies("its type of compression makes no sense"));
    }
    let cut = |error: std::io::Error| lies("the file ends within it").caused_by(error);
    let extensions =
        extensions(image, header_length, extensions_end.min(header.cluster_bytes)).map_err(cut)?;
    let extension = |kind| extensions.found.iter().find(|found| found.0 == kind).map(|found| found.1);
    header.head = vec![(0, extensions.end), (name_at, name_at + u64::from(name_length))];
    // Without the bit a program that knows no bitmaps has written the image, and they say nothing any more.
    header.bitmaps =
        version == 3 && be64(&bytes, 88) & AUTOCLEAR_BITMAPS != 0 && extension(EXTENSION_BITMAPS).is_some();
    if let Some((at, length)) = extension(EXTENSION_BACKING_FORMAT) {
        // qemu itself takes no longer name than this.
        let name = read_at(image, at, length.min(15)).map_err(cut)?;
        header.backing_format = Some(String::from_utf8_lossy(&name).into_owned());
    }
    if let Some((at, length)) = extension(EXTENSION_MARK)
        && usize::try_from(length).is_ok_and(|length| length == MARK_BYTES)
    {
        let mark = read_at(image, at, length).map_err(cut)?;
        header.mark = Some(be64(&mark, 0));
    }
    if let Some((at, 32)) = extension(EXTENSION_TEMPLATE) {
        let digest = read_at(image, at, 32).map_err(cut)?;
        header.template = <[u8; 32]>::try_from(digest).ok();
    }
    Ok(header)
}

fn read_at<R: Read + Seek>(image: &mut R, at: u64, length: u32) -> std::io::Result<Vec<u8>> {
    image.seek(SeekFrom::Start(at))?;
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    image.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The header extensions that matter here.
struct Extensions {
    /// The first of each kind: kind, where its data begins, and the length of that.
    found: Vec<(u32, (u64, u32))>,
    /// Where their list ends.
    end: u64,
}

fn extensions<R: Read + Seek>(image: &mut R, from: u64, end: u64) -> std::io::Result<Extensions> {
    const KNOWN: [u32; 4] = [EXTENSION_BACKING_FORMAT, EXTENSION_BITMAPS, EXTENSION_MARK, EXTENSION_TEMPLATE];
    let (mut at, mut found) = (from, Vec::<(u32, (u64, u32))>::new());
    while at + 8 <= end {
        let head = read_at(image, at, 8)?;
        let (kind, length) = (be32(&head, 0), be32(&head, 4));
        if kind == 0 {
            return Ok(Extensions { found, end: at + 8 });
        }
        if KNOWN.contains(&kind) && found.iter().all(|other| other.0 != kind) {
            found.push((kind, (at + 8, length)));
        }
        at += 8 + u64::from(length).next_multiple_of(8);
    }
    Ok(Extensions { found, end: at.min(end).max(from) })
}

/// Which of the first clusters of its disk an overlay of guestseal holds itself.
///
/// # Errors
/// When it cannot be read.
pub fn held_clusters<R: Read + Seek>(overlay: &mut R, clusters: u64) -> Result<Vec<bool>> {
    let failed = || "cannot read the tables of the working overlay";
    let none = vec![false; usize::try_from(clusters.min(CLUSTER / 8)).context(failed)?];
    let l1_at = be64(&read_at(overlay, 0, 72).context(failed)?, 40);
    let l2_at = be64(&read_at(overlay, l1_at, 8).context(failed)?, 0) & OFFSET;
    if l2_at == 0 {
        return Ok(none);
    }
    let l2 = read_at(overlay, l2_at, u32::try_from(none.len() * 8).context(failed)?).context(failed)?;
    Ok(l2.chunks_exact(8).map(|entry| be64(entry, 0) != 0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    fn overlay() -> Vec<u8> {
        crate::image::qcow2_write::tests::overlay()
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let image = [&b"QFI\xfb\0\0\0\x03"[..], &bytes].concat();
            let _ = read_header(&mut Cursor::new(image));
        }

        #[test]
        fn a_spoiled_header_ends_in_an_answer(at in 0usize..400, value in any::<u8>()) {
            let mut image = overlay();
            image[at] = value;
            if read_header(&mut Cursor::new(&image)).is_ok() {
                let _ = crate::image::qcow2_tables::check(&mut Cursor::new(image));
            }
        }
    }
}
