//! Where an image is, and where guestseal keeps what belongs to it: beside it, or for a block device, beside which there is
//! memory only, in a folder of its own on a disk.

#![forbid(unsafe_code)]

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use sha2::{Digest, Sha256};

use super::identity::hexadecimal;
use super::nameless::folder_of;
use crate::error::{Context, Error, Result};
use crate::sys::device;

/// Where the folders of devices are when the user names no other place.
pub const WORK_DIR: &str = "/var/lib/guestseal/devices";
/// What stands for the device in its folder: its name may change, and what is found again must not.
const SEAT: &str = "disk";
/// ramfs has no number in libc (linux/magic.h).
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// What images that are no files of this host need to know of the user.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// Where the folders of devices are; [`WORK_DIR`] when none is said.
    pub work_dir: Option<PathBuf>,
    /// Variables that lead to the user's own keys: names and values.
    pub environment: Vec<(String, String)>,
}

/// An image as the user names it.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// A path, or a URI ([`super::uri`]).
    pub path: &'a Path,
    /// What it is opened with; nothing where nothing is known.
    pub surroundings: Option<&'a Surroundings>,
}

impl<'a> From<&'a Path> for Named<'a> {
    fn from(path: &'a Path) -> Self {
        Self { path, surroundings: None }
    }
}

impl<'a> From<&'a PathBuf> for Named<'a> {
    fn from(path: &'a PathBuf) -> Self {
        Self::from(path.as_path())
    }
}

/// Where an image is, and what belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The image: its canonical path, of a volume of the device mapper that by its name.
    pub path: PathBuf,
    /// What its journal, overlay and record are named after and stand beside: itself, or a name in the device's folder.
    pub seat: PathBuf,
    /// What the user said of the folders of devices.
    work_dir: Option<PathBuf>,
}

impl Place {
    /// Finds an image.
    ///
    /// # Errors
    /// When it is missing.
    pub fn find(named: Named<'_>) -> Result<Self> {
        let Named { path, surroundings } = named;
        let failed = || format!("cannot find the image {}", path.display());
        let found = path.canonicalize().context(failed)?;
        let metadata = found.metadata().context(failed)?;
        let work_dir = surroundings.and_then(|known| known.work_dir.clone());
        if !metadata.file_type().is_block_device() {
            return Ok(Self { seat: found.clone(), path: found, work_dir });
        }
        let number = metadata.rdev();
        let folders = folders(work_dir.as_deref());
        let name = device::name(number).unwrap_or_else(|| "device".into());
        // One of which nothing is known can only be read, so nothing is ever in this folder.
        let seat = match device::unit(number) {
            Some(unit) => folder_for(&folders, &name, &unit).join(SEAT),
            None => folders.join("unknown").join(SEAT),
        };
        Ok(Self { path: mapped(&name, number).unwrap_or(found), seat, work_dir })
    }

    /// Another image that is named beside this one.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn other(&self, path: &Path) -> Result<Self> {
        let known = Surroundings { work_dir: self.work_dir.clone(), ..Surroundings::default() };
        Self::find(Named { path, surroundings: Some(&known) })
    }

    /// A disk that is not on this host.
    pub fn remote(uri: &str, surroundings: Option<&Surroundings>) -> Self {
        let work_dir = surroundings.and_then(|known| known.work_dir.clone());
        let seat = folder_for(&folders(work_dir.as_deref()), "remote", uri).join(SEAT);
        Self { path: uri.into(), seat, work_dir }
    }

    /// A file that is to be made.
    pub fn new_file(path: &Path) -> Self {
        Self { path: path.into(), seat: path.into(), work_dir: None }
    }

    /// Whether what belongs to the image is not beside it.
    pub fn is_apart(&self) -> bool {
        self.seat != self.path
    }

    /// The folder for what belongs to it.
    pub fn folder(&self) -> &Path {
        folder_of(&self.seat)
    }

    /// The same, made when it is one of a device and not there yet.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make_folder(&self) -> Result<&Path> {
        let folder = self.folder();
        if self.is_apart() && !folder.is_dir() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|error| {
                Error::failed(format!("cannot make the folder {}", folder.display()))
                    .caused_by(error)
                    .hint("name one that can be written to, on a disk of this host: --work-dir DIR")
            })?;
        }
        Ok(folder)
    }

    /// Checks that what a commit leaves there when the power is cut is there afterwards.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] when it is memory.
    pub fn must_last(&self) -> Result<()> {
        if !self.is_apart() {
            return Ok(());
        }
        let folder = self.make_folder()?;
        let kind =
            statfs(folder).context(|| format!("cannot examine {}", folder.display()))?.filesystem_type();
        if kind == TMPFS_MAGIC || kind == RAMFS_MAGIC {
            let what = format!(
                "{} is memory, and must hold what finishes a commit after a power cut",
                folder.display()
            );
            return Err(Error::unsupported(what).hint("name a folder on a disk of this host: --work-dir DIR"));
        }
        Ok(())
    }

    /// The words by which `recover` finds it.
    pub fn arguments(&self) -> String {
        let work_dir = self.work_dir.iter().filter(|_| self.is_apart());
        let option: String = work_dir.map(|folder| format!("--work-dir {} ", folder.display())).collect();
        format!("{option}{}", self.path.display())
    }
}

fn folders(work_dir: Option<&Path>) -> PathBuf {
    let folders = work_dir.unwrap_or(Path::new(WORK_DIR));
    folders.canonicalize().unwrap_or_else(|_| folders.into())
}

/// The folder of a device: that which carries its identity, whatever the device was called when it was made.
fn folder_for(folders: &Path, name: &str, unit: &str) -> PathBuf {
    let digest = hexadecimal(&Sha256::digest(unit));
    let id = digest.get(..16).unwrap_or(&digest);
    let is_its = |folder: &str| folder.rsplit_once('-').is_some_and(|(_, other)| other == id);
    let names = std::fs::read_dir(folders).into_iter().flatten().flatten();
    let mut known =
        names.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| is_its(name));
    folders.join(known.next().unwrap_or_else(|| format!("{}-{id}", name.replace('/', "!"))))
}

/// The name that a volume of the device mapper keeps, where it is this device.
fn mapped(name: &str, number: u64) -> Option<PathBuf> {
    let path = Path::new("/dev/mapper").join(name);
    path.metadata().is_ok_and(|metadata| metadata.rdev() == number).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_its_things_beside_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let place = Place::find(file.path().into()).unwrap();
        assert!(!place.is_apart());
        assert_eq!(place.seat, place.path);
        place.must_last().unwrap();
        assert!(Place::find(Path::new("/no/such/image").into()).is_err());
    }

    #[test]
    fn the_folder_of_a_device_is_found_by_what_the_device_is() {
        let folders = tempfile::tempdir().unwrap();
        let first = folder_for(folders.path(), "sda", "wwid naa.5");
        std::fs::create_dir(&first).unwrap();
        assert_eq!(folder_for(folders.path(), "sdb", "wwid naa.5"), first);
        let other = folder_for(folders.path(), "sda", "wwid naa.6");
        assert_ne!(other, first);
        assert!(first.file_name().unwrap().to_str().unwrap().starts_with("sda-"));
    }

    #[test]
    fn memory_is_no_place_for_a_journal() {
        if !Path::new("/dev/shm").is_dir() {
            return;
        }
        let folders = tempfile::tempdir_in("/dev/shm").unwrap();
        let place = Place { path: "/dev/x".into(), seat: folders.path().join("x-1/disk"), work_dir: None };
        assert!(place.must_last().unwrap_err().chain().contains("is memory"));
    }
}
