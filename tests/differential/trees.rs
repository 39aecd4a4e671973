//! Two guests, mounted read-only and compared.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use walkdir::WalkDir;

use crate::common::run;

/// Texts up to this length, in bytes, are kept as they are, to be shown where they differ.
const SHOWN: usize = 4096;

/// The root filesystem of a guest.
pub(crate) struct Mounted(TempDir);

impl Mounted {
    pub(crate) fn new(image: &Path) -> Self {
        let raw = image.with_extension("disk");
        run(
            "qemu-img",
            ["convert".as_ref(), "-O".as_ref(), "raw".as_ref(), image.as_os_str(), raw.as_os_str()],
        )
        .expect(0);
        let offset = root_at(&raw);
        let folder = TempDir::with_prefix_in("guestseal-differential-", "/var/tmp").unwrap();
        let options = format!("ro,noload,loop,offset={offset},nosuid,nodev,noexec");
        let args = [
            "-t".as_ref(),
            "ext4".as_ref(),
            "-o".as_ref(),
            options.as_ref(),
            raw.as_os_str(),
            folder.path().as_os_str(),
        ];
        run("mount", args).expect(0);
        Self(folder)
    }

    /// The files whose label is not that of the guest's policy, by a reader that is not guestseal's; empty without SELinux.
    pub(crate) fn wrong_labels(&self) -> String {
        let root = self.0.path();
        let contexts = root.join("etc/selinux/targeted/contexts/files/file_contexts");
        if !contexts.exists() {
            return String::new();
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/flat/label.py");
        let words = [Path::new("check"), root, &contexts, Path::new("/srv/home"), Path::new("/home")];
        run("python3", [script.as_path()].into_iter().chain(words)).expect(0).stdout
    }

    /// Every file by its path.
    pub(crate) fn tree(&self) -> BTreeMap<String, Seen> {
        let root = self.0.path();
        let entries = WalkDir::new(root).into_iter().map(Result::unwrap);
        entries
            .map(|entry| {
                let path = Path::new("/").join(entry.path().strip_prefix(root).unwrap());
                (path.to_string_lossy().into_owned(), Seen::new(entry.path(), &entry.metadata().unwrap()))
            })
            .collect()
    }
}

/// Where the root filesystem begins, in bytes: a disk without a partition table is one.
fn root_at(disk: &Path) -> u64 {
    let ran = run("sfdisk", ["--json".as_ref(), disk.as_os_str()]);
    let Ok(table) = serde_json::from_str::<Value>(&ran.stdout) else { return 0 };
    let partitions = table["partitiontable"]["partitions"].as_array().unwrap();
    partitions.iter().find(|partition| partition["name"] == "root").unwrap()["start"].as_u64().unwrap() * 512
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = run("umount", [self.0.path()]);
    }
}

/// What is compared of a file.
#[derive(PartialEq)]
pub(crate) struct Seen {
    kind: u32,
    mode: u32,
    owner: (u32, u32),
    content: String,
    attributes: BTreeMap<String, Vec<u8>>,
}

impl Seen {
    fn new(path: &Path, metadata: &Metadata) -> Self {
        let content = if metadata.is_file() {
            let bytes = fs::read(path).unwrap();
            match String::from_utf8(bytes) {
                Ok(text) if text.len() <= SHOWN => text,
                Ok(text) => format!("{:?}", Sha256::digest(text)),
                Err(error) => format!("{:?}", Sha256::digest(error.as_bytes())),
            }
        } else if metadata.is_symlink() {
            fs::read_link(path).unwrap().display().to_string()
        } else {
            metadata.rdev().to_string()
        };
        let kind = metadata.mode() & 0o170_000;
        let mode = if metadata.is_symlink() { 0 } else { metadata.mode() & 0o7777 };
        Self { kind, mode, owner: (metadata.uid(), metadata.gid()), content, attributes: attributes(path) }
    }
}

impl Seen {
    /// One part of it, as words.
    pub(crate) fn show(&self, what: &str) -> String {
        if what == "content" {
            return self.content.clone();
        }
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        self.attributes.iter().map(|(name, value)| format!("{name}={:?}\n", text(value))).collect()
    }
}

fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut names, mut value) = (vec![0; 65536], vec![0; 65536]);
    let length = rustix::fs::llistxattr(path, &mut names).unwrap();
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let name = String::from_utf8(name.to_vec()).unwrap();
            let length = rustix::fs::lgetxattr(path, name.as_str(), &mut value).unwrap();
            (name, value[..length].to_vec())
        })
        .collect()
}

/// Paths that differ, and in what. What is below a folder that only one has is not told by itself.
pub(crate) fn differences(
    theirs: &BTreeMap<String, Seen>,
    ours: &BTreeMap<String, Seen>,
) -> Vec<(String, &'static str)> {
    let mut found: Vec<(String, &'static str)> = Vec::new();
    let alone = |path: &str, other: &BTreeMap<String, Seen>| {
        let parent = PathBuf::from(path).parent().map(|parent| parent.to_string_lossy().into_owned());
        !other.contains_key(path) && parent.is_none_or(|parent| other.contains_key(&parent))
    };
    for (path, seen) in theirs {
        let Some(other) = ours.get(path) else {
            if alone(path, ours) {
                found.push((path.clone(), "theirs only"));
            }
            continue;
        };
        if seen.kind != other.kind {
            found.push((path.clone(), "kind"));
            continue;
        }
        let parts = [
            ("content", seen.content != other.content),
            ("mode", seen.mode != other.mode),
            ("owner", seen.owner != other.owner),
            ("attributes", seen.attributes != other.attributes),
        ];
        found.extend(parts.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| (path.clone(), what)));
    }
    found.extend(ours.keys().filter(|path| alone(path, theirs)).map(|path| (path.clone(), "ours only")));
    found.sort();
    found
}
