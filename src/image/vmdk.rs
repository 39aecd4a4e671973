//! The head of a sparse vmdk, read with suspicion: its description is text that can name any file of the host, and qemu
//! opens what it names. By VMware's "Virtual Disk Format 5.0" and qemu's block/vmdk.c.

use std::io::{Read, Seek, SeekFrom};

use crate::disk::number::le64;
use crate::error::{Error, Result};

const SECTOR: u64 = 512;
/// More text than qemu itself reads of a description.
const DESCRIPTION_MAX: u64 = 1 << 20;

/// Checks that the whole disk is in this one file. `head` is its beginning.
///
/// # Errors
/// When the disk is in other files too, has a parent, cannot be written although it shall, or when it cannot be told.
pub fn check<R: Read + Seek>(mut file: R, head: &[u8], will_write: bool) -> Result<()> {
    let word = |at| le64(head, at);
    if !head.starts_with(b"KDMV") {
        return Err(unsupported("no vmdk of one sparse file"));
    }
    // Without a length qemu takes the description for the disk, and opens every file that it names.
    if word(12) == 0 {
        return Err(unsupported("a vmdk without a length, whose data would be in other files"));
    }
    let (offset, length) = (word(28).saturating_mul(SECTOR), word(36).saturating_mul(SECTOR));
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(offset))
        .and_then(|_| file.take(length.min(DESCRIPTION_MAX)).read_to_end(&mut text))
        .map_err(|error| unsupported("a vmdk whose description is nowhere").caused_by(error))?;
    check_description(&String::from_utf8_lossy(&text), will_write)
}

/// What matters of the embedded description. qemu takes the first of each key wherever it stands, in a comment too: so
/// there may be one only.
fn check_description(description: &str, will_write: bool) -> Result<()> {
    for key in ["createType", "parentCID"] {
        if description.matches(key).count() > 1 {
            return Err(unsupported(&format!("a vmdk whose description says twice what its {key} is")));
        }
    }
    if description.contains("parentFileNameHint") {
        return Err(unsupported("a vmdk with a parent"));
    }
    let value = |key: &str| {
        description
            .lines()
            .find_map(|line| line.trim().strip_prefix(key)?.trim_start().strip_prefix('='))
            .map(|value| value.trim().trim_matches('"').to_owned())
    };
    let kind = value("createType").unwrap_or_default();
    match kind.as_str() {
        "monolithicSparse" => {}
        "streamOptimized" if !will_write => {}
        "streamOptimized" => {
            return Err(Error::unsupported("a stream-optimized vmdk cannot be written in place")
                .hint("write a new file: --output NEW"));
        }
        _ => return Err(unsupported(&format!("a vmdk of the kind {kind:?}, whose data is in other files"))),
    }
    if value("parentCID").is_some_and(|id| !id.eq_ignore_ascii_case("ffffffff")) {
        return Err(unsupported("a vmdk with a parent"));
    }
    Ok(())
}

fn unsupported(what: &str) -> Error {
    Error::unsupported(format!("the image is {what}, which guestseal does not work on"))
        .hint("convert it first, where you trust it: qemu-img convert -O qcow2 OLD NEW.qcow2")
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    fn vmdk(capacity: u64, description: &str) -> Vec<u8> {
        let mut bytes = b"KDMV\x01\0\0\0\x03\0\0\0".to_vec();
        [capacity, 128, 1, 20].iter().for_each(|word| bytes.extend(word.to_le_bytes()));
        bytes.resize(512, 0);
        bytes.extend(description.as_bytes());
        bytes
    }

    fn is_refused(capacity: u64, description: &str, will_write: bool) -> bool {
        let bytes = vmdk(capacity, description);
        check(Cursor::new(&bytes), &bytes, will_write).is_err()
    }

    #[test]
    fn one_file_is_taken() {
        let good =
            "# Disk DescriptorFile\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\nRW 8 SPARSE \"x\"\n";
        assert!(!is_refused(8, good, true));
        assert!(!is_refused(8, &good.replace("monolithicSparse", "streamOptimized"), false));
        assert!(is_refused(8, &good.replace("monolithicSparse", "streamOptimized"), true));
    }

    #[test]
    fn a_vmdk_that_names_other_files_is_refused() {
        let good = "createType=\"monolithicSparse\"\nRW 8 FLAT \"/etc/shadow\" 0\n";
        assert!(is_refused(0, good, false), "qemu would open /etc/shadow");
        assert!(is_refused(8, &format!("#createType=\"monolithicFlat\"\n{good}"), false));
        assert!(is_refused(8, "createType=\"monolithicFlat\"\n", false));
        assert!(is_refused(8, "createType=\"monolithicSparse\"\nparentCID=12345678\n", false));
        assert!(is_refused(8, &format!("{good}parentFileNameHint=\"/etc/shadow\"\n"), false));
        assert!(is_refused(8, "", false));
        let text = b"# Disk DescriptorFile\ncreateType=\"monolithicSparse\"\n";
        assert!(check(Cursor::new(text), text, false).is_err(), "whatever --format says");
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let bytes = [b"KDMV".to_vec(), bytes].concat();
            let _ = check(Cursor::new(&bytes), &bytes, true);
        }
    }
}
