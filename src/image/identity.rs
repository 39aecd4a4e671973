//! Which file a journal is about: what tells an image from every other file, and from itself with another content.

#![forbid(unsafe_code)]

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::format::Format;
use super::qcow2;
use crate::error::{Context, Error, Result};
use crate::sys::device;

/// How much of a raw image's beginning is looked at: partition tables, boot loaders, superblocks.
const RAW_HEADER: u64 = 1 << 20;

/// What changes when anybody writes to a file. Of a block device the length alone: the times of its node are udev's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Stamp {
    /// Time of the last change of its content, whole seconds since 1970.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanoseconds: i64,
    /// Length in bytes.
    pub bytes: u64,
}

impl Stamp {
    /// Of an open file.
    ///
    /// # Errors
    /// When it cannot be examined.
    pub fn of(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if metadata.file_type().is_block_device() {
            let bytes = (&mut &*file).seek(SeekFrom::End(0))?;
            return Ok(Self { seconds: 0, nanoseconds: 0, bytes });
        }
        Ok(Self { seconds: metadata.mtime(), nanoseconds: metadata.mtime_nsec(), bytes: metadata.len() })
    }
}

/// A file as the kernel tells it from others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Identity {
    /// The device it is on, or that it is; valid for one boot of the host only.
    pub device: u64,
    /// Its number on that device; 0 for a block device.
    pub inode: u64,
    /// The boot of the host in which the device number holds.
    pub boot: String,
    /// Of a block device, what it is beyond that boot ([`device::unit`]); none where nothing says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

impl Identity {
    /// Of an open file.
    ///
    /// # Errors
    /// When it cannot be examined.
    pub fn of(file: &File) -> Result<Self> {
        Self::by(&file.metadata().context(|| "cannot examine a file")?)
    }

    /// Of a file that need not be open.
    ///
    /// # Errors
    /// When this boot of the host cannot be told.
    pub(super) fn by(metadata: &Metadata) -> Result<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .context(|| "cannot tell this boot of the host from others")?;
        let (device, inode, unit) = match metadata.file_type().is_block_device() {
            true => (metadata.rdev(), 0, device::unit(metadata.rdev())),
            false => (metadata.dev(), metadata.ino(), None),
        };
        Ok(Self { device, inode, boot: boot.trim().into(), unit })
    }

    /// Whether both are the same file. Device numbers may differ after a boot of the host, and a block device of one
    /// number may be another by then, or in the same boot when it was detached: it is what its unit says.
    pub fn is(&self, other: &Self) -> bool {
        match (&self.unit, &other.unit) {
            (Some(own), Some(other)) => own == other,
            (None, None) if self.inode == 0 => self.device == other.device && self.boot == other.boot,
            (None, None) => {
                self.inode == other.inode && (self.device == other.device || self.boot != other.boot)
            }
            _ => false,
        }
    }

    /// A number that no file beside this one has, by which its overlay is known.
    pub fn mark(&self) -> u64 {
        let Some(unit) = &self.unit else { return self.inode };
        let digest = Sha256::digest(unit);
        digest.iter().take(8).fold(0, |mark, byte| mark << 8 | u64::from(*byte))
    }
}

/// An image as its journal knows it, before and during the commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ImageIdentity {
    /// The file.
    pub file: Identity,
    /// Its length in bytes before the commit, which may make it longer.
    pub bytes: u64,
    /// The sha256 of what no commit changes at its beginning, hexadecimal.
    pub header: String,
    /// How the commit makes the disk in it longer, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grows: Option<Growing>,
}

/// The length of an image's disk in bytes, which a commit changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Growing {
    /// Before.
    pub from: u64,
    /// After.
    pub to: u64,
}

impl ImageIdentity {
    /// Of an open image over which `overlay` lies.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn of(image: &File, format: Format, (overlay, grows): (&File, Option<Growing>)) -> Result<Self> {
        let bytes = (&mut &*image).seek(SeekFrom::End(0)).context(|| "cannot measure the image")?;
        let header =
            header_digest(image, format, (overlay, grows)).context(|| "cannot read the image's header")?;
        Ok(Self { file: Identity::of(image)?, bytes, header, grows })
    }

    /// Checks that `now`, which may be partly written, is the image that this was taken of.
    ///
    /// # Errors
    /// When it is not; the sentence says by what.
    pub fn check(&self, now: &Self) -> Result<()> {
        let differs =
            |what: &str| Err(Error::failed(format!("it was made for another image: {what} differs")));
        if !self.file.is(&now.file) {
            return differs("the file");
        }
        if now.bytes < self.bytes {
            return differs("the length");
        }
        if now.header != self.header {
            return differs("the header");
        }
        Ok(())
    }
}

fn header_digest(image: &File, format: Format, (overlay, grows): (&File, Option<Growing>)) -> Result<String> {
    let mut hash = Sha256::new();
    for (from, to) in fixed_ranges(format, overlay)? {
        let mut bytes = Vec::new();
        let mut reader = image;
        reader.seek(SeekFrom::Start(from)).context(|| "cannot read it")?;
        reader.take(to - from).read_to_end(&mut bytes).context(|| "cannot read it")?;
        if let Some(grows) = grows.filter(|_| (format, from) == (Format::Qcow2, QCOW2_SIZE.0)) {
            as_before(&mut bytes, grows);
        }
        hash.update(from.to_le_bytes());
        hash.update(&bytes);
    }
    Ok(hexadecimal(&hash.finalize()))
}

/// The part of a qcow2 header that begins with its cluster bits and its length, and where that length is in it.
const QCOW2_SIZE: (u64, usize) = (20, 4);

/// Of a commit that was interrupted, the length may be the new one already; any other is that of another image.
fn as_before(bytes: &mut [u8], grows: Growing) {
    if let Some(length) =
        bytes.get_mut(QCOW2_SIZE.1..QCOW2_SIZE.1 + 8).filter(|length| **length == grows.to.to_be_bytes())
    {
        length.copy_from_slice(&grows.from.to_be_bytes());
    }
}

/// A digest as lower-case hexadecimal digits.
pub(crate) fn hexadecimal(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The parts of an image's beginning that writing to its disk never changes: by docs/interop/qcow2.rst of qemu, the
/// VMDK 5.0 and VHDX 1.00 specifications and block/vdi.c of qemu; of a raw image, what the overlay does not hold.
fn fixed_ranges(format: Format, overlay: &File) -> Result<Vec<(u64, u64)>> {
    Ok(match format {
        Format::Qcow2 => vec![(0, 8), (QCOW2_SIZE.0, 36)],
        Format::Vmdk => vec![(0, 72)],
        Format::Vdi => vec![(0, 0x184), (0x188, 0x198)],
        Format::Vhdx => vec![(0, 520), (192 << 10, (192 << 10) + 80)],
        Format::Raw => {
            let held = qcow2::held_clusters(&mut &*overlay, RAW_HEADER / qcow2::CLUSTER)?;
            let clusters = (0..).zip(held).filter(|(_, held)| !held);
            clusters
                .map(|(index, _): (u64, _)| (index * qcow2::CLUSTER, (index + 1) * qcow2::CLUSTER))
                .collect()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::qcow2_write::Thin;
    use std::collections::BTreeMap;
    use std::io::Write;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    fn overlay() -> File {
        let mut file = tempfile::tempfile().unwrap();
        let thin = Thin {
            virtual_bytes: 4 << 20,
            backing_file: "/x",
            backing_format: "raw",
            mark: Some(0),
            template: None,
        };
        thin.write(&mut file, &BTreeMap::new()).unwrap();
        file
    }

    #[test]
    fn another_beginning_or_file_is_another_image() {
        let (image, overlay) = (file(&[7; 2 << 20]), overlay());
        let known = ImageIdentity::of(&image, Format::Raw, (&overlay, None)).unwrap();
        known.check(&ImageIdentity::of(&image, Format::Raw, (&overlay, None)).unwrap()).unwrap();
        let other = ImageIdentity::of(&file(&[7; 2 << 20]), Format::Raw, (&overlay, None)).unwrap();
        assert!(known.check(&other).unwrap_err().chain().contains("the file differs"));
        (&image).seek(SeekFrom::Start(512)).unwrap();
        (&image).write_all(&[8]).unwrap();
        let changed = ImageIdentity::of(&image, Format::Raw, (&overlay, None)).unwrap();
        assert!(known.check(&changed).unwrap_err().chain().contains("the header differs"));
        image.set_len(1 << 20).unwrap();
        let shorter = ImageIdentity::of(&image, Format::Raw, (&overlay, None)).unwrap();
        assert!(known.check(&shorter).unwrap_err().chain().contains("the length differs"));
    }

    #[test]
    fn an_image_that_grows_is_the_same_with_both_lengths() {
        let header = |bytes: u64| {
            let mut head =
                [&[b'Q', b'F', b'I', 0xfb, 0, 0, 0, 3][..], &[0; 12], &16u32.to_be_bytes()].concat();
            head.extend(bytes.to_be_bytes());
            head.resize(512, 0);
            head
        };
        let (image, overlay) = (file(&header(1 << 30)), overlay());
        let grows = Some(Growing { from: 1 << 30, to: 3 << 30 });
        let now = |image: &File| ImageIdentity::of(image, Format::Qcow2, (&overlay, grows)).unwrap();
        let known = now(&image);
        for (bytes, same) in [(3u64 << 30, true), (2 << 30, false), (1 << 30, true)] {
            (&image).seek(SeekFrom::Start(0)).unwrap();
            (&image).write_all(&header(bytes)).unwrap();
            assert_eq!(known.check(&now(&image)).is_ok(), same, "{bytes}");
        }
    }

    #[test]
    fn device_numbers_hold_for_one_boot() {
        let known = Identity { device: 1, inode: 2, boot: "a".into(), unit: None };
        assert!(!known.is(&Identity { device: 3, ..known.clone() }));
        assert!(known.is(&Identity { device: 3, inode: 2, boot: "b".into(), unit: None }));
        assert!(!known.is(&Identity { device: 1, inode: 3, boot: "b".into(), unit: None }));
    }

    #[test]
    fn a_block_device_is_what_it_is_made_of_whatever_its_number() {
        let device = |device, boot: &str, unit: Option<&str>| Identity {
            device,
            inode: 0,
            boot: boot.into(),
            unit: unit.map(str::to_owned),
        };
        let known = device(7, "a", Some("loop x"));
        assert!(known.is(&device(9, "b", Some("loop x"))));
        assert!(!known.is(&device(7, "a", Some("loop y"))));
        assert!(!known.is(&device(7, "a", None)));
        assert!(known.mark() != 0 && known.mark() != device(7, "a", Some("loop y")).mark());
        assert!(device(7, "a", None).is(&device(7, "a", None)));
        assert!(!device(7, "a", None).is(&device(7, "b", None)));
    }
}
