//! A folder with an image that a test works on, and the proof that a run left both alone.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::common::{Ran, fingerprint, guestseal, tool};
use crate::leftovers::nothing_left;

/// The folder and the image in it.
#[derive(Debug)]
pub(crate) struct Stage {
    folder: TempDir,
    pub(crate) image: PathBuf,
}

/// All that may not change of an image, and the names in its folder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Print {
    fingerprint: String,
    facts: (u64, u32, u32, u32, i64, i64),
    pub(crate) names: BTreeSet<OsString>,
}

impl Stage {
    /// A folder for an image of this name, which is yet to be made.
    pub(crate) fn new(name: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("guestseal-images-").tempdir_in("/var/tmp").unwrap();
        let image = folder.path().join(name);
        Self { folder, image }
    }

    /// With a copy of this image.
    pub(crate) fn copy(image: &Path) -> Self {
        let stage = Self::new(image.file_name().unwrap().to_str().unwrap());
        copy(image, &stage.image);
        stage
    }

    /// With a copy of this image in another format.
    pub(crate) fn convert(image: &Path, format: &str, options: &[&str]) -> Self {
        let stage = Self::new(&format!("guest.{format}"));
        let from = if image.extension().is_some_and(|end| end == "qcow2") { "qcow2" } else { "raw" };
        let words = ["convert", "-q", "-f", from, "-O", format];
        let args = words.iter().chain(options).map(PathBuf::from);
        tool("qemu-img", args.chain([image.to_path_buf(), stage.image.clone()]));
        stage
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    pub(crate) fn write(&self, name: &str, mode: u32, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        path
    }

    /// The names in the folder.
    pub(crate) fn print_names(&self) -> BTreeSet<OsString> {
        fs::read_dir(self.folder()).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    pub(crate) fn print(&self) -> Print {
        let meta = fs::metadata(&self.image).unwrap();
        let names = self.print_names();
        let facts = (meta.len(), meta.mode(), meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec());
        Print { fingerprint: fingerprint(&self.image), facts, names }
    }

    /// Runs guestseal on the image.
    #[track_caller]
    pub(crate) fn guestseal(&self, words: &str) -> Ran {
        guestseal(words, &[&self.image])
    }

    /// Runs guestseal on the image, which must end with this code and leave image, folder and host as they were.
    #[track_caller]
    pub(crate) fn unchanged_by(&self, words: &str, code: i32) -> Ran {
        let before = self.print();
        let ran = self.guestseal(words).expect(code);
        assert_eq!(self.print(), before, "{ran:#?}");
        nothing_left(self.folder(), Duration::ZERO);
        ran
    }
}

/// Copies an image with its holes.
pub(crate) fn copy(from: &Path, to: &Path) {
    tool("cp", [Path::new("--sparse=always"), Path::new("--reflink=auto"), from, to]);
}
