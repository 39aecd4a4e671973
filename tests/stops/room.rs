//! Disks that fill up half way: while the guest is worked on, in the commit, and for the record.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal::SIGCONT;

use crate::common::{fingerprint, guestseal, ready, tool};
use crate::guests::guest;
use crate::leftovers::nothing_left;
use crate::mounts::in_private_mounts;
use crate::stage::{Stage, copy};
use crate::stopped::{Ended, Run};

/// A small filesystem in memory with a copy of an image.
struct SmallDisk {
    folder: tempfile::TempDir,
    image: PathBuf,
}

impl SmallDisk {
    /// Works on one with so many KiB to spare.
    fn with<T: Send>(image: &Path, spare: u64, work: impl FnOnce(&SmallDisk) -> T + Send) -> T {
        in_private_mounts(|| {
            let folder = tempfile::Builder::new().prefix("guestseal-small-").tempdir_in("/var/tmp").unwrap();
            let size = format!("size={}k", image.metadata().unwrap().blocks() / 2 + spare);
            tool("mount", ["-t", "tmpfs", "-o", &size, "small", folder.path().to_str().unwrap()]);
            let disk = Self { image: folder.path().join(image.file_name().unwrap()), folder };
            copy(image, &disk.image);
            let result = work(&disk);
            tool("umount", [disk.folder.path()]);
            nothing_left(disk.folder.path(), Duration::ZERO);
            result
        })
    }

    fn fill(&self) {
        let mut filler = File::create(self.folder.path().join("filler")).unwrap();
        while filler.write_all(&[1; 4096]).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(self.folder.path().join("filler")).unwrap();
    }

    /// The names beside the image.
    fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Seals the image, and fills the disk when the run has come to this place.
    fn seal_and_fill_at(&self, point: &str, words: &str) -> Ended {
        let run = Run::stop_at(point, words, &[&self.image]);
        self.fill();
        run.go_on_with(SIGCONT)
    }
}

/// Images of both kinds: a commit into the sparse raw one takes room for every block.
fn images() -> [Stage; 2] {
    let raw = Stage::copy(&guest("arch").image);
    [Stage::convert(&raw.image, "qcow2", &[]), raw]
}

#[test]
fn while_the_guest_is_worked_on() {
    if !ready() {
        return;
    }
    for stage in images() {
        for point in ["attached", "mounted", "first-operation", "applied", "unmounted", "detached"] {
            SmallDisk::with(&stage.image, 8 << 10, |disk| {
                let before = fingerprint(&disk.image);
                let ended =
                    disk.seal_and_fill_at(point, "seal --quiet").with(1, &["what to do", "make room"]);
                let folder = disk.folder.path().to_str().unwrap();
                let named =
                    ["no space is left in", "too full"].iter().any(|words| ended.stderr.contains(words));
                assert!(named && ended.stderr.contains(folder), "{point}: {ended:?}");
                assert_eq!(fingerprint(&disk.image), before, "{point}");
                assert_eq!(disk.names().len(), 2, "{point}: {:?}", disk.names());
                disk.make_room();
                guestseal("seal --quiet", &[&disk.image]).expect(0);
                guestseal("verify", &[&disk.image]).expect(0);
            });
        }
    }
}

/// Whatever the commit finds no room for, recover ends it when there is some again.
#[test]
fn in_the_commit_and_for_the_record() {
    if !ready() {
        return;
    }
    for stage in images() {
        for point in ["overlay-named", "journal-named", "image-written", "image-flushed", "journal-marked"] {
            SmallDisk::with(&stage.image, 8 << 10, |disk| {
                let before = fingerprint(&disk.image);
                // What the erasure gives back of the image's file may be room enough.
                let ended = disk.seal_and_fill_at(point, "seal --quiet --erase none");
                let image = disk.image.to_str().unwrap();
                assert!(ended.stderr.contains("No space left") && ended.stderr.contains(image), "{ended:?}");
                let untouched = fingerprint(&disk.image) == before;
                let code = ended.code();
                if code == Some(1) {
                    assert!(untouched, "{point}: {ended:?}");
                    assert_eq!(disk.names().len(), 2, "{point}: {:?}", disk.names());
                    disk.make_room();
                    guestseal("seal --quiet", &[&disk.image]).expect(0);
                } else {
                    assert_eq!(code, Some(4), "{point}: {ended:?}");
                    guestseal("seal", &[&disk.image]).expect(4);
                    guestseal("recover", &[&disk.image]).expect(4);
                    disk.make_room();
                    guestseal("recover", &[&disk.image]).expect(0);
                }
                println!("{} at {point}: {code:?}", disk.image.display());
                guestseal("verify", &[&disk.image]).expect(0);
                assert_eq!(disk.names().len(), 2, "image and record: {:?}", disk.names());
            });
        }
    }
}

#[test]
fn for_the_new_file() {
    if !ready() {
        return;
    }
    let [stage, _] = images();
    let before = stage.print();
    for point in ["applied", "detached", "output-written"] {
        SmallDisk::with(Path::new("/etc/hostname"), 40 << 10, |disk| {
            let new = disk.folder.path().join("new.qcow2");
            let run =
                Run::stop_at(point, &format!("seal --quiet --output {}", new.display()), &[&stage.image]);
            disk.fill();
            let ended = run.go_on_with(SIGCONT).with(1, &[]);
            let named =
                ["no space is left in", "No space left"].iter().any(|words| ended.stderr.contains(words));
            assert!(
                named && ended.stderr.contains(disk.folder.path().to_str().unwrap()),
                "{point}: {ended:?}"
            );
            assert_eq!(disk.names(), ["filler", "hostname"], "{point}");
        });
    }
    assert_eq!(stage.print(), before);
}
