//! What an fstab entry mounts, and whether a volume is that.

use std::fmt;

use serde::Serialize;

use super::device::Device;
use super::unquote;
use crate::disk::layout::Volume;

/// The first field of an fstab entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "value")]
pub enum Source {
    /// `UUID=`: the identity of a filesystem.
    Uuid(String),
    /// `LABEL=`: the name of a filesystem.
    Label(String),
    /// `PARTUUID=`: the identity of a partition.
    PartUuid(String),
    /// `PARTLABEL=`: the name of a partition.
    PartLabel(String),
    /// A path below /dev, `ID=` included.
    Device(String),
    /// Something on another machine.
    Network(String),
    /// A filesystem without a device, a folder or file of the guest, or something unknown.
    Other(String),
}

/// Filesystems whose source is on another machine; see mount(8).
const NETWORK: [&str; 16] = [
    "9p",
    "afs",
    "beegfs",
    "ceph",
    "cifs",
    "davfs",
    "fuse.glusterfs",
    "fuse.rclone",
    "fuse.s3fs",
    "fuse.sshfs",
    "glusterfs",
    "lustre",
    "nfs",
    "nfs4",
    "smb3",
    "smbfs",
];

impl Source {
    /// Sorts the first field of an entry, escapes undone, by its form and the type of filesystem.
    pub fn parse(text: &str, fs_type: &str) -> Self {
        let value = |tag: &str| {
            text.strip_prefix(tag)
                .and_then(|rest| rest.strip_prefix('='))
                .map(|rest| unquote(rest).to_owned())
        };
        if let Some(uuid) = value("UUID") {
            Self::Uuid(uuid)
        } else if let Some(label) = value("LABEL") {
            Self::Label(label)
        } else if let Some(uuid) = value("PARTUUID") {
            Self::PartUuid(uuid)
        } else if let Some(label) = value("PARTLABEL") {
            Self::PartLabel(label)
        } else if let Some(id) = value("ID") {
            Self::Device(format!("/dev/disk/by-id/{id}"))
        } else if NETWORK.contains(&fs_type) || text.starts_with("//") {
            Self::Network(text.to_owned())
        } else if text.starts_with("/dev/") {
            Self::Device(text.to_owned())
        } else if text.contains(":/") && !text.starts_with('/') {
            Self::Network(text.to_owned())
        } else {
            Self::Other(text.to_owned())
        }
    }

    /// Whether `volume`, on the disk `disk_index` (from 0) of the `disks_total` disks of a guest, is what this names.
    ///
    /// UUIDs are compared without regard to case, labels and names exactly. Of device names, `a` or `0` is the first
    /// disk. Names that say which disk by something that is not in the image (`/dev/disk/by-id/…-part1`,
    /// `/dev/disk/by-path/…`) are taken by the number of the partition when there is only one disk, and match nothing
    /// otherwise, as do device-mapper and RAID names.
    pub fn matches(&self, volume: &Volume, disk_index: usize, disks_total: usize) -> bool {
        match self {
            Self::Uuid(uuid) => is_same_uuid(uuid, fs_uuid(volume)),
            Self::Label(label) => is_same(label, fs_label(volume)),
            Self::PartUuid(uuid) => is_same_uuid(uuid, part_uuid(volume)),
            Self::PartLabel(label) => is_same(label, part_label(volume)),
            Self::Network(_) | Self::Other(_) => false,
            Self::Device(path) => match Device::parse(path) {
                None => false,
                Some(Device::ByUuid(uuid)) => is_same_uuid(&uuid, fs_uuid(volume)),
                Some(Device::ByLabel(label)) => is_same(&label, fs_label(volume)),
                Some(Device::ByPartUuid(uuid)) => is_same_uuid(&uuid, part_uuid(volume)),
                Some(Device::ByPartLabel(label)) => is_same(&label, part_label(volume)),
                Some(Device::Node { disk, partition }) => disk == disk_index && partition == number(volume),
                Some(Device::SomeDisk { partition }) => disks_total == 1 && partition == number(volume),
            },
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(value) => write!(f, "UUID={value}"),
            Self::Label(value) => write!(f, "LABEL={value}"),
            Self::PartUuid(value) => write!(f, "PARTUUID={value}"),
            Self::PartLabel(value) => write!(f, "PARTLABEL={value}"),
            Self::Device(value) | Self::Network(value) | Self::Other(value) => f.write_str(value),
        }
    }
}

fn fs_uuid(volume: &Volume) -> Option<&str> {
    volume.superblock.as_ref()?.uuid.as_deref()
}

fn fs_label(volume: &Volume) -> Option<&str> {
    volume.superblock.as_ref()?.label.as_deref()
}

fn part_uuid(volume: &Volume) -> Option<&str> {
    volume.partition.as_ref()?.part_uuid.as_deref()
}

fn part_label(volume: &Volume) -> Option<&str> {
    volume.partition.as_ref()?.part_label.as_deref()
}

fn number(volume: &Volume) -> Option<u32> {
    volume.partition.as_ref().map(|partition| partition.number)
}

fn is_same_uuid(wanted: &str, found: Option<&str>) -> bool {
    found.is_some_and(|found| !wanted.is_empty() && found.eq_ignore_ascii_case(wanted))
}

fn is_same(wanted: &str, found: Option<&str>) -> bool {
    found.is_some_and(|found| !wanted.is_empty() && found == wanted)
}
