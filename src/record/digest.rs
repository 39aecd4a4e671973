//! The sha256 of an image file. Holes of the file are hashed as the zeroes they are, without reading them.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Context, Result};
use crate::image::identity::hexadecimal;
use crate::report::{Event, Observer};
use crate::sys::holes::next_data;
use crate::sys::interrupt;

const BLOCK: usize = 1 << 20;

/// The digest of bytes, lower-case hexadecimal.
pub fn of_bytes(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

/// Hashes an open file, which `path` names for people; the result is lower-case hexadecimal.
///
/// # Errors
/// When it cannot be read.
pub fn sha256(mut file: &File, path: &Path, observer: &mut dyn Observer) -> Result<String> {
    let failed = || format!("cannot hash {}", path.display());
    // Not from its metadata: those of a block device say nothing of its length.
    let total = file.seek(SeekFrom::End(0)).context(failed)?;
    let (mut hash, mut block, zeroes) = (Sha256::new(), vec![0u8; BLOCK], vec![0u8; BLOCK]);
    let mut at = 0;
    while at < total {
        let Range { start: data, end: hole } =
            next_data(file, at, total).context(failed)?.unwrap_or(total..total);
        while at < data {
            interrupt::check().map_err(|error| error.within(failed()))?;
            let length = usize::try_from(data - at).unwrap_or(BLOCK).min(BLOCK);
            hash.update(&zeroes[..length]);
            at += length as u64;
        }
        file.seek(SeekFrom::Start(at)).context(failed)?;
        while at < hole {
            interrupt::check().map_err(|error| error.within(failed()))?;
            let length = usize::try_from(hole - at).unwrap_or(BLOCK).min(BLOCK);
            let read = file.read(&mut block[..length]).context(failed)?;
            if read == 0 {
                return Err(crate::Error::failed(format!(
                    "{} became shorter while it was hashed",
                    path.display()
                )));
            }
            hash.update(&block[..read]);
            at += read as u64;
            observer.event(Event::Progress { what: "hashing", done: at, total });
        }
    }
    Ok(hexadecimal(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Silent;
    use std::io::Write;

    #[test]
    fn a_hole_hashes_like_the_zeroes_it_is() {
        let mut sparse = tempfile::NamedTempFile::new().unwrap();
        sparse.as_file().set_len(3 << 20).unwrap();
        sparse.seek(SeekFrom::Start(2 << 20)).unwrap();
        sparse.write_all(b"data").unwrap();
        let mut full = tempfile::NamedTempFile::new().unwrap();
        let mut bytes = vec![0u8; 3 << 20];
        bytes[2 << 20..(2 << 20) + 4].copy_from_slice(b"data");
        full.write_all(&bytes).unwrap();
        let hash = |file: &tempfile::NamedTempFile| sha256(file.as_file(), file.path(), &mut Silent).unwrap();
        assert_eq!(hash(&sparse), hash(&full));
        let expected: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash(&full), expected);
    }
}
