//! Mounting the guest's filesystems, each on its own loop device, in the run's private mount namespace.

#![forbid(unsafe_code)]

pub mod damage;
pub mod folder;
mod health;
pub mod options;
pub mod place;
pub mod programs;
pub mod tree;
pub mod wanted;

use std::fs::File;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use sys_mount::{Mount, MountFlags};

use crate::attach::AttachedDisk;
use crate::attach::loopdev::Loop;
use crate::disk::{Content, Storage, Volume};
use crate::error::{Context, Error, Result, all, both};
use crate::sys::ioctl::{LoopWindow, forget_pages};
use crate::sys::partitions::find_partition;
use crate::sys::trouble;
use options::{Access, options};
use place::Place;

/// The volumes of a guest's attached disks as block devices, each made when it is first needed.
#[derive(Debug)]
pub struct Devices {
    disks: Vec<Source>,
    loops: Vec<(usize, u64, Loop)>,
}

/// An attached disk that volumes are cut out of.
#[derive(Debug)]
struct Source {
    file: File,
    read_only: bool,
    /// Its own path when it is a device that needs no other one to be mounted.
    device: Option<PathBuf>,
}

impl Devices {
    /// For the volumes of these disks.
    ///
    /// # Errors
    /// When a disk cannot be opened.
    pub fn new(disks: &[AttachedDisk]) -> Result<Self> {
        let source = |disk: &AttachedDisk| {
            let device = disk.is_device().then(|| disk.path().to_path_buf());
            Ok(Source { file: disk.open()?, read_only: disk.is_read_only(), device })
        };
        Ok(Self { disks: disks.iter().map(source).collect::<Result<_>>()?, loops: Vec::new() })
    }

    /// The bytes of the disk that a volume is on.
    ///
    /// # Errors
    /// When there is no such disk.
    pub fn disk(&self, volume: &Volume) -> Result<&File> {
        self.source(volume.disk).map(|source| &source.file)
    }

    fn source(&self, disk: usize) -> Result<&Source> {
        self.disks.get(disk).ok_or_else(|| Error::failed(format!("disk {} is not attached", disk + 1)))
    }

    /// The block device of a volume.
    ///
    /// # Errors
    /// When no loop device can be had.
    pub fn node(&mut self, volume: &Volume) -> Result<PathBuf> {
        let is_it =
            |(disk, offset, _): &&(usize, u64, Loop)| (*disk, *offset) == (volume.disk, volume.offset);
        if let Some((_, _, device)) = self.loops.iter().find(is_it) {
            return Ok(device.path().to_path_buf());
        }
        let source = self.source(volume.disk)?;
        let own = source.device.as_ref().and_then(|device| match &volume.partition {
            None => Some(device.clone()),
            Some(_) => find_partition(device, volume.offset, volume.length),
        });
        if let Some(node) = own {
            return Ok(node);
        }
        let window = LoopWindow {
            offset: volume.offset,
            length: volume.length,
            block_size: 512,
            read_only: source.read_only,
        };
        let device = Loop::attach(&source.file, window)?;
        let path = device.path().to_path_buf();
        self.loops.push((volume.disk, volume.offset, device));
        Ok(path)
    }

    /// Mounts a volume, with the other devices of its filesystem when it has several.
    ///
    /// # Errors
    /// As [`Self::node`] and [`Mounted::mount`].
    pub fn mount(
        &mut self,
        (storage, index): (&Storage, usize),
        target: &Path,
        place: &Place,
        access: Access,
    ) -> Result<Mounted> {
        let volume = storage.volumes.get(index).ok_or_else(|| Error::failed("there is no such volume"))?;
        let node = self.node(volume)?;
        let others =
            storage.other_devices(index).map(|other| self.node(other)).collect::<Result<Vec<_>>>()?;
        Mounted::mount_several((&node, &others), target, place, access)
    }

    /// Writes out what was written to the devices, so that the disk's own bytes show it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&self) -> Result<()> {
        let flush = |path: &Path| {
            let flushed = File::open(path).and_then(|file| file.sync_all());
            flushed.context(|| format!("cannot flush {}", path.display()))
        };
        self.loops.iter().map(|(_, _, device)| device.path()).try_for_each(flush)?;
        // A partition's own pages were written out when it was unmounted.
        let own = self.disks.iter().filter_map(|source| source.device.as_deref());
        own.into_iter().try_for_each(|path| {
            flush(path)?;
            // Its partitions have pages of their own: what they wrote is not in those of the disk.
            let opened = File::open(path).context(|| format!("cannot open {}", path.display()))?;
            forget_pages(opened).context(|| format!("cannot read {} anew", path.display()))
        })
    }

    /// Flushes and detaches all, and flushes the disk. Nothing may be mounted.
    ///
    /// # Errors
    /// The first that fails; the others are detached all the same.
    pub fn close(self) -> Result<()> {
        let closed = all(self.loops.into_iter().map(|(_, _, device)| device.close()));
        // By the descriptors that were open all the time, so that no error of a write is missed.
        let flush = |source: Source| {
            let flushed = if source.read_only { Ok(()) } else { source.file.sync_all() };
            flushed.context(|| "cannot flush the attached disk")
        };
        both(closed, all(self.disks.into_iter().map(flush)))
    }
}

/// One mounted filesystem.
#[derive(Debug)]
pub struct Mounted {
    mount: Option<Mount>,
    content: Content,
    access: Access,
    /// Where it is for everybody: the mount may have been made by way of an open folder.
    target: PathBuf,
}

impl Mounted {
    /// Mounts a device.
    ///
    /// # Errors
    /// Unsupported for a type that is not on the allow-list and for a filesystem with errors; that the host's kernel
    /// lacks the type.
    pub fn mount(device: &Path, target: &Path, place: &Place, access: Access) -> Result<Self> {
        Self::mount_several((device, &[]), target, place, access)
    }

    fn mount_several(
        (device, others): (&Path, &[PathBuf]),
        target: &Path,
        place: &Place,
        access: Access,
    ) -> Result<Self> {
        let content = place.content;
        let mut options = options(content, access, Some(place))
            .ok_or_else(|| Error::unsupported(format!("guestseal does not mount {content} filesystems")))?;
        for other in others {
            let comma = if options.data.is_empty() { "" } else { "," };
            options.data.push_str(&format!("{comma}device={}", other.display()));
        }
        // One that the user wants read-only has nothing to write out.
        let read_only = options.flags.contains(MountFlags::RDONLY);
        let access = if read_only { Access::Look } else { access };
        let builder = Mount::builder().fstype(options.fs_type).flags(options.flags).data(&options.data);
        let mount = builder.mount(device, target).map_err(|error| damage::mount_error(content, error))?;
        Ok(Self { mount: Some(mount), content, access, target: target.to_path_buf() })
    }

    /// Says where the filesystem is when it was mounted through an open folder, to be unmounted by that name.
    #[must_use]
    pub fn known_as(mut self, target: PathBuf) -> Self {
        self.target = target;
        self
    }

    /// Writes everything out and unmounts.
    ///
    /// # Errors
    /// When something could not be written, or it is still in use.
    pub fn close(mut self) -> Result<()> {
        let written = match self.access {
            Access::Look => Ok(()),
            Access::Change => health::write_out(&self.target, self.content),
        };
        both(written, self.unmount())
    }

    fn unmount(&mut self) -> Result<()> {
        // Tried once: a mount that stays goes with the run's namespace.
        let Some(_) = self.mount.take() else { return Ok(()) };
        // Not by sys-mount: its NOFOLLOW is open(2)'s flag, which umount2(2) refuses.
        umount2(&self.target, MntFlags::UMOUNT_NOFOLLOW)
            .context(|| format!("cannot unmount {}", self.target.display()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            trouble::note(error);
        }
    }
}
