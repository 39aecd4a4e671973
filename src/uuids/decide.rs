//! Which volumes of a guest get new UUIDs, and whether the guest boots with them.

#![forbid(unsafe_code)]

use std::path::Path;

use super::{Form, Kind, NewUuid, random, random_serial};
use crate::disk::{Content, Storage, Superblock, Volume};
use crate::error::{Error, Result};
use crate::inspect::layout::volume_name;
use crate::mount::place::GuestLayout;
use crate::plan::Planned;
use crate::report::{Event, Observer};

/// Partitions with boot loaders and their configuration, by type: EFI system partitions and XBOOTLDR of GPT, EFI of MBR.
const BOOT_PARTITIONS: [&str; 3] =
    ["c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "bc13c2ff-59e6-4262-a352-b275fd6f7172", "0xef"];

/// A guest whose volumes may get new UUIDs.
#[derive(Debug, Clone, Copy)]
pub struct Volumes<'a> {
    /// All that is there.
    pub storage: &'a Storage,
    /// What the guest uses of it.
    pub layout: &'a GuestLayout,
    /// Whether there may be other systems: then only what the guest's fstab names is its own.
    pub several: bool,
}

impl Volumes<'_> {
    /// Refuses what the guest would not boot with.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`] when something that cannot be mended finds the guest by a UUID.
    pub fn check(&self, wanted: &[Kind]) -> Result<()> {
        if wanted.contains(&Kind::Filesystems) {
            self.check_boot_partitions()?;
        }
        wanted.iter().try_for_each(|kind| self.check_grub(*kind))
    }

    /// GRUB's configuration on a partition that is not mounted would still have the old UUIDs.
    fn check_boot_partitions(&self) -> Result<()> {
        let is_mounted = |index| self.places().any(|place| place == index);
        let unseen = self.storage.volumes.iter().enumerate().find(|(index, volume)| {
            let partition = volume.partition.as_ref();
            let boots = partition.is_some_and(|part| BOOT_PARTITIONS.contains(&part.type_id.as_str()));
            boots && volume.superblock.is_some() && !is_mounted(*index)
        });
        let Some((_, volume)) = unseen else { return Ok(()) };
        Err(Error::unsupported(format!(
            "what boots the guest from {} cannot be seen: it may find filesystems by the UUIDs they have now",
            volume_name(volume)
        ))
        .hint("name the partition in the guest's /etc/fstab, or leave fs-uuids out; --isolate vm helps where the host cannot mount it"))
    }

    /// The image of GRUB that a BIOS starts has a UUID built in, compressed, where /boot is not simply on the same disk.
    fn check_grub(&self, kind: Kind) -> Result<()> {
        let Some(disk) = self.storage.disks.iter().position(|disk| disk.grub) else { return Ok(()) };
        let boot = self.storage.volumes.get(self.boot());
        let found_by = match kind {
            Kind::Filesystems => {
                let plain = boot.is_some_and(|boot| {
                    self.storage.disks.get(boot.disk).is_some_and(|disk| disk.made.is_none())
                });
                let there =
                    boot.is_some_and(|boot| self.storage.disks.get(boot.disk).is_some_and(|disk| disk.grub));
                (plain && !there).then_some("the UUID of its filesystem")
            }
            Kind::Lvm => self.boot_is_below(&[Content::LvmPv]).then_some("the UUID of its volume group"),
            Kind::Luks => {
                self.boot_is_below(&[Content::Luks1, Content::Luks2]).then_some("the UUID of its encryption")
            }
            Kind::Md => self.boot_is_below(&[Content::MdMember]).then_some("the UUID of its array"),
        };
        let Some(found_by) = found_by else { return Ok(()) };
        Err(Error::unsupported(format!(
            "GRUB on disk {} finds /boot by {found_by}, which is built into it: the guest would not boot",
            disk + 1
        ))
        .hint("leave the operation out, and run it on each clone followed by grub-install; or keep /boot on a partition"))
    }

    /// The volume with /boot.
    fn boot(&self) -> usize {
        let own = self.layout.others.iter().filter(|place| Path::new("/boot").starts_with(&place.point));
        own.max_by_key(|place| place.point.components().count())
            .map_or(self.layout.root.volume, |place| place.volume)
    }

    /// Whether /boot lies on something like this, however deep.
    fn boot_is_below(&self, contents: &[Content]) -> bool {
        let (mut below, mut at) = (vec![self.boot()], 0);
        while let Some(volume) = below.get(at).and_then(|index| self.storage.volumes.get(*index)) {
            at += 1;
            if volume.superblock.as_ref().is_some_and(|superblock| contents.contains(&superblock.content)) {
                return true;
            }
            let made = self.storage.disks.get(volume.disk).and_then(|disk| disk.made.as_ref());
            for index in made.into_iter().flat_map(|made| &made.of) {
                if !below.contains(index) {
                    below.push(*index);
                }
            }
        }
        false
    }

    fn places(&self) -> impl Iterator<Item = usize> {
        let mounted = std::iter::once(&self.layout.root).chain(&self.layout.others).map(|place| place.volume);
        mounted.chain(self.layout.swap.iter().copied())
    }

    /// Gives each operation the UUIDs that it replaces. Those of volumes below others are `given` where something is
    /// changed; where the guest is only looked at, every new one is the old one.
    ///
    /// # Errors
    /// When there are no random numbers.
    pub fn decide(
        &self,
        operations: &mut [Planned],
        given: Option<&[NewUuid]>,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        for planned in operations.iter_mut().filter(|planned| !planned.settings.recorded) {
            let kinds: Vec<Kind> = planned.operation.new_uuids().collect();
            let mut all: Vec<NewUuid> = Vec::new();
            for kind in &kinds {
                match given.filter(|_| kind.is_below()) {
                    Some(given) => all.extend(given.iter().filter(|uuid| kind.has(uuid.form)).cloned()),
                    None => all.extend(self.found(*kind, observer)?.into_iter().map(|uuid| {
                        if given.is_some() { uuid } else { NewUuid { new: uuid.old.clone(), ..uuid } }
                    })),
                }
            }
            planned.settings.uuids = (!kinds.is_empty()).then_some(all);
        }
        Ok(())
    }

    /// Whether a filesystem has several devices. Its tool looks for them on the whole machine.
    pub fn has_several_devices(&self) -> bool {
        let superblocks = self.storage.volumes.iter().filter_map(|volume| volume.superblock.as_ref());
        superblocks.filter_map(|superblock| superblock.btrfs.as_ref()).any(|device| device.devices > 1)
    }

    /// Whether there is anything of the kind.
    pub fn has(&self, kind: Kind) -> bool {
        let contents = self.storage.volumes.iter().filter_map(|volume| volume.superblock.as_ref());
        contents.into_iter().any(|superblock| kind.form_of(superblock.content).is_some())
    }

    fn found(&self, kind: Kind, observer: &mut dyn Observer) -> Result<Vec<NewUuid>> {
        let mut all: Vec<NewUuid> = Vec::new();
        for (index, volume) in self.storage.volumes.iter().enumerate() {
            let own = !self.several || kind != Kind::Filesystems || self.places().any(|place| place == index);
            let Some(superblock) = volume.superblock.as_ref().filter(|_| own) else { continue };
            let what = format!("{} on {}", superblock.content, volume_name(volume));
            match (replacement(kind, superblock, what), &superblock.uuid) {
                (Some(new), _) => {
                    let new = new?;
                    // One filesystem may have several devices, and an array several members.
                    if !all.iter().any(|other| other.old == new.old) {
                        all.push(new);
                    }
                }
                (None, Some(_)) if kind == Kind::Filesystems && keeps(superblock.content) => {
                    let what = format!(
                        "the {} keeps its UUID: nothing here can change it",
                        name(volume, superblock)
                    );
                    observer.event(Event::Warning(&what));
                }
                _ => {}
            }
        }
        if kind == Kind::Lvm {
            all.extend(self.groups()?);
        }
        Ok(all)
    }

    /// Volume groups, by the names that udev makes of their UUIDs.
    fn groups(&self) -> Result<Vec<NewUuid>> {
        let mut all: Vec<NewUuid> = Vec::new();
        let made = self.storage.disks.iter().filter_map(|disk| disk.made.as_ref());
        for name in made.flat_map(|made| &made.names) {
            let digits = name.strip_prefix("/dev/disk/by-id/dm-uuid-LVM-").and_then(|both| both.get(..32));
            let Some(old) = digits.map(with_hyphens) else { continue };
            if !all.iter().any(|other| other.old == old) {
                let new = with_hyphens(&random()?.replace('-', ""));
                all.push(NewUuid { what: "a volume group".into(), form: Form::VolumeGroup, old, new });
            }
        }
        Ok(all)
    }
}

/// LVM's own way to write 32 letters and digits.
fn with_hyphens(digits: &str) -> String {
    let ends = [0, 6, 10, 14, 18, 22, 26, 32];
    let parts: Vec<&str> = ends.windows(2).filter_map(|ends| digits.get(ends[0]..ends[1])).collect();
    parts.join("-")
}

fn name(volume: &Volume, superblock: &Superblock) -> String {
    format!("{} on {}", superblock.content, volume_name(volume))
}

/// Filesystems that have a UUID and no tool to change it.
fn keeps(content: Content) -> bool {
    matches!(
        content,
        Content::F2fs
            | Content::Bcachefs
            | Content::Reiserfs
            | Content::Jfs
            | Content::Nilfs2
            | Content::Exfat
            | Content::Ntfs
    )
}

impl Kind {
    fn has(self, form: Form) -> bool {
        match form {
            Form::Plain | Form::Serial => self == Self::Filesystems,
            Form::Luks => self == Self::Luks,
            Form::Array => self == Self::Md,
            Form::PhysicalVolume | Form::VolumeGroup => self == Self::Lvm,
        }
    }

    /// The form of the UUIDs that this has of what a volume holds.
    fn form_of(self, content: Content) -> Option<Form> {
        let form = match content {
            Content::Ext2 | Content::Ext3 | Content::Ext4 | Content::Xfs | Content::Btrfs | Content::Swap => {
                Form::Plain
            }
            Content::Vfat => Form::Serial,
            Content::Luks1 | Content::Luks2 => Form::Luks,
            Content::MdMember => Form::Array,
            Content::LvmPv => Form::PhysicalVolume,
            _ => return None,
        };
        self.has(form).then_some(form)
    }
}

/// None for what gets no new one.
fn replacement(kind: Kind, superblock: &Superblock, what: String) -> Option<Result<NewUuid>> {
    let form = kind.form_of(superblock.content)?;
    let old = superblock.uuid.clone().filter(|_| !superblock.damaged)?;
    let new = match form {
        Form::Serial => random_serial(),
        Form::PhysicalVolume | Form::VolumeGroup => random().map(|uuid| with_hyphens(&uuid.replace('-', ""))),
        Form::Plain | Form::Luks | Form::Array => random(),
    };
    Some(new.and_then(|new| NewUuid { what, form, old, new }.checked()))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::disk::{Disk, Made, probe};
    use crate::error::ErrorKind;
    use crate::mount::place::Place;

    /// A volume of this content on a disk.
    fn volume(disk: usize, content: Content) -> Volume {
        // A superblock as the probe gives it, for the fields that nobody asks for here.
        let mut page = vec![0; 4096 + 1024];
        page[4096 - 10..4096].copy_from_slice(b"SWAPSPACE2");
        page[1024..1028].copy_from_slice(&1u32.to_le_bytes());
        page[1028..1032].copy_from_slice(&1u32.to_le_bytes());
        page.resize(1 << 20, 0);
        let swap = probe(&mut Cursor::new(page), 0, 1 << 20).unwrap().unwrap();
        let uuid = Some(format!("00000000-0000-4000-8000-{disk:012x}"));
        let superblock = Some(Superblock { content, uuid, ..swap });
        Volume { disk, on: None, partition: None, offset: 0, length: 1, superblock }
    }

    fn storage(disks: &[(bool, Option<usize>)], contents: &[Content]) -> Storage {
        let disk = |(grub, of): &(bool, Option<usize>)| {
            let made = of.map(|of| Made { of: vec![of], ..Made::default() });
            Disk { made, bytes: 1, grub: *grub, table: None }
        };
        let volumes = contents.iter().enumerate().map(|(disk, content)| volume(disk, *content)).collect();
        Storage { disks: disks.iter().map(disk).collect(), volumes, warnings: Vec::new() }
    }

    fn layout(root: usize) -> GuestLayout {
        let root = Place::root(root, Content::Ext4, None);
        GuestLayout { root, others: Vec::new(), swap: Vec::new(), notes: Vec::new() }
    }

    #[test]
    fn what_is_built_into_grub_is_refused_where_boot_lies_on_it() {
        use Content::{Ext4, Luks2, LvmPv, MdMember};
        for (content, kind) in [(LvmPv, Kind::Lvm), (Luks2, Kind::Luks), (MdMember, Kind::Md)] {
            for grub in [true, false] {
                let storage = storage(&[(grub, None), (false, Some(0))], &[content, Ext4]);
                let volumes = |root| (layout(root), &storage);
                let (layered, storage) = volumes(1);
                let check = Volumes { storage, layout: &layered, several: false };
                let refused = check.check(&[kind]).err().map(|error| error.kind());
                assert_eq!(refused, grub.then_some(ErrorKind::Unsupported), "{kind:?}");
                check.check(&[Kind::Filesystems]).unwrap();
            }
        }
        // /boot on the second of two disks, and GRUB on the first.
        let two = storage(&[(true, None), (false, None)], &[Ext4, Ext4]);
        for (root, good) in [(0, true), (1, false)] {
            let layout = layout(root);
            let volumes = Volumes { storage: &two, layout: &layout, several: false };
            assert_eq!(volumes.check(&[Kind::Filesystems]).is_ok(), good);
        }
    }

    #[test]
    fn one_of_several_systems_keeps_its_hands_off_the_others() {
        let two = storage(&[(false, None), (false, None)], &[Content::Ext4, Content::Xfs]);
        let layout = layout(0);
        let found = |several| {
            let volumes = Volumes { storage: &two, layout: &layout, several };
            volumes.found(Kind::Filesystems, &mut crate::report::Silent).unwrap().len()
        };
        assert_eq!((found(false), found(true)), (2, 1));
    }
}
