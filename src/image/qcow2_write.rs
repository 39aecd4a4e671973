//! Thin qcow2 images as guestseal writes them: the working overlay, and the clones of a template. By the format's
//! specification, docs/interop/qcow2.rst of qemu.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::io::{Seek, SeekFrom, Write};

use super::qcow2::{
    CLUSTER, EXTENSION_BACKING_FORMAT, EXTENSION_MARK, EXTENSION_TEMPLATE, MAGIC, MARK_BYTES,
};
use super::qcow2_geometry::L1_LIMIT;
use crate::error::{Context, Error, Result};

/// The bit of a table entry that says that nothing else refers to what it names.
const COPIED: u64 = 1 << 63;
/// Clusters that one L2 table tells of.
const ENTRIES: u64 = CLUSTER / 8;
/// Clusters that one block of counts of 16 bits tells of.
const COUNTED: u64 = CLUSTER / 2;
/// Where the tables of the disk begin: behind the header, the table of counts and the only block of counts.
const TABLES: u64 = 3;

/// A thin image.
#[derive(Debug, Clone, Copy)]
pub struct Thin<'a> {
    /// Length of its disk in bytes.
    pub virtual_bytes: u64,
    /// The file below it: an absolute path, or one from the folder of the image.
    pub backing_file: &'a str,
    /// The format of that, as qemu names it.
    pub backing_format: &'a str,
    /// Of a working overlay, which has no use without a run: the inode number of its image.
    pub mark: Option<u64>,
    /// Of a clone: the sha256 of the record of its template.
    pub template: Option<[u8; 32]>,
}

impl Thin<'_> {
    /// Writes it into an empty file. `clusters` are those of its disk that it holds itself, by number, each [`CLUSTER`]
    /// bytes long.
    ///
    /// # Errors
    /// When it cannot be written, the disk is too large for a qcow2 with 64 KiB clusters (2 PiB), a name is too long, or
    /// more is held than 2 GiB.
    pub fn write<W: Write + Seek>(&self, file: &mut W, clusters: &BTreeMap<u64, Vec<u8>>) -> Result<()> {
        let l1_entries = self.virtual_bytes.div_ceil(ENTRIES * CLUSTER).max(1);
        if l1_entries * 8 > L1_LIMIT {
            let what = format!("a disk of {} bytes is too large for a thin image", self.virtual_bytes);
            return Err(
                Error::unsupported(what).hint("if that length is right, seal a copy of your own: --in-place")
            );
        }
        let mut tables: Vec<u64> = clusters.keys().map(|number| number / ENTRIES).collect();
        tables.dedup();
        let first_table = TABLES + (l1_entries * 8).div_ceil(CLUSTER);
        let first_data = first_table + tables.len() as u64;
        let all = first_data + clusters.len() as u64;
        if all > COUNTED || clusters.keys().any(|number| number * CLUSTER >= self.virtual_bytes) {
            return Err(Error::failed("more is to be held by a thin image than it can hold"));
        }
        let failed = || "cannot write a thin image";
        let mut put =
            |at: u64, bytes: &[u8]| file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(bytes));
        put(0, &self.head(l1_entries)?).context(failed)?;
        put(CLUSTER, &(2 * CLUSTER).to_be_bytes()).context(failed)?;
        let counts = [0u8, 1].repeat(usize::try_from(all).context(failed)?);
        put(2 * CLUSTER, &counts).context(failed)?;
        for (place, table) in (first_table..).zip(&tables) {
            put(TABLES * CLUSTER + table * 8, &(COPIED | (place * CLUSTER)).to_be_bytes()).context(failed)?;
        }
        for (place, (number, bytes)) in (first_data..).zip(clusters) {
            let table = tables.partition_point(|table| *table < number / ENTRIES) as u64;
            let entry = (first_table + table) * CLUSTER + number % ENTRIES * 8;
            put(entry, &(COPIED | (place * CLUSTER)).to_be_bytes()).context(failed)?;
            put(place * CLUSTER, bytes).context(failed)?;
        }
        // The tables are as long as their clusters, however little stands in them.
        if clusters.is_empty() { put(all * CLUSTER - 1, &[0]).context(failed) } else { Ok(()) }
    }

    /// The first cluster, as far as it means something.
    fn head(&self, l1_entries: u64) -> Result<Vec<u8>> {
        let (name, format) = (self.backing_file, self.backing_format);
        if name.len() > 1023 {
            return Err(Error::unsupported(
                "the image's path has more than 1023 bytes, which qcow2 cannot hold as that of a backing file",
            )
            .hint("move the image to a folder nearer to the root"));
        }
        let mut head = Vec::new();
        for word in [MAGIC, 3] {
            head.extend(word.to_be_bytes());
        }
        head.extend(0u64.to_be_bytes());
        head.extend(length32(name.len())?.to_be_bytes());
        head.extend(CLUSTER.trailing_zeros().to_be_bytes());
        head.extend(self.virtual_bytes.to_be_bytes());
        head.extend(0u32.to_be_bytes());
        head.extend(u32::try_from(l1_entries).context(|| "the L1 table is too large")?.to_be_bytes());
        head.extend((TABLES * CLUSTER).to_be_bytes());
        head.extend(CLUSTER.to_be_bytes());
        head.extend(1u32.to_be_bytes());
        head.extend([0; 4 + 8 + 24]);
        head.extend(4u32.to_be_bytes());
        head.extend(104u32.to_be_bytes());
        let mut extension = |kind: u32, bytes: &[u8]| -> Result<()> {
            head.extend(kind.to_be_bytes());
            head.extend(length32(bytes.len())?.to_be_bytes());
            head.extend(bytes);
            head.resize(head.len().next_multiple_of(8), 0);
            Ok(())
        };
        extension(EXTENSION_BACKING_FORMAT, format.as_bytes())?;
        let mark: Option<[u8; MARK_BYTES]> = self.mark.map(u64::to_be_bytes);
        mark.map_or(Ok(()), |mark| extension(EXTENSION_MARK, &mark))?;
        self.template.map_or(Ok(()), |digest| extension(EXTENSION_TEMPLATE, &digest))?;
        // Of kind 0 and length 0: the end of their list.
        extension(0, &[])?;
        let name_at = head.len() as u64;
        head[8..16].copy_from_slice(&name_at.to_be_bytes());
        head.extend(name.as_bytes());
        Ok(head)
    }
}

fn length32(length: usize) -> Result<u32> {
    u32::try_from(length).context(|| "a name is too long")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::image::format::Format;
    use crate::image::peek::place_in_file;
    use crate::image::qcow2::read_header;
    use crate::image::qcow2_tables::check;
    use proptest::prelude::*;
    use std::io::Cursor;

    const OVERLAY: Thin<'_> = Thin {
        virtual_bytes: 3 << 30,
        backing_file: "/srv/a guest.qcow2",
        backing_format: "qcow2",
        mark: Some(77),
        template: None,
    };

    pub(in crate::image) fn overlay() -> Vec<u8> {
        written(&OVERLAY, &BTreeMap::new())
    }

    fn written(thin: &Thin<'_>, clusters: &BTreeMap<u64, Vec<u8>>) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        thin.write(&mut file, clusters).unwrap();
        file.into_inner()
    }

    #[test]
    fn an_overlay_says_what_it_was_given() {
        let header = read_header(&mut Cursor::new(overlay())).unwrap();
        assert_eq!(header.virtual_bytes, 3 << 30);
        assert_eq!(header.backing_file.as_deref(), Some("/srv/a guest.qcow2"));
        assert_eq!(header.mark, Some(77));
        assert!(!header.dirty && !header.external_data && header.snapshots == 0);
    }

    #[test]
    fn a_clone_has_no_mark_of_an_overlay() {
        let clone = Thin {
            mark: None,
            template: Some([9; 32]),
            backing_file: "../templates/a.raw",
            backing_format: "raw",
            ..OVERLAY
        };
        let header = read_header(&mut Cursor::new(written(&clone, &BTreeMap::new()))).unwrap();
        assert_eq!((header.mark, header.backing_format.as_deref()), (None, Some("raw")));
        assert_eq!(header.template, Some([9; 32]));
    }

    #[test]
    fn too_large_a_disk_is_refused() {
        let large = Thin { virtual_bytes: 1 << 60, ..OVERLAY };
        assert!(large.write(&mut Cursor::new(Vec::new()), &BTreeMap::new()).is_err());
    }

    proptest! {
        #[test]
        fn whatever_it_holds_it_is_whole_and_says_where(
            numbers in proptest::collection::btree_set(0u64..(3 << 30) / CLUSTER, 0..5),
        ) {
            let bytes = |number: u64| vec![u8::try_from(number % 255).unwrap() + 1; 65536];
            let clusters: BTreeMap<_, _> = numbers.iter().map(|number| (*number, bytes(*number))).collect();
            let mut image = Cursor::new(written(&OVERLAY, &clusters));
            check(&mut image).unwrap();
            for number in &numbers {
                let place = place_in_file(&mut image, Format::Qcow2, number * CLUSTER + 7, 512).unwrap();
                let at = usize::try_from(place.unwrap()).unwrap();
                let there = &image.get_ref()[at..at + 512];
                prop_assert_eq!(there, &bytes(*number)[..512]);
            }
        }
    }
}
