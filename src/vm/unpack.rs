//! Compressed kernels and modules, unpacked by the host's own tools.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Read, Seek, Write};

use crate::error::{Context, Error, Result};
use crate::sys::interrupt;
use crate::sys::tool::Tool;

/// Longest kernel or module that is unpacked, in bytes.
const LIMIT: u64 = 512 << 20;

/// How something is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    None,
    /// gzip(1).
    Gzip,
    /// xz(1).
    Xz,
    /// zstd(1).
    Zstd,
    /// lz4(1), in its older form.
    Lz4,
    /// lzma, by xz(1).
    Lzma,
    /// bzip2(1).
    Bzip2,
}

impl Packing {
    /// By the first bytes.
    pub fn of(bytes: &[u8]) -> Self {
        match bytes {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [0x02, 0x21, 0x4c, 0x18, ..] => Self::Lz4,
            [0x5d, 0, 0, ..] => Self::Lzma,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            _ => Self::None,
        }
    }

    fn command(self) -> Option<(&'static str, &'static [&'static str])> {
        match self {
            Self::None => None,
            Self::Gzip => Some(("gzip", &["-dc"])),
            Self::Xz => Some(("xz", &["-dc", "--single-stream"])),
            Self::Zstd => Some(("zstd", &["-dcq"])),
            Self::Lz4 => Some(("lz4", &["-dcq"])),
            Self::Lzma => Some(("xz", &["-dc", "--format=lzma"])),
            Self::Bzip2 => Some(("bzip2", &["-dc"])),
        }
    }
}

/// What these bytes are when unpacked; `what` names them in errors.
///
/// # Errors
/// [`crate::ErrorKind::HostLacks`] when the tool for them is missing; failed when they are damaged.
pub fn unpack(bytes: &[u8], what: &str) -> Result<Vec<u8>> {
    let failed = || format!("cannot unpack {what}");
    let Some((program, options)) = Packing::of(bytes).command() else { return Ok(bytes.to_vec()) };
    let tool = Tool::find(program).map_err(|error| error.within(failed()))?;
    let mut packed = tempfile::tempfile().context(failed)?;
    packed.write_all(bytes).and_then(|()| packed.rewind()).context(failed)?;
    let unpacked = tempfile::tempfile().context(failed)?;
    let output: File = unpacked.try_clone().context(failed)?;
    let child = tool.spawn().args(options).stdin(packed).stdout(output).spawn()?;
    interrupt::until_readable(child.pidfd())?;
    child.wait()?.success().map_err(|error| error.within(failed()))?;
    let mut bytes = Vec::new();
    let mut unpacked = unpacked;
    unpacked.rewind().and_then(|()| unpacked.take(LIMIT).read_to_end(&mut bytes)).context(failed)?;
    if bytes.len() as u64 == LIMIT {
        return Err(Error::failed(format!("{what} is too long when unpacked")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn what_the_tools_packed_is_unpacked() {
        for program in ["gzip", "xz", "zstd", "bzip2"] {
            let Ok(tool) = Tool::find(program) else {
                eprintln!("SKIPPED: what_the_tools_packed_is_unpacked: no {program}");
                continue;
            };
            let mut plain = tempfile::tempfile().unwrap();
            plain.write_all(&[b'x'; 5000]).unwrap();
            plain.rewind().unwrap();
            let (exit, packed) = tool.spawn().arg("-c").stdin(plain).output(1 << 16).unwrap();
            exit.success().unwrap();
            assert_ne!(Packing::of(&packed), Packing::None);
            assert_eq!(unpack(&packed, "it").unwrap(), [b'x'; 5000], "{program}");
            let error = unpack(&packed[..packed.len() / 2], "half of it").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Failed);
            assert!(error.chain().contains("cannot unpack half of it"), "{error:?}");
        }
        assert_eq!(unpack(b"\x7fELF", "it").unwrap(), b"\x7fELF");
    }
}
