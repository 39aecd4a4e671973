//! Which volume grows, and what lies between it and the disk.

use std::path::Path;

use crate::disk::fstab::Source;
use crate::disk::{Content, Storage, Superblock, Volume};
use crate::error::{Error, Result};
use crate::inspect::layout::volume_name;
use crate::mount::place::GuestLayout;

/// A volume whose filesystem grows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// It, as an index of [`Storage::volumes`].
    pub volume: usize,
    /// What it is made of, from the volume on the first disk upwards; only itself where it is made of nothing.
    pub path: Vec<usize>,
}

impl Target {
    /// The volume that `wanted` names, or the root of the guest.
    ///
    /// # Errors
    /// Usage when nothing has that name; unsupported when it has no filesystem that grows, or nothing of it is on the first
    /// disk.
    pub(super) fn find(storage: &Storage, layout: &GuestLayout, wanted: Option<&str>) -> Result<Self> {
        let volume = wanted.map_or(Ok(layout.root.volume), |name| named(storage, layout, name))?;
        let found = storage.volumes.get(volume).ok_or_else(|| Error::failed("there is no such volume"))?;
        grows(found)?;
        let path = path(storage, volume).ok_or_else(|| {
            Error::unsupported(format!(
                "{} is not on the first disk, which is the one that --expand makes longer",
                volume_name(found)
            ))
            .hint("name the image that it is on first: -a IMAGE")
        })?;
        Ok(Self { volume, path })
    }

    /// The volume on the first disk.
    pub(super) fn base<'a>(&self, storage: &'a Storage) -> Option<&'a Volume> {
        storage.volumes.get(*self.path.first()?)
    }

    /// The volumes that the other ones are made of, the lowest first.
    pub fn layers<'a>(&'a self, storage: &'a Storage) -> impl Iterator<Item = (usize, &'a Volume)> {
        let below = self.path.iter().take(self.path.len().saturating_sub(1));
        below.filter_map(|index| Some((*index, storage.volumes.get(*index)?)))
    }

    /// Whether something lies between the filesystem and the disk.
    pub fn is_layered(&self) -> bool {
        self.path.len() > 1
    }
}

/// By a mount point of the guest, a device as its fstab would name it, or the group and the name of a logical volume.
fn named(storage: &Storage, layout: &GuestLayout, name: &str) -> Result<usize> {
    let unknown = |there: Vec<String>| {
        Error::usage(format!("--expand-volume {name} names no volume of the image")).hint(format!(
            "there are {}; name it as --root does, by /dev/sda2 or UUID=…, by GROUP/VOLUME, or by its mount point",
            there.join(", ")
        ))
    };
    if name.starts_with('/') && !name.starts_with("/dev/") {
        let places = || std::iter::once(&layout.root).chain(&layout.others);
        let place = places().find(|place| place.point == Path::new(name));
        let points = || places().map(|place| place.point.display().to_string()).collect();
        return place.map(|place| place.volume).ok_or_else(|| unknown(points()));
    }
    let is_pair = !name.starts_with('/') && !name.contains('=') && name.contains('/');
    let device = if is_pair { format!("/dev/{name}") } else { name.to_owned() };
    storage
        .find(&Source::parse(&device, ""))
        .ok_or_else(|| unknown(storage.volumes.iter().map(volume_name).collect()))
}

fn grows(volume: &Volume) -> Result<()> {
    let content = volume.superblock.as_ref().map(|superblock: &Superblock| superblock.content);
    match content {
        Some(Content::Ext2 | Content::Ext3 | Content::Ext4 | Content::Xfs | Content::Btrfs) => Ok(()),
        _ => {
            let what = content.map_or("nothing known", Content::name);
            Err(Error::unsupported(format!(
                "{} cannot be expanded: it holds {what}, and only ext, xfs and btrfs grow",
                volume_name(volume)
            )))
        }
    }
}

/// From the first disk to a volume; none when nothing of it is there.
fn path(storage: &Storage, volume: usize) -> Option<Vec<usize>> {
    let disk = storage.volumes.get(volume)?.disk;
    let Some(made) = &storage.disks.get(disk)?.made else { return (disk == 0).then(|| vec![volume]) };
    // What a device is made of comes before it, so this ends.
    let below =
        made.of.iter().filter(|below| storage.volumes.get(**below).is_some_and(|below| below.disk < disk));
    let mut path = below.into_iter().find_map(|below| path(storage, *below))?;
    path.push(volume);
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{DiskLayout, Made};
    use crate::mount::place::Place;

    fn layout(content: Content) -> DiskLayout {
        let superblock = serde_json::json!({
            "content": content, "uuid": null, "label": null, "block-size": 4096, "total-bytes": 4096,
            "state": "clean", "damaged": false, "hibernated": false, "needs-other-device": false,
            "ambivalent": false,
        });
        let volume = Volume {
            disk: 0,
            on: None,
            partition: None,
            offset: 0,
            length: 1 << 20,
            superblock: Some(serde_json::from_value(superblock).unwrap()),
        };
        DiskLayout { bytes: 1 << 20, grub: false, table: None, volumes: vec![volume], warnings: Vec::new() }
    }

    fn made(name: &str, of: usize) -> Option<Made> {
        Some(Made { names: vec![name.to_owned()], of: vec![of], ..Made::default() })
    }

    /// Two disks: a volume group in LUKS on the first, swap on the second.
    fn storage() -> Storage {
        Storage::new(vec![
            (layout(Content::Luks2), None),
            (layout(Content::Swap), None),
            (layout(Content::LvmPv), made("/dev/mapper/luks", 0)),
            (layout(Content::Ext4), made("/dev/vg/root", 2)),
            (layout(Content::Xfs), made("/dev/vg/other", 1)),
        ])
    }

    fn found(name: Option<&str>) -> Result<Target> {
        let home = Place { point: "/home".into(), ..Place::root(4, Content::Xfs, None) };
        let layout = GuestLayout {
            root: Place::root(3, Content::Ext4, None),
            others: vec![home],
            swap: Vec::new(),
            notes: Vec::new(),
        };
        Target::find(&storage(), &layout, name)
    }

    #[test]
    fn volumes_are_found_by_every_name() {
        let root = Target { volume: 3, path: vec![0, 2, 3] };
        for name in [None, Some("/"), Some("vg/root"), Some("/dev/vg/root")] {
            assert_eq!(found(name).unwrap(), root, "{name:?}");
        }
        assert!(root.is_layered() && root.layers(&storage()).count() == 2);
        assert!(found(Some("/srv")).unwrap_err().to_string().contains("/srv names no volume"));
        assert!(found(Some("vg/none")).unwrap_err().what_to_do().unwrap().contains("/dev/vg/root"));
    }

    #[test]
    fn what_cannot_grow_is_refused_by_name() {
        assert!(
            found(Some("/home")).unwrap_err().to_string().contains("/dev/vg/other is not on the first disk")
        );
        assert!(
            found(Some("/dev/sdb"))
                .unwrap_err()
                .to_string()
                .contains("disk 2 cannot be expanded: it holds swap")
        );
    }
}
