//! Which bytes of a disk should be zero: the free space of each volume, and the gaps between them. The erasure and its
//! proof each ask anew, so that the one does not trust what the other was told.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

use super::extent::{Extent, Extents};
use super::map::{btrfs, fat, fsmap, gaps, swap};
use super::metadata::{self, Act, Remains};
use super::policy::ErasePlan;
use super::report::VolumeErasure;
use super::volume::VolumeBytes;
use crate::disk::thin::free_chunks;
use crate::disk::{Content, ContentClass, FsState, Pool, Segment, Storage, Superblock, Volume};
use crate::error::{Context, Error, ErrorKind, Result, both_values};
use crate::inspect::layout::{check_state, volume_name};
use crate::mount::Devices;
use crate::mount::options::Access;
use crate::mount::place::Place;
use crate::sys::ioctl::forget_pages;

/// How dm-verity marks its hash tree, which may stand behind a filesystem on the same volume.
const VERITY: &[u8] = b"verity\0\0";

/// One volume, or the gaps.
#[derive(Debug)]
pub(super) struct Part {
    /// Which of the disks it is on.
    pub(super) disk: usize,
    /// What is known of it so far.
    pub(super) report: VolumeErasure,
    /// What is free there, where it lies in the end: each disk with its bytes.
    pub(super) free: Vec<(usize, Extents)>,
    /// The volume, where its metadata can be walked.
    filesystem: Option<(Content, u64, u64)>,
}

impl Part {
    fn new(disk: usize, name: String) -> Self {
        let report = VolumeErasure { volume: name, ..VolumeErasure::default() };
        Self { disk, report, free: Vec::new(), filesystem: None }
    }

    /// Takes what is free, in bytes of its disk.
    fn take(&mut self, storage: &Storage, free: &Extents) -> Result<()> {
        (self.report.free_bytes, self.report.extents) = (free.bytes(), free.count());
        let disk = self.disk;
        let lies = free.iter().flat_map(|extent| storage.resolve(disk, extent.start, extent.length));
        self.put(lies.map(|lies| (lies.disk, Extent { start: lies.offset, length: lies.length })))
    }

    /// What no volume of a thin pool uses, by the pool's own metadata as it is now.
    ///
    /// # Errors
    /// When it cannot be read. Metadata that is not understood makes the pool unproven.
    pub(super) fn of_pool(pool: &Pool) -> Result<Self> {
        let mut part = Self::new(usize::MAX, pool.name.clone());
        part.report.method = "space map of the pool".into();
        let free = || -> Result<Vec<(usize, Extent)>> {
            let mut metadata =
                File::open(&pool.metadata).context(|| format!("cannot open {}", pool.metadata.display()))?;
            forget_pages(&metadata).context(|| format!("cannot read {} anew", pool.metadata.display()))?;
            let bytes = pool.copies.first().into_iter().flatten().map(|segment| segment.length).sum();
            let mut found = Vec::new();
            for Range { start, end } in free_chunks(&mut metadata, bytes)? {
                let lies = Segment::resolve(&pool.copies, start, end - start).into_iter().flatten().flatten();
                found
                    .extend(lies.map(|lies| (lies.disk, Extent { start: lies.offset, length: lies.length })));
            }
            Ok(found)
        };
        if let Some(free) = part.judge(free())? {
            let copies = pool.copies.len() as u64;
            part.report.free_bytes = free.iter().map(|(_, extent)| extent.length).sum::<u64>() / copies;
            part.report.extents = free.len() as u64 / copies;
            part.put(free)?;
        }
        Ok(part)
    }

    fn put(&mut self, places: impl IntoIterator<Item = (usize, Extent)>) -> Result<()> {
        let mut below: BTreeMap<usize, Vec<Extent>> = BTreeMap::new();
        for (disk, extent) in places {
            below.entry(disk).or_default().push(extent);
        }
        self.free =
            below.into_iter().map(|(disk, all)| Ok((disk, Extents::new(all)?))).collect::<Result<_>>()?;
        Ok(())
    }

    /// Walks the metadata for what deleted files left there; only `data` of the disk is other than zero. Nothing may be
    /// mounted.
    ///
    /// # Errors
    /// When it cannot be read or written. A filesystem that is not understood is unproven.
    pub(super) fn walk(&mut self, (disk, data): (&File, &Extents), act: Act) -> Result<()> {
        let Some((content, offset, length)) = self.filesystem.filter(|_| self.report.unproven.is_none())
        else {
            return Ok(());
        };
        let volume = VolumeBytes::new(disk, offset, length).with_data(data);
        if let Some(found) = self.judge(walk(content, &volume, act))? {
            self.report.take_metadata(found, act == Act::Count);
        }
        Ok(())
    }

    /// None when the guest keeps it from being done, which makes the volume unproven.
    fn judge<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                self.report.unproven = Some(error.chain());
                Ok(None)
            }
            Err(error) => Err(error.within(format!("cannot erase {}", self.report.volume))),
        }
    }
}

fn walk(content: Content, volume: &VolumeBytes<'_>, act: Act) -> Result<Vec<Remains>> {
    match content {
        Content::Ext2 | Content::Ext3 | Content::Ext4 => metadata::ext::walk(volume, act),
        Content::Xfs => metadata::xfs::walk(volume, act),
        Content::Vfat => metadata::fat::walk(volume, act),
        // btrfs writes metadata anew each time and zeroes what it leaves unused in a block.
        _ => Ok(Vec::new()),
    }
}

/// Swap space in a file of the guest.
#[derive(Debug, Clone)]
pub struct SwapFile {
    /// The index of the volume that it is on.
    pub volume: usize,
    /// Where it is there, in bytes of the volume; or why that cannot be told.
    pub place: Result<Extents, String>,
}

/// Finds what of the disks is free. Nothing of them may be mounted; `probe` is an empty folder.
///
/// # Errors
/// When something cannot be read or a device cannot be made.
pub(super) fn find(
    storage: &Storage,
    devices: &mut Devices,
    probe: &Path,
    plan: ErasePlan,
    swap_files: &[SwapFile],
) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for (index, volume) in storage.volumes.iter().enumerate() {
        let mut part = Part::new(volume.disk, volume_name(volume));
        let found = match storage.is_opened(index) {
            true => opened(&mut part, storage, index),
            false => free_space(&mut part, (storage, index), devices, probe),
        };
        if let Some(free) = part.judge(found)? {
            let files = || swap_files.iter().filter(|file| file.volume == index).map(|file| &file.place);
            part.report.unproven = files().find_map(|place| place.clone().err()).or(part.report.unproven);
            let swap = files().flatten().flat_map(Extents::iter);
            let tail = if plan.keep_gaps { None } else { tail(volume, devices.disk(volume)?)? };
            let free = Extents::new(free.iter().chain(swap).chain(tail))?;
            part.take(storage, &free.within(0, volume.length).shifted(volume.offset))?;
        }
        parts.push(part);
    }
    for (index, disk) in storage.disks.iter().enumerate().filter(|_| !plan.keep_gaps) {
        let between = gaps::gaps(disk)?;
        if between.count() > 0 {
            let on = storage.disk_name(index).map_or(String::new(), |name| format!(" of {name}"));
            let mut part = Part::new(index, format!("gaps{on}"));
            part.report.method = "whole".into();
            part.take(storage, &between)?;
            parts.push(part);
        }
    }
    Ok(parts)
}

/// Of a volume that others are made of: what belongs to none of them. Those are looked at by themselves.
fn opened(part: &mut Part, storage: &Storage, index: usize) -> Result<Extents> {
    part.report.content = storage.volumes[index].superblock.as_ref().map(|it| it.content.name().to_owned());
    part.report.method = "what is made of it is looked at by itself".into();
    let made = || storage.disks.iter().filter_map(|disk| disk.made.as_ref());
    let own = made().filter(|made| made.of.first() == Some(&index));
    part.report.holds.extend(own.flat_map(|made| made.holds.iter().cloned()));
    let free = made().flat_map(|made| &made.free).filter(|(volume, ..)| *volume == index);
    Extents::new(free.map(|(_, start, length)| Extent { start: *start, length: *length }))
}

/// The free space of one volume, in its own bytes.
fn free_space(
    part: &mut Part,
    (storage, index): (&Storage, usize),
    devices: &mut Devices,
    probe: &Path,
) -> Result<Extents> {
    let volume = &storage.volumes[index];
    let Some(superblock) = &volume.superblock else {
        part.report.method = "none: it holds nothing known, and stays as it is".into();
        return Ok(Extents::default());
    };
    let content = superblock.content;
    part.report.content = Some(content.name().to_owned());
    let method = |part: &mut Part, name: &str| part.report.method = name.into();
    match content {
        Content::Swap => {
            method(part, "whole, but for its header");
            swap::extents(&VolumeBytes::new(devices.disk(volume)?, volume.offset, volume.length))
        }
        Content::Vfat => {
            method(part, "allocation table");
            part.filesystem = Some((content, volume.offset, volume.length));
            fat::free_extents(&VolumeBytes::new(devices.disk(volume)?, volume.offset, volume.length))
        }
        Content::Ext2 | Content::Ext3 | Content::Ext4 | Content::Xfs => {
            method(part, "FS_IOC_GETFSMAP");
            part.filesystem = Some((content, volume.offset, volume.length));
            mounted((storage, index), superblock, devices, probe, |folder| fsmap::free_extents(folder))
        }
        Content::Btrfs => {
            method(part, "extent tree");
            let device = superblock.btrfs.as_ref().map_or(1, |device| device.device_id);
            let found = mounted((storage, index), superblock, devices, probe, |folder| {
                BtrfsSpace::of(folder, device)
            })?;
            part.report.holds.extend(found.holds);
            Ok(found.free)
        }
        _ => {
            method(part, "none");
            unknown(part, content).map(|()| Extents::default())
        }
    }
}

/// What of a btrfs should be zero, and what else it holds.
struct BtrfsSpace {
    free: Extents,
    holds: Vec<String>,
}

impl BtrfsSpace {
    fn of(mounted: &File, device: u64) -> Result<Self> {
        let mut free = btrfs::free_extents(mounted)?;
        let free =
            free.remove(&device).ok_or_else(|| Error::unsupported("its trees do not name this device"))?;
        let mut unread = btrfs::unread(mounted)?;
        let plain = unread.plain.remove(&device).unwrap_or_default();
        let mut holds: Vec<String> =
            btrfs::snapshots(mounted)?.into_iter().map(|name| format!("the snapshot {name}")).collect();
        let overwritten = unread.checked.bytes().saturating_add(unread.compressed);
        if overwritten > 0 {
            holds.push(format!(
                "{overwritten} bytes that were overwritten or cut off in extents that files still use"
            ));
        }
        if unread.deleted_files > 0 {
            holds.push(format!("{} files that were deleted while they were open", unread.deleted_files));
        }
        Ok(Self { free: Extents::new(free.iter().chain(plain.iter()))?, holds })
    }
}

/// What cannot be mapped is unproven where deleted files of the guest may be in it.
fn unknown(part: &mut Part, content: Content) -> Result<()> {
    if content.is_read_only() {
        part.report.method = "none: nothing is ever deleted from it".into();
        return Ok(());
    }
    if content.class() == ContentClass::Filesystem && !content.is_linux_filesystem() {
        part.report.holds.push(format!("the {content}, which is not looked into"));
        return Ok(());
    }
    Err(Error::unsupported(format!("guestseal does not know what is free in {content}")))
}

/// Looks at a filesystem through the kernel, read-only.
fn mounted<T>(
    (storage, index): (&Storage, usize),
    superblock: &Superblock,
    devices: &mut Devices,
    probe: &Path,
    look: impl FnOnce(&File) -> Result<T>,
) -> Result<T> {
    check_state(&storage.volumes[index])?;
    if superblock.state == FsState::NeedsRecovery {
        return Err(Error::unsupported("it was not unmounted, so its journal may still change what is free"));
    }
    let place = Place::root(index, superblock.content, None);
    let mounted = devices.mount((storage, index), probe, &place, Access::Look)?;
    let looked =
        File::open(probe).context(|| "cannot open the mounted filesystem").and_then(|folder| look(&folder));
    both_values(looked, mounted.close()).map(|(value, ())| value)
}

/// What lies behind the end of a filesystem that is smaller than its volume.
fn tail(volume: &Volume, disk: &File) -> Result<Option<Extent>> {
    let superblock = volume.superblock.as_ref().filter(|superblock| superblock.also.is_empty());
    let is_whole = |content| matches!(content, Content::Ext2 | Content::Ext3 | Content::Ext4 | Content::Xfs);
    let Some(end) = superblock.filter(|s| is_whole(s.content)).and_then(|superblock| superblock.total_bytes)
    else {
        return Ok(None);
    };
    let tail = Extent::between(end, volume.length);
    if tail.length >= VERITY.len() as u64 {
        let mark = VolumeBytes::new(disk, volume.offset, volume.length).read_vec(end, VERITY.len())?;
        return Ok((mark != VERITY).then_some(tail));
    }
    Ok((tail.length > 0).then_some(tail))
}
