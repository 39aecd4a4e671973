//! The archive that the kernel unpacks as its first root folder: cpio in the form "newc"
//! (Documentation/driver-api/early-userspace/buffer-format.rst), made here and read in [`read`]. Pure.

#![forbid(unsafe_code)]

pub mod read;

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const FILE: u32 = 0o100_000;
const FOLDER: u32 = 0o040_000;
const LINK: u32 = 0o120_000;
const END: &str = "TRAILER!!!";

/// An archive in the making. Folders above an entry are made as they are needed.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    names: BTreeSet<PathBuf>,
    entries: u32,
}

impl Archive {
    /// Adds a file that all may read, and execute when `executable`. What is there already stays as it is.
    ///
    /// # Errors
    /// When it is 4 GiB or longer, or its name is.
    pub fn file(&mut self, path: &Path, executable: bool, content: &[u8]) -> Result<()> {
        let mode = if executable { 0o755 } else { 0o644 };
        self.add(path, FILE | mode, content)
    }

    /// Adds a folder.
    ///
    /// # Errors
    /// As [`Archive::file`].
    pub fn folder(&mut self, path: &Path) -> Result<()> {
        self.add(path, FOLDER | 0o755, &[])
    }

    /// Adds a file over one of the archives before, with its owner and mode; the folders above it are there.
    ///
    /// # Errors
    /// As [`Archive::file`].
    pub fn over(&mut self, old: &read::Entry, content: &[u8]) -> Result<()> {
        self.entry(&old.path, (old.mode, old.uid, old.gid), content)
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// As [`Archive::file`].
    pub fn link(&mut self, path: &Path, target: &Path) -> Result<()> {
        self.add(path, LINK | 0o777, target.as_os_str().as_bytes())
    }

    /// Whether something of this name is in it.
    pub fn has(&self, path: &Path) -> bool {
        self.names.contains(path.strip_prefix("/").unwrap_or(path))
    }

    /// The whole archive.
    ///
    /// # Errors
    /// As [`Archive::file`].
    pub fn finish(mut self) -> Result<Vec<u8>> {
        self.entry(Path::new(END), (0, 0, 0), &[])?;
        Ok(self.bytes)
    }

    fn add(&mut self, path: &Path, mode: u32, content: &[u8]) -> Result<()> {
        let path = path.strip_prefix("/").unwrap_or(path);
        if path.as_os_str().is_empty() || self.names.contains(path) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.folder(parent)?;
        }
        self.names.insert(path.to_path_buf());
        self.entry(path, (mode, 0, 0), content)
    }

    fn entry(&mut self, path: &Path, (mode, uid, gid): (u32, u32, u32), content: &[u8]) -> Result<()> {
        let too_long = |_| Error::failed(format!("{} is too long for an archive", path.display()));
        let name = path.as_os_str().as_bytes();
        let length = u32::try_from(content.len()).map_err(too_long)?;
        let name_length = u32::try_from(name.len() + 1).map_err(too_long)?;
        self.entries += 1;
        // Inode, mode, owner, group, links, time, length, device (2), its own device (2), name's length, checksum.
        let numbers = [self.entries, mode, uid, gid, 1, 0, length, 0, 0, 0, 0, name_length, 0];
        self.bytes.extend(b"070701");
        numbers.iter().for_each(|number| self.bytes.extend(format!("{number:08x}").as_bytes()));
        self.bytes.extend(name);
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;
    use crate::sys::child::Spawn;
    use crate::sys::tool::Tool;

    #[test]
    fn the_systems_cpio_unpacks_what_was_packed() {
        let Ok(cpio) = Tool::find("cpio") else {
            eprintln!("SKIPPED: the_systems_cpio_unpacks_what_was_packed: no cpio");
            return;
        };
        let mut archive = Archive::default();
        archive.file(Path::new("/a/b/program"), true, b"12345").unwrap();
        archive.file(Path::new("/a/data"), false, &[7; 4096]).unwrap();
        archive.link(Path::new("/a/link"), Path::new("b/program")).unwrap();
        archive.file(Path::new("/a/data"), false, b"once").unwrap();
        assert!(archive.has(Path::new("/a/b")) && !archive.has(Path::new("/a/c")));
        let mut packed = tempfile::tempfile().unwrap();
        packed.write_all(&archive.finish().unwrap()).unwrap();
        std::io::Seek::rewind(&mut packed).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let unpack: Spawn = cpio.spawn().args(["-i", "--quiet"]).folder(folder.path()).stdin(packed);
        unpack.output(1 << 16).unwrap().0.success().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert_eq!(fs::read(at("a/link")).unwrap(), b"12345");
        assert_eq!(fs::read(at("a/data")).unwrap(), [7; 4096]);
        assert_eq!(fs::metadata(at("a/b/program")).unwrap().permissions().mode() & 0o777, 0o755);
    }

    /// What the kernel does with an archive (init/initramfs.c).
    fn unpack(mut bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        loop {
            let number = |place: usize| {
                let digits = std::str::from_utf8(&bytes[6 + place * 8..14 + place * 8]).unwrap();
                usize::from_str_radix(digits, 16).unwrap()
            };
            assert_eq!(&bytes[..6], b"070701");
            let (length, name_length) = (number(6), number(11));
            let name = String::from_utf8(bytes[110..109 + name_length].to_vec()).unwrap();
            let start = (110 + name_length).next_multiple_of(4);
            if name == END {
                return found;
            }
            found.push((name, bytes[start..start + length].to_vec()));
            bytes = &bytes[(start + length).next_multiple_of(4)..];
        }
    }

    proptest! {
        #[test]
        fn what_was_packed_is_found(files in prop::collection::btree_map("[a-z]{1,9}", prop::collection::vec(any::<u8>(), 0..99), 0..9)) {
            let mut archive = Archive::default();
            for (name, content) in &files {
                archive.file(Path::new(name), false, content).unwrap();
            }
            prop_assert_eq!(unpack(&archive.finish().unwrap()), files.into_iter().collect::<Vec<_>>());
        }
    }
}
