//! The mounts of a guest while its own programs run: nowhere else may anything of it be executed.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, statvfs};

use crate::error::{Context, Result, all, both};

/// Mounts whose programs may be executed, in the mount namespace of this run.
#[derive(Debug)]
#[must_use = "they stay executable until they are closed"]
pub struct Executable {
    points: Vec<PathBuf>,
}

impl Executable {
    /// Allows it for the guest mounted at `folder`, and for what is mounted in it at these real paths of the guest.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn allow(folder: &Path, mount_points: &[PathBuf]) -> Result<Self> {
        let below = mount_points.iter().map(|point| folder.join(point.strip_prefix("/").unwrap_or(point)));
        let mut allowed = Self { points: Vec::new() };
        for point in std::iter::once(folder.to_path_buf()).chain(below) {
            match remount(&point, MsFlags::empty()) {
                Ok(()) => allowed.points.push(point),
                // What the host has mounted below a folder that is the guest is not there in this namespace.
                Err(Errno::EINVAL) if point != folder => {}
                Err(errno) => return both(Err(errno).context(|| failed(&point)), allowed.forbid()),
            }
        }
        Ok(allowed)
    }

    /// Forbids it again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn close(mut self) -> Result<()> {
        self.forbid()
    }

    fn forbid(&mut self) -> Result<()> {
        all(self.points.drain(..).map(|point| remount(&point, MsFlags::MS_NOEXEC).context(|| failed(&point))))
    }
}

impl Drop for Executable {
    fn drop(&mut self) {
        if let Err(error) = self.forbid() {
            crate::sys::trouble::note(error);
        }
    }
}

fn failed(point: &Path) -> String {
    format!("cannot change how {} is mounted", point.display())
}

/// Sets the flags of a mount that may be changed, and leaves those that are not about programs.
fn remount(point: &Path, flags: MsFlags) -> nix::Result<()> {
    let kept = [
        (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
    ];
    let now = statvfs(point)?.flags();
    let kept = kept.into_iter().filter(|(has, _)| now.contains(*has)).map(|(_, flag)| flag);
    let always = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(None::<&str>, point, None::<&str>, kept.fold(always | flags, |all, flag| all | flag), None::<&str>)
}
