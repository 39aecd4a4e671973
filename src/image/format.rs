//! Which format an image file has, by its own first bytes. The user's `--format` wins; qemu never guesses, because a
//! raw disk whose guest wrote a qcow2 header into it would then read any file of the host (CVE-2010-3851).

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The formats guestseal works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Format {
    Qcow2,
    Raw,
    Vmdk,
    Vdi,
    Vhdx,
}

/// How many bytes of the file [`detect`] wants.
pub const HEAD_BYTES: usize = 4096;

impl Format {
    /// Whether its header can name a backing file.
    pub fn may_have_backing(self) -> bool {
        matches!(self, Self::Qcow2 | Self::Vmdk)
    }

    /// qemu's name of the driver.
    pub fn driver(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
            Self::Vhdx => "vhdx",
        }
    }
}

/// Tells the format from the head of the file. Whatever has no known head is raw.
///
/// # Errors
/// For formats that are known and not supported, and for a vmdk that is only a description of other files.
pub fn detect(head: &[u8]) -> Result<Format> {
    let starts = |magic: &[u8]| head.starts_with(magic);
    if starts(b"QFI\xfb") {
        return match head.get(4..8) {
            Some([0, 0, 0, 2 | 3]) => Ok(Format::Qcow2),
            _ => Err(unsupported("a qcow image of an unknown version")),
        };
    }
    if starts(b"KDMV") {
        return Ok(Format::Vmdk);
    }
    if starts(b"# Disk DescriptorFile") {
        return Err(unsupported("a vmdk that only describes other files"));
    }
    if head.get(64..68) == Some(&[0x7f, 0x10, 0xda, 0xbe]) {
        return Ok(Format::Vdi);
    }
    if starts(b"vhdxfile") {
        return Ok(Format::Vhdx);
    }
    for (magic, name) in [
        (&b"QED\0"[..], "a QED image"),
        (b"COWD", "a vmdk of the old COWD kind"),
        (b"conectix", "a VHD (vpc) image"),
        (b"LUKS\xba\xbe", "a LUKS container around the whole image"),
        (b"WithoutFreeSpace", "a Parallels image"),
        (b"WithouFreSpacExt", "a Parallels image"),
    ] {
        if starts(magic) {
            return Err(unsupported(name));
        }
    }
    Ok(Format::Raw)
}

fn unsupported(what: &str) -> Error {
    Error::unsupported(format!("the image is {what}, which guestseal does not work on")).hint(
        "convert it first: qemu-img convert -O qcow2 OLD NEW.qcow2; if it really is raw, say --format raw",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_tell_formats_and_the_rest_is_raw() {
        assert_eq!(detect(b"QFI\xfb\0\0\0\x03").unwrap(), Format::Qcow2);
        assert!(detect(b"QFI\xfb\0\0\0\x01").is_err());
        assert_eq!(detect(b"KDMV").unwrap(), Format::Vmdk);
        assert_eq!(detect(b"vhdxfile").unwrap(), Format::Vhdx);
        assert_eq!(detect(&[0; 512]).unwrap(), Format::Raw);
        assert_eq!(detect(b"").unwrap(), Format::Raw);
        assert!(detect(b"# Disk DescriptorFile\nRW 63 FLAT \"/etc/shadow\" 0").is_err());
    }
}
