//! The planted disk: a GPT with an ESP, a root filesystem, a gap, swap, and a gap behind it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::beside::{plant_esp, plant_swap};
use crate::common::{shell, tool};
use crate::mounts::in_private_mounts;
use crate::plant::{plant, system};
use crate::scan::{Counts, count, lines, text};

const MIB: u64 = 1 << 20;
/// Where the volumes are and how large, in MiB. xfs takes no less than 300 for the root.
const ESP: (u64, u64) = (1, 17);
pub(crate) const ROOT: (u64, u64) = (18, 330);
pub(crate) const SWAP: (u64, u64) = (356, 16);
const END: u64 = 380;

/// A kind of root filesystem.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filesystem {
    pub(crate) name: &'static str,
    /// mkfs and its options.
    pub(crate) mkfs: &'static str,
    /// The type and the options it is mounted with while the guest lives.
    pub(crate) kind: &'static str,
    pub(crate) options: &'static str,
}

/// A disk full of markers, and what is known of it.
#[derive(Debug)]
pub(crate) struct Planted {
    _folder: TempDir,
    /// The raw disk.
    pub(crate) disk: PathBuf,
    pub(crate) filesystem: Filesystem,
    /// How many markers of each kind it holds.
    pub(crate) counts: Counts,
    /// The files that are to stay, as `describe` gives them.
    pub(crate) kept: String,
    /// Bytes of a compressed file.
    pub(crate) compressed: Option<Vec<u8>>,
}

impl Planted {
    /// Makes the disk.
    pub(crate) fn make(filesystem: Filesystem) -> Self {
        let folder = tempfile::Builder::new().prefix("guestseal-erasure-").tempdir_in("/var/tmp").unwrap();
        let path = |name: &str| folder.path().join(name);
        let (disk, esp, root, swap) = (path("disk.raw"), path("esp"), path("root"), path("swap"));
        empty(&disk, END);
        table(&disk);
        plant_esp(&empty(&esp, ESP.1), folder.path());
        plant_swap(&empty(&swap, SWAP.1));
        let (kept, logical) = plant_root(&empty(&root, ROOT.1), filesystem);
        let compressed = logical.map(|logical| compressed_bytes(&root, logical));
        for (part, (start, _)) in [(&esp, ESP), (&root, ROOT), (&swap, SWAP)] {
            shell(&format!(
                "dd if={} of={} bs=1M seek={start} conv=notrunc,sparse status=none",
                part.display(),
                disk.display()
            ));
            fs::remove_file(part).unwrap();
        }
        plant_gaps(&disk);
        let counts = count(&disk);
        Self { _folder: folder, disk, filesystem, counts, kept, compressed }
    }
}

fn empty(path: &Path, mib: u64) -> PathBuf {
    File::create(path).unwrap().set_len(mib * MIB).unwrap();
    path.to_path_buf()
}

fn table(disk: &Path) {
    let mut rows = String::from("label: gpt\n");
    for ((start, length), kind) in [(ESP, "U"), (ROOT, "L"), (SWAP, "S")] {
        rows += &format!("start={}, size={}, type={kind}\n", start * 2048, length * 2048);
    }
    shell(&format!("printf '%s' '{rows}' | sfdisk -q --no-reread --no-tell-kernel {}", disk.display()));
}

/// In front of the first partition, where boot loaders are and which stays; between partitions; and behind the last one.
fn plant_gaps(disk: &Path) {
    let disk = File::options().write(true).open(disk).unwrap();
    let write = |at, kind| disk.write_all_at(lines(kind, 100).as_bytes(), at).unwrap();
    write(100 * 512, "boot");
    write((ROOT.0 + ROOT.1) * MIB, "gap");
    write((ROOT.0 + ROOT.1 + 3) * MIB + 123, "gap");
    write((SWAP.0 + SWAP.1) * MIB + 70_001, "tail");
    // Up to the second partition table.
    disk.write_all_at(text("tail", 3000).as_bytes(), END * MIB - 33 * 512 - 3000).unwrap();
}

/// Plants the guest and gives what is to stay of it, and where a compressed file is.
fn plant_root(image: &Path, filesystem: Filesystem) -> (String, Option<u64>) {
    shell(&format!("{} {} >/dev/null", filesystem.mkfs, image.display()));
    let uuid = tool("blkid", [Path::new("-po"), Path::new("value"), Path::new("-sUUID"), image]);
    let fstab = format!(
        "UUID={} / {} {} 0 1\nLABEL=canaryswap none swap sw 0 0\n/swapfile none swap sw 0 0\n",
        uuid.trim(),
        filesystem.kind,
        if filesystem.options.is_empty() { "defaults" } else { filesystem.options },
    );
    in_private_mounts(|| {
        let root = image.with_extension("mounted");
        fs::create_dir(&root).unwrap();
        // btrfs would discard what is deleted, which loop devices honour.
        let nodiscard = if filesystem.kind == "btrfs" { ",nodiscard" } else { "" };
        let options = format!("loop,{}{nodiscard}", filesystem.options);
        let args = ["-t", filesystem.kind, "-o", &options].map(Path::new);
        tool("mount", args.into_iter().chain([image, &root]));
        system(&root, &fstab);
        let logical = plant(&root, filesystem);
        let kept = describe(&root);
        tool("umount", [&root]);
        fs::remove_dir(root).unwrap();
        (kept, logical)
    })
}

/// All that may not change of the files that stay: names, owners, modes, times, targets, attributes and contents.
pub(crate) fn describe(root: &Path) -> String {
    shell(&format!(
        "cd {}/srv; find . -printf '%p %m %U %G %s %n %T@ %l\\n' | sort
         find . -type f -print0 | sort -z | xargs -0 sha256sum; find . | sort | getfattr -dhm user. $(cat) 2>/dev/null",
        root.display()
    ))
}

/// Some bytes of a compressed extent, which is at this place in the filesystem's own count.
fn compressed_bytes(image: &Path, logical: u64) -> Vec<u8> {
    let (logical, length) = (logical.to_string(), "4096");
    let args = ["-l", &logical, "-b", length].map(Path::new);
    let told = tool("btrfs-map-logical", args.into_iter().chain([image]));
    let place = told.split("physical ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    let mut bytes = vec![0; 48];
    File::open(image).unwrap().read_exact_at(&mut bytes, place.parse::<u64>().unwrap() + 1000).unwrap();
    assert!(bytes.iter().any(|byte| *byte != 0), "no compressed bytes at {place}");
    bytes
}
