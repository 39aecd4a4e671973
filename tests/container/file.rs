//! An image that qemu's own tools make, with markers that the disk in it does not hold any more.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use guestseal::image::container::{ContainerErasure, ContainerResidue, clean, residue};
use guestseal::image::format::Format;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::tools::{has, run, try_run};

/// What was deleted; 16 bytes, so that sectors are filled with whole ones.
pub(crate) const MARKER: &[u8; 16] = b"DELETED-MARKER-\n";
/// What was not.
pub(crate) const LIVE: &[u8; 16] = b"LIVE-CONTENTS--\n";

pub(crate) fn ready() -> bool {
    has(&["qemu-img", "qemu-io"])
}

pub(crate) struct Image {
    folder: TempDir,
    format: &'static str,
}

impl Image {
    /// A new image with these options; patterns of 4 KiB that are written to it stand beside it.
    pub(crate) fn new(format: &'static str, options: &str, size: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = Self { folder, format };
        std::fs::write(image.beside("marker"), MARKER.repeat(256)).unwrap();
        std::fs::write(image.beside("live"), LIVE.repeat(256)).unwrap();
        let path = image.path();
        let mut args = vec!["create", "-q", "-f", format];
        if !options.is_empty() {
            args.extend(["-o", options]);
        }
        run("qemu-img", &[&args[..], &[path.to_str().unwrap(), size]].concat(), "");
        image
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.beside("image")
    }

    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Commands of qemu-io; `{marker}` and `{live}` stand for a `-s` with the pattern.
    pub(crate) fn io(&self, commands: &[&str]) -> &Self {
        for command in commands {
            let mut command = command.to_string();
            for name in ["marker", "live"] {
                let pattern = format!("-s {}", self.beside(name).display());
                command = command.replace(&format!("{{{name}}}"), &pattern);
            }
            // What the image frees stays in its file, as with programs that do not ask for more.
            let options = format!(
                "driver={},discard=unmap,file.driver=file,file.discard=ignore,file.filename={}",
                self.format,
                self.path().display()
            );
            let said = run("qemu-io", &["--image-opts", "-c", &command, &options], "");
            assert!(!said.contains("failed") && !said.contains("rror"), "{command}: {said}");
        }
        self
    }

    pub(crate) fn qemu_img(&self, command: &[&str]) -> &Self {
        let path = self.path();
        run("qemu-img", &[command, &[path.to_str().unwrap()]].concat(), "");
        self
    }

    pub(crate) fn open(&self) -> File {
        File::options().read(true).write(true).open(self.path()).unwrap()
    }

    pub(crate) fn be64(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.open().read_exact_at(&mut bytes, at).unwrap();
        u64::from_be_bytes(bytes)
    }

    pub(crate) fn put(&self, at: u64, bytes: &[u8]) -> &Self {
        self.open().write_all_at(bytes, at).unwrap();
        self
    }

    /// How often the marker stands in the file.
    pub(crate) fn markers(&self) -> usize {
        let pattern = regex::bytes::Regex::new("DELETED-MARKER-\n").unwrap();
        pattern.find_iter(&std::fs::read(self.path()).unwrap()).count()
    }

    /// A digest of the disk in the image.
    pub(crate) fn content(&self) -> String {
        let (path, raw) = (self.path(), self.beside("raw"));
        let (path, raw_path) = (path.to_str().unwrap(), raw.to_str().unwrap());
        run("qemu-img", &["convert", "-f", self.format, "-O", "raw", path, raw_path], "");
        let digest = Sha256::digest(std::fs::read(&raw).unwrap());
        std::fs::remove_file(raw).unwrap();
        format!("{digest:x?}")
    }

    /// Whether qemu-img finds the image whole, and what it says.
    pub(crate) fn check(&self) -> (bool, String) {
        let (good, said, complaints) =
            try_run("qemu-img", &["check", "-f", self.format, self.path().to_str().unwrap()], "");
        (good, said + &complaints)
    }

    fn kind(&self) -> Format {
        match self.format {
            "qcow2" => Format::Qcow2,
            "vdi" => Format::Vdi,
            "vmdk" => Format::Vmdk,
            other => panic!("{other}"),
        }
    }

    pub(crate) fn residue(&self) -> ContainerResidue {
        residue(&File::open(self.path()).unwrap(), self.kind())
            .unwrap_or_else(|error| panic!("{}", error.chain()))
    }

    pub(crate) fn clean(&self) -> ContainerErasure {
        clean(&self.open(), self.kind()).unwrap_or_else(|error| panic!("{}", error.chain()))
    }

    /// Markers are in the file before it is cleaned and not afterwards, and nothing else changes.
    #[track_caller]
    pub(crate) fn comes_clean(&self) -> ContainerErasure {
        let (markers, content, check) = (self.markers(), self.content(), self.check());
        assert!(markers > 0, "no marker to begin with");
        let before = self.residue();
        assert!(before.bytes_nonzero >= 16 * markers as u64, "{markers} markers, {before:?}");
        assert!(!before.places.is_empty() && before.places.len() <= 16, "{before:?}");
        assert_eq!(self.markers(), markers, "changed by a look");
        let done = self.clean();
        assert_eq!((self.markers(), done.bytes_nonzero), (0, 0), "{done:?}");
        assert!(done.bytes_zeroed > 0 && done.bytes_zeroed <= done.bytes_unreferenced, "{done:?}");
        assert_eq!(done.bytes_unreferenced, before.bytes_unreferenced);
        assert_eq!(self.content(), content, "the disk changed");
        assert_eq!(self.check(), check);
        let after = self.residue();
        assert_eq!((after.bytes_nonzero, after.places.len()), (0, 0), "{after:?}");
        let again = self.clean();
        assert_eq!(ContainerErasure { bytes_zeroed: done.bytes_zeroed, ..again.clone() }, done);
        assert_eq!(again.bytes_zeroed, 0, "not done for good");
        done
    }
}
