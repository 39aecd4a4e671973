//! The serial number of a FAT, in its boot sector and the copy of it ("FAT: General Overview of On-Disk Format", BS_VolID).

#![forbid(unsafe_code)]

use std::io::{Read, Seek, SeekFrom, Write};

use crate::error::{Context, Error, Result};

const SECTOR: usize = 512;

/// Gives a volume another serial number: eight digits, `ABCD-1234`.
///
/// # Errors
/// When it cannot be read or written, or is no FAT.
pub(super) fn set_serial(device: &mut (impl Read + Write + Seek), serial: &str) -> Result<()> {
    let failed = || "cannot write the boot sector";
    let number = u32::from_str_radix(&serial.replace('-', ""), 16).context(|| "the serial number is none")?;
    let boot = sector(device, 0)?;
    let word = |at: usize| u16::from_le_bytes([boot[at], boot[at + 1]]);
    // BPB_FATSz16 is 0 on FAT32 only, whose serial number comes later, and which has a copy of the sector.
    let (place, copy) = if word(22) == 0 { (67, u64::from(word(50))) } else { (39, 0) };
    let mut at = vec![0];
    at.extend((copy != 0 && copy != 0xffff).then(|| copy * u64::from(word(11))));
    for start in at {
        let mut old = sector(device, start)?;
        // BS_BootSig: there is a serial number.
        if old[place - 1] != 0x29 || old[510..] != [0x55, 0xaa] {
            return Err(Error::failed("its boot sector has no serial number"));
        }
        old[place..place + 4].copy_from_slice(&number.to_le_bytes());
        device.seek(SeekFrom::Start(start)).context(failed)?;
        device.write_all(&old).context(failed)?;
    }
    Ok(())
}

fn sector(device: &mut (impl Read + Seek), start: u64) -> Result<[u8; SECTOR]> {
    let mut bytes = [0; SECTOR];
    device
        .seek(SeekFrom::Start(start))
        .and_then(|_| device.read_exact(&mut bytes))
        .context(|| "cannot read a boot sector")?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::disk::probe;
    use crate::sys::tool::Tool;

    #[test]
    fn what_mkfs_made_has_another_serial_number_then() {
        let Ok(mkfs) = Tool::find("mkfs.vfat") else {
            eprintln!("SKIPPED: what_mkfs_made_has_another_serial_number_then: no mkfs.vfat");
            return;
        };
        for (megabytes, bits) in [(4, "12"), (40, "16"), (80, "32")] {
            let file = tempfile::NamedTempFile::new().unwrap();
            file.as_file().set_len(megabytes << 20).unwrap();
            let made =
                mkfs.spawn().args(["-F", bits, "-i", "12345678"]).arg(file.path()).output(1 << 16).unwrap();
            made.0.success().unwrap();
            let mut device = File::options().read(true).write(true).open(file.path()).unwrap();
            set_serial(&mut device, "ABCD-0001").unwrap();
            let found = probe(&mut device, 0, megabytes << 20).unwrap().unwrap();
            assert_eq!(found.uuid.as_deref(), Some("ABCD-0001"), "FAT{bits}");
            if let Ok(fsck) = Tool::find("fsck.fat") {
                // It compares the copy of the boot sector.
                let (exit, said) = fsck.spawn().arg("-n").arg(file.path()).output(1 << 16).unwrap();
                assert!(exit.status.success(), "{}", String::from_utf8_lossy(&said));
            }
        }
    }
}
