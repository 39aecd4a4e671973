//! A guest on a block device, and the folder in which guestseal keeps what belongs to it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::common::{GUESTSEAL, Ran, run, shell, tool};
use crate::guests::guest;

/// A loop device, detached in the end.
#[derive(Debug)]
pub(crate) struct Loop(pub(crate) PathBuf);

impl Loop {
    pub(crate) fn over(file: &Path) -> Self {
        Self(tool("losetup", [Path::new("--show"), Path::new("-f"), file]).trim().into())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        drop(run("losetup", [Path::new("-d"), &self.0]));
    }
}

/// A copy of a guest's raw image, to be a device's content, and a folder of the test's own.
#[derive(Debug)]
pub(crate) struct Rig {
    folder: TempDir,
    pub(crate) file: PathBuf,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("guestseal-remote-").tempdir_in("/var/tmp").unwrap();
        let file = folder.path().join("content");
        tool("cp", [Path::new("--sparse=always"), &guest("arch").image, &file]);
        Self { folder, file }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Deletes a large file in the guest, whose blocks the device still has. Not by a mount, which other runs would take
    /// into their namespaces and write to when they end.
    pub(crate) fn delete_much(&self) {
        let (file, much) = (self.file.display(), self.path("much"));
        let much = much.display();
        shell(&format!(
            "head -c 40M /dev/urandom >{much}; \
             debugfs -w -R 'write {much} much' {file} 2>&1; debugfs -w -R 'rm much' {file} 2>&1"
        ));
    }

    /// How many bytes the device's file takes on the disk.
    pub(crate) fn allocated(&self) -> u64 {
        fs::metadata(&self.file).unwrap().blocks() * 512
    }

    /// Runs guestseal with these words on these images, with the work folder of this rig.
    #[track_caller]
    pub(crate) fn guestseal(&self, words: &str, images: &[&Path]) -> Ran {
        run(GUESTSEAL, self.words(words, images))
    }

    pub(crate) fn words(&self, words: &str, images: &[&Path]) -> Vec<PathBuf> {
        let words = words.split_whitespace().map(PathBuf::from);
        let place = ["--work-dir".into(), self.path("work")];
        words.chain(place).chain(images.iter().map(|image| image.to_path_buf())).collect()
    }

    /// What is in the folders of devices.
    pub(crate) fn kept(&self) -> Vec<String> {
        let folders = fs::read_dir(self.path("work")).into_iter().flatten();
        let files = folders.flat_map(|folder| fs::read_dir(folder.unwrap().path()).unwrap());
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

pub(crate) fn sha256(path: &Path) -> String {
    tool("sha256sum", [path]).split_whitespace().next().unwrap().to_owned()
}

/// The names in /dev.
pub(crate) fn dev() -> Vec<String> {
    let names = fs::read_dir("/dev").unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap());
    names.filter(|name| name.contains("guestseal") || name.ends_with(".seal.json")).collect()
}
