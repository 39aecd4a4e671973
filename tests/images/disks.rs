//! Disks made for one test: a partition table, filesystems, and the same small system on each.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::common::{run, shell, tool};
use crate::guests;
use crate::mounts::in_private_mounts;

const MIB: u64 = 1 << 20;

/// A volume of the disk: where the guest mounts it, and how its fstab says so.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Volume {
    pub(crate) mib: u64,
    /// ext2, ext3, ext4, xfs, btrfs, vfat, swap, extended or empty.
    pub(crate) fs: &'static str,
    /// Mount points, the root of the guest first: "/home", or for a btrfs "@ /,@home /home"; "-" for none.
    pub(crate) points: &'static str,
    /// UUID, LABEL, PARTUUID, PARTLABEL, a name below /dev, or "-" for no entry in fstab.
    pub(crate) source: &'static str,
}

pub(crate) const fn volume(mib: u64, fs: &'static str, points: &'static str, source: &'static str) -> Volume {
    Volume { mib, fs, points, source }
}

/// A partition table or none, and sectors of 512 or 4096 bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Label(pub(crate) Option<&'static str>, pub(crate) u64);

struct Made {
    volume: Volume,
    node: String,
    entry: String,
}

/// The files that every such guest has; made once.
fn system() -> &'static Path {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| {
        let folder =
            tempfile::Builder::new().prefix("guestseal-tree-").tempdir_in("/var/tmp").unwrap().keep();
        guests::tree("arch", &folder)
    })
}

/// Makes the disk; `fstab` is added to what the volumes give.
pub(crate) fn make_disk(image: &Path, Label(label, sector): Label, volumes: &[Volume], fstab: &str) {
    let starts = starts(label, volumes);
    let ends = volumes.iter().zip(&starts).map(|(volume, start)| start + volume.mib);
    let bytes = (ends.max().unwrap_or_default() + 1) * MIB;
    fs::File::create(image).unwrap().set_len(bytes).unwrap();
    if let Some(label) = label {
        write_table(image, label, sector, volumes, &starts);
    }
    in_private_mounts(|| {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut made: Vec<Made> = (0..volumes.len())
            .filter(|index| !["extended", "empty"].contains(&volumes[*index].fs))
            .map(|index| make_volume(image, label, sector, volumes[index], index, starts[index]))
            .collect();
        let mut all = String::new();
        made.sort_by_key(|made| depth(made.volume.points));
        let several = made.iter().filter(|made| depth(made.volume.points) == 0).count() > 1;
        for made in made.iter().filter(|made| made.volume.points != "-") {
            all += &mount_all(made, folder.path());
            if several && depth(made.volume.points) == 0 {
                fill(folder.path(), &all);
            }
        }
        fill(folder.path(), &(all + fstab));
        // Two roots lie on top of each other.
        while run("umount", [Path::new("-R"), folder.path()]).code == 0 {}
        made.iter().for_each(|made| drop(run("losetup", ["-d", &made.node])));
    });
}

/// How deep below the root the first of these mount points is.
fn depth(points: &str) -> usize {
    let first = points.split(',').next().unwrap_or_default();
    let point = first.split_once(' ').map_or(first, |(_, point)| point);
    Path::new(point).components().count().saturating_sub(1)
}

fn starts(label: Option<&str>, volumes: &[Volume]) -> Vec<u64> {
    let (mut at, mut inside) = (u64::from(label.is_some()), false);
    let start = |volume: &Volume| {
        // A logical partition has its own small table in front.
        at += u64::from(inside);
        let start = at;
        if volume.fs == "extended" {
            inside = true;
        } else {
            at += volume.mib;
        }
        start
    };
    volumes.iter().map(start).collect()
}

fn write_table(image: &Path, label: &str, sector: u64, volumes: &[Volume], starts: &[u64]) {
    let mut table = format!("label: {label}\n");
    for (index, (volume, start)) in volumes.iter().zip(starts).enumerate() {
        let kind = match (label, volume.fs) {
            ("dos", "extended") => "5",
            ("dos", "swap") => "82",
            ("dos", _) => "83",
            (_, "swap") => "S",
            (_, "vfat") => "U",
            _ => "L",
        };
        let per_mib = MIB / sector;
        table += &format!("start={}, size={}, type={kind}", start * per_mib, volume.mib * per_mib);
        table += &if label == "gpt" { format!(", name=part{}\n", index + 1) } else { "\n".into() };
    }
    let script = image.with_extension("table");
    fs::write(&script, table).unwrap();
    // sfdisk takes the sector size from the device.
    shell(&format!(
        "dev=$(losetup -f --show -b {sector} {0}); trap 'losetup -d $dev' EXIT; sfdisk -q --no-reread --no-tell-kernel $dev <{1}",
        image.display(),
        script.display()
    ));
    fs::remove_file(script).unwrap();
}

fn make_volume(
    image: &Path,
    label: Option<&str>,
    sector: u64,
    volume: Volume,
    index: usize,
    start: u64,
) -> Made {
    let (offset, length) = ((start * MIB).to_string(), (volume.mib * MIB).to_string());
    let sector = sector.to_string();
    let args = ["--show", "-f", "-b", &sector, "-o", &offset, "--sizelimit", &length];
    let node = tool("losetup", args.iter().map(Path::new).chain([image])).trim().to_owned();
    let name = format!("vol{}", index + 1);
    match volume.fs {
        "ext2" | "ext3" | "ext4" => tool("mkfs.ext4", ["-q", "-F", "-t", volume.fs, "-L", &name, &node]),
        "xfs" => tool("mkfs.xfs", ["-q", "-f", "-L", &name, &node]),
        "btrfs" => tool("mkfs.btrfs", ["-q", "-f", "-L", &name, &node]),
        "vfat" => tool("mkfs.vfat", ["-n", &name.to_uppercase(), &node]),
        "swap" => tool("mkswap", ["-q", "-L", &name, &node]),
        other => panic!("no maker of {other}"),
    };
    let tag =
        |tag: &str, device: &str| tool("blkid", ["-p", "-s", tag, "-o", "value", device]).trim().to_owned();
    let entry = match volume.source {
        "UUID" => format!("UUID={}", tag("UUID", &node)),
        "LABEL" => format!("LABEL={name}"),
        "PARTLABEL" => format!("PARTLABEL=part{}", index + 1),
        "PARTUUID" => format!("PARTUUID={}", part_uuid(image, label, index)),
        other => other.to_owned(),
    };
    Made { volume, node, entry }
}

fn part_uuid(image: &Path, label: Option<&str>, index: usize) -> String {
    assert_eq!(label, Some("gpt"), "only sectors of 512 bytes in a gpt are asked for");
    let number = (index + 1).to_string();
    tool("sfdisk", [Path::new("--part-uuid"), image, Path::new(&number)]).trim().to_lowercase()
}

/// Mounts a volume wherever it belongs, and returns its lines of fstab.
fn mount_all(made: &Made, root: &Path) -> String {
    let mut lines = String::new();
    let fs = if made.volume.fs.starts_with("ext") { "ext4" } else { made.volume.fs };
    for place in made.volume.points.split(',') {
        let (subvolume, point) =
            place.split_once(' ').map_or((None, place), |(name, point)| (Some(name), point));
        if let Some(name) = subvolume {
            let top = tempfile::tempdir_in("/var/tmp").unwrap();
            tool("mount", [Path::new("-t"), Path::new(fs), Path::new(&made.node), top.path()]);
            tool(
                "btrfs",
                [Path::new("-q"), Path::new("subvolume"), Path::new("create"), &top.path().join(name)],
            );
            tool("umount", [top.path()]);
        }
        let options = subvolume.map_or_else(|| "defaults".to_owned(), |name| format!("subvol={name}"));
        let target = root.join(point.trim_start_matches('/'));
        fs::create_dir_all(&target).unwrap();
        if fs == "vfat" {
            lines += &format!("{} {point} vfat umask=0077 0 2\n", made.entry);
            continue;
        }
        tool(
            "mount",
            [
                Path::new("-t"),
                Path::new(fs),
                Path::new("-o"),
                Path::new(&options),
                Path::new(&made.node),
                &target,
            ],
        );
        if made.entry != "-" {
            lines += &format!("{} {point} {} {options} 0 0\n", made.entry, made.volume.fs);
        }
    }
    lines
}

/// Puts the system where the root is mounted.
fn fill(root: &Path, fstab: &str) {
    shell(&format!("cp -a {}/. {}/", system().display(), root.display()));
    fs::write(root.join("etc/fstab"), fstab).unwrap();
}
