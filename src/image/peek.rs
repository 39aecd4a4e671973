//! Single bytes of an image's disk, without qemu: where the file has them as they are.

#![forbid(unsafe_code)]

use std::io::{Read, Seek};

use super::format::Format;
use super::info::Image;
use super::qcow2_geometry::{Geometry, Located, read_at};
use crate::error::{Context, Result};

impl Image {
    /// Reads bytes of the disk. None where qemu alone can: compressed ones, those of backing files, other formats.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn peek(&self, at: u64, length: u64) -> Result<Option<Vec<u8>>> {
        if !self.chain.is_empty() || at.checked_add(length).is_none_or(|end| end > self.virtual_bytes) {
            return Ok(None);
        }
        peek(&mut self.lock.file(), self.format, at, length)
            .map_err(|error| error.within(format!("cannot read {}", self.path.display())))
    }
}

fn peek<R: Read + Seek>(file: &mut R, format: Format, at: u64, length: u64) -> Result<Option<Vec<u8>>> {
    match format {
        Format::Raw => read_at(file, at, length).context(|| "cannot read the image").map(Some),
        Format::Qcow2 => from_qcow2(file, at, length),
        Format::Vmdk | Format::Vdi | Format::Vhdx => Ok(None),
    }
}

fn from_qcow2<R: Read + Seek>(file: &mut R, at: u64, length: u64) -> Result<Option<Vec<u8>>> {
    let geometry = Geometry::read(file)?;
    let (mut from, end, mut bytes) = (at, at + length, Vec::new());
    while from < end {
        let next = (from - from % geometry.cluster() + geometry.cluster()).min(end);
        match geometry.locate(file, from)? {
            Located::At(place) => {
                bytes.extend(read_at(file, place, next - from).context(|| "cannot read the image")?);
            }
            Located::Zeros | Located::Nowhere => {
                bytes.resize(bytes.len() + usize::try_from(next - from).unwrap_or_default(), 0);
            }
            Located::Otherwise => return Ok(None),
        }
        from = next;
    }
    Ok(Some(bytes))
}

/// Where bytes of the disk of an image without backing file stand in its file, all in one piece. None when they do not
/// stand there as they are.
///
/// # Errors
/// When the file cannot be read.
pub fn place_in_file<R: Read + Seek>(
    file: &mut R,
    format: Format,
    at: u64,
    length: u64,
) -> Result<Option<u64>> {
    match format {
        Format::Raw => Ok(Some(at)),
        Format::Qcow2 => {
            let geometry = Geometry::read(file)?;
            if at % geometry.cluster() + length > geometry.cluster() {
                return Ok(None);
            }
            Ok(match geometry.locate(file, at)? {
                Located::At(place) => Some(place),
                _ => None,
            })
        }
        Format::Vmdk | Format::Vdi | Format::Vhdx => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::qcow2_write::Thin;
    use std::collections::BTreeMap;
    use std::io::Cursor;

    const CLUSTER: u64 = 65536;

    fn image() -> Cursor<Vec<u8>> {
        let mut file = Cursor::new(Vec::new());
        let thin = Thin {
            virtual_bytes: 1 << 30,
            backing_file: "/x",
            backing_format: "raw",
            mark: None,
            template: None,
        };
        thin.write(&mut file, &BTreeMap::from([(3, vec![3; 65536]), (9000, vec![9; 65536])])).unwrap();
        file
    }

    #[test]
    fn what_crosses_clusters_is_put_together() {
        let read = peek(&mut image(), Format::Qcow2, 3 * CLUSTER - 1, CLUSTER + 2).unwrap().unwrap();
        assert_eq!((read[0], read[1], read[65536], read[65537], read.len()), (0, 3, 3, 0, 65538));
        let read = peek(&mut image(), Format::Qcow2, 9000 * CLUSTER, 4).unwrap();
        assert_eq!(read, Some(vec![9; 4]));
    }

    #[test]
    fn what_is_not_in_one_piece_has_no_place() {
        let place = |at, length| place_in_file(&mut image(), Format::Qcow2, at, length).unwrap();
        let there = place(9000 * CLUSTER + 512, 512).unwrap();
        let at = usize::try_from(there).unwrap();
        assert_eq!(image().into_inner()[at..at + 4], [9; 4]);
        assert_eq!(place(9000 * CLUSTER - 1, 2), None);
        assert_eq!(place(9001 * CLUSTER - 1, 2), None);
        assert_eq!(place(0, 512), None);
    }
}
