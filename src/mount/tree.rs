//! The mounted guest: its root and everything that its fstab mounts below.

#![forbid(unsafe_code)]

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use super::options::Access;
use super::{Devices, Mounted};
use crate::disk::{Storage, Volume};
use crate::error::{Error, Result, all};
use crate::guest::{FileKind, GuestRoot};
use crate::inspect::layout::volume_name;
use crate::mount::place::{GuestLayout, Place};

/// The mounted guest.
#[derive(Debug)]
pub struct MountedTree {
    // Dropped before the mounts, which an open folder would keep in use.
    root: GuestRoot,
    mounts: Stack,
    folder: PathBuf,
}

/// Mounts, each of which may be on the ones before it: they go in reverse order, also when they are dropped.
#[derive(Debug)]
struct Stack(Vec<Mounted>);

impl Drop for Stack {
    fn drop(&mut self) {
        while self.0.pop().is_some() {}
    }
}

impl MountedTree {
    /// Mounts the guest at `folder` of the host.
    ///
    /// # Errors
    /// When a filesystem cannot be mounted, or a mount point is missing in the guest.
    pub fn mount(
        disk: &Storage,
        guest: &GuestLayout,
        devices: &mut Devices,
        folder: &Path,
        access: Access,
    ) -> Result<Self> {
        let mut mounts = Stack(vec![mount_at(disk, &guest.root, devices, folder, access)?]);
        let mut root = GuestRoot::open(folder)?;
        for place in &guest.others {
            let point = root.resolve(&place.point)?.filter(|entry| entry.kind == FileKind::Folder);
            let point = point.ok_or_else(|| {
                Error::unsupported(format!(
                    "the guest's fstab mounts {}, but there is no such folder",
                    place.point.display()
                ))
                .hint("make the folder in the guest, or take the line out of its fstab")
            })?;
            if point.path == Path::new("/") {
                let what = format!("the guest's fstab mounts {}, which is its root", place.point.display());
                return Err(Error::unsupported(what).hint("take the line out of the guest's fstab"));
            }
            // Through the folder itself, so that no link on the way can lead out of the guest.
            let inside = root.open_folder(&point.path)?;
            let through = PathBuf::from(format!("/proc/self/fd/{}", inside.as_raw_fd()));
            let name = folder.join(point.path.strip_prefix("/").unwrap_or(&point.path));
            mounts.0.push(mount_at(disk, place, devices, &through, access)?.known_as(name));
            root.add_mount_point(point.path);
        }
        Ok(Self { root, mounts, folder: folder.to_path_buf() })
    }

    /// The guest's files.
    pub fn root(&self) -> &GuestRoot {
        &self.root
    }

    /// Where it is mounted, for a script that works in it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Unmounts everything.
    ///
    /// # Errors
    /// The first unmount that fails; the others are tried all the same.
    pub fn close(mut self) -> Result<()> {
        drop(self.root);
        all(std::mem::take(&mut self.mounts.0).into_iter().rev().map(Mounted::close))
    }
}

fn mount_at(
    disk: &Storage,
    place: &Place,
    devices: &mut Devices,
    target: &Path,
    access: Access,
) -> Result<Mounted> {
    let volume: &Volume = &disk.volumes[place.volume];
    devices.mount((disk, place.volume), target, place, access).map_err(|error| {
        error.within(format!("cannot mount {} at {}", volume_name(volume), place.point.display()))
    })
}
