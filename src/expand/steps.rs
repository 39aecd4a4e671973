//! The steps of an expansion, on disks of which nothing is mounted: find the volume, refuse what cannot be, and only then
//! write: the partition table, the layers, the filesystem.

use std::io::{Seek, SeekFrom, Write};

use serde::{Deserialize, Serialize};

use super::target::Target;
use super::{Expanded, Growth, filesystem};
use crate::attach::AttachedDisk;
use crate::disk::{GrownTable, Patch, Storage, Volume, grow_partition};
use crate::error::{Context, Error, Result, both};
use crate::inspect::layout::{find_guest, volume_name};
use crate::mount::Devices;
use crate::mount::options::Access;
use crate::report::{Event, Observer, Stage};
use crate::session::Attachment;
use crate::sys::interrupt;
use crate::sys::partitions::resize_partition;

/// The largest unit in which an image keeps data. What lies in the last one behind the old end of the disk was never the
/// guest's, and need not be zero.
const LARGEST_CLUSTER: u64 = 2 << 20;

/// What is to grow.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Request {
    /// By how much the first disk does.
    pub growth: Growth,
    /// The volume that grows; none for the root.
    pub volume: Option<String>,
    /// Which volume has the root, of several.
    pub root: Option<String>,
    /// Whether it is only said what would grow; then the disk is as long as it was.
    pub access: Access,
}

/// What lies between a filesystem and the disk, and can be told that there is more room below.
pub trait Layers {
    /// Refuses what cannot grow, before anything is written.
    ///
    /// # Errors
    /// Unsupported, by name.
    fn check(&mut self, disks: &[AttachedDisk], storage: &Storage, target: &Target) -> Result<()>;

    /// Grows each layer, the lowest first.
    ///
    /// # Errors
    /// When one does not grow.
    fn grow(&mut self, disks: &[AttachedDisk], storage: &Storage, target: &Target) -> Result<()>;
}

/// A host, on which nothing is made of disks.
#[derive(Debug)]
pub struct NoLayers;

impl Layers for NoLayers {
    fn check(&mut self, _: &[AttachedDisk], storage: &Storage, target: &Target) -> Result<()> {
        match target.layers(storage).next() {
            None => Ok(()),
            Some((_, volume)) => {
                let what = format!("what lies on {} grows in a virtual machine only", volume_name(volume));
                Err(Error::unsupported(what).hint("use --isolate auto or vm, without --attach"))
            }
        }
    }

    fn grow(&mut self, _: &[AttachedDisk], _: &Storage, _: &Target) -> Result<()> {
        Ok(())
    }
}

/// Has the volume take the room that the first disk has, or only says what would grow; and whether anything lies between
/// the two, which has to be looked at anew.
///
/// # Errors
/// Unsupported for what cannot grow, before a byte is written; and what fails.
pub fn expand(
    attachment: &Attachment,
    request: &Request,
    layers: &mut dyn Layers,
    observer: &mut dyn Observer,
) -> Result<(Expanded, bool)> {
    let Request { growth, volume, root, access } = request;
    observer.event(Event::Stage(Stage::Expanding));
    let (storage, disks) = (attachment.storage()?, attachment.disks());
    let mut devices = Devices::new(disks)?;
    let layout = find_guest(&storage, root.as_deref(), &mut devices, &attachment.probe()?);
    let layout = both(layout, devices.close())?;
    let target = Target::find(&storage, &layout, volume.as_deref())?;
    let base = target.base(&storage).ok_or_else(|| Error::failed("there is no such volume"))?;
    let disk = disks.first().ok_or_else(|| Error::failed("there is no disk"))?;
    layers.check(disks, &storage, &target)?;
    let table = grown_table(disk, (&storage, base), *growth)?;
    let before = &storage.volumes[target.volume];
    let mut expanded = expanded(*growth, before);
    if *access == Access::Look {
        return Ok((expanded, target.is_layered()));
    }
    interrupt::check_before("expanding the guest")?;
    write(disk, *growth, &table)?;
    if let Some(partition) = base.partition.as_ref().filter(|_| disk.is_device()) {
        let own = table.grown.iter().filter(|(number, ..)| *number == partition.number);
        for (number, start, length) in own {
            resize_partition(disk.open()?, *number, *start, *length)
                .context(|| format!("the kernel does not take the new length of {}", volume_name(base)))?;
        }
    }
    layers.grow(disks, &attachment.storage()?, &target)?;
    let now = attachment.storage()?;
    filesystem::grow(attachment, (&now, target.volume))?;
    let after = attachment.storage()?;
    expanded.filesystem_bytes_after = after.volumes.get(target.volume).and_then(filesystem_bytes);
    if expanded.filesystem_bytes_after < expanded.filesystem_bytes_before {
        return Err(Error::failed(format!("the filesystem on {} did not grow", expanded.volume)));
    }
    Ok((expanded, target.is_layered()))
}

fn expanded(Growth { from, to }: Growth, volume: &Volume) -> Expanded {
    let content = volume.superblock.as_ref().map(|superblock| superblock.content.name());
    Expanded {
        from,
        to,
        volume: volume_name(volume),
        filesystem: content.unwrap_or_default().to_owned(),
        filesystem_bytes_before: filesystem_bytes(volume),
        filesystem_bytes_after: None,
    }
}

fn filesystem_bytes(volume: &Volume) -> Option<u64> {
    volume.superblock.as_ref()?.total_bytes
}

fn grown_table(
    disk: &AttachedDisk,
    (storage, base): (&Storage, &Volume),
    growth: Growth,
) -> Result<GrownTable> {
    let table = storage.disks.first().and_then(|disk| disk.table.as_ref());
    let (Some(table), Some(partition)) = (table, &base.partition) else {
        return Ok(GrownTable { patches: Vec::new(), grown: Vec::new() });
    };
    let wants_room = growth.to > growth.from;
    grow_partition(&mut disk.open()?, growth.to, (table, partition.number), wants_room)
}

/// Writes the table, and zeros into the rest of the image's last unit.
fn write(disk: &AttachedDisk, Growth { from, to }: Growth, table: &GrownTable) -> Result<()> {
    let rest = from.next_multiple_of(LARGEST_CLUSTER).min(to) - from;
    let rest = Patch { at: from, bytes: vec![0; usize::try_from(rest).unwrap_or(0)] };
    let mut file = disk.open()?;
    for Patch { at, bytes } in std::iter::once(&rest).chain(&table.patches) {
        file.seek(SeekFrom::Start(*at))
            .and_then(|_| file.write_all(bytes))
            .context(|| "cannot write the partition table")?;
    }
    file.sync_all().context(|| "cannot write the partition table")?;
    disk.read_anew()
}
