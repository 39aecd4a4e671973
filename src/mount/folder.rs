//! A folder of the host as the guest's root: bound to a place of the run in its private mount namespace, where nothing in
//! it can be started or acts as a device. What else is mounted below the folder stays outside.

use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, fstat, stat};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::syncfs;

use super::options::Access;
use crate::error::{Context, Error, ErrorKind, Result, both};
use crate::sys::namespace::{RunFolder, enter_private_mounts};
use crate::sys::trouble;

/// The bound folder; in the order of taking apart.
#[derive(Debug)]
pub struct BoundFolder {
    bind: Bind,
    run: RunFolder,
    access: Access,
    below: Vec<PathBuf>,
}

/// The bind mount itself.
#[derive(Debug)]
struct Bind {
    place: PathBuf,
    mounted: bool,
}

impl BoundFolder {
    /// Binds a folder, given by its real path, in a mount namespace of this run.
    ///
    /// # Errors
    /// When the host cannot; a usage error when the folder is the root of this running system.
    pub fn bind(folder: &Path, access: Access) -> Result<Self> {
        enter_private_mounts().map_err(|error| match error.kind() {
            ErrorKind::HostLacks => error.hint("run guestseal as root; in a container give it CAP_SYS_ADMIN"),
            _ => error,
        })?;
        // Opened in the namespace in which it is bound, and bound by this descriptor: its path may be exchanged.
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let source = open(folder, flags, Mode::empty())
            .context(|| format!("cannot open the folder {}", folder.display()))?;
        refuse_running_root(&source, folder)?;
        if access == Access::Change {
            refuse_read_only(&source, folder)?;
        }
        let mounts = fs::read("/proc/thread-self/mountinfo").context(|| "cannot see what is mounted")?;
        let below = mounts_below(&mounts, folder);
        let run = RunFolder::mount()?;
        let bind = Bind::mount(&source, run.folder("root")?, access)
            .map_err(|error| error.within(format!("cannot bind {}", folder.display())))?;
        Ok(Self { bind, run, access, below })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.bind.place
    }

    /// What else of the host is mounted below the folder, as paths of the guest.
    pub fn mounts_below(&self) -> &[PathBuf] {
        &self.below
    }

    /// Writes out what was changed, and unmounts.
    ///
    /// # Errors
    /// When something could not be written, or the folder is still in use.
    pub fn close(self) -> Result<()> {
        let Self { mut bind, run, access, below: _ } = self;
        let written = match access {
            Access::Look => Ok(()),
            Access::Change => bind.write_out(),
        };
        both(both(written, bind.unmount()), run.close())
    }
}

impl Bind {
    fn mount(source: &OwnedFd, place: PathBuf, access: Access) -> Result<Self> {
        let from = format!("/proc/self/fd/{}", source.as_raw_fd());
        mount(Some(from.as_str()), &place, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .context(|| "mount(2) failed")?;
        let bind = Self { place, mounted: true };
        restrict(&bind.place, access).context(|| "the mount cannot be restricted")?;
        Ok(bind)
    }

    fn write_out(&self) -> Result<()> {
        let failed = || "cannot write out the filesystem of the folder";
        let folder = fs::File::open(&self.place).context(failed)?;
        syncfs(&folder).context(failed)
    }

    fn unmount(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.mounted) {
            return Ok(());
        }
        umount2(&self.place, MntFlags::UMOUNT_NOFOLLOW)
            .context(|| format!("cannot unmount {}", self.place.display()))
    }
}

impl Drop for Bind {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            trouble::note(error);
        }
    }
}

/// A new bind mount has the flags of its source; only a second call sets others.
fn restrict(place: &Path, access: Access) -> nix::Result<()> {
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
    flags |= MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if access == Access::Look {
        flags |= MsFlags::MS_RDONLY;
    }
    let remount = |flags| mount(None::<&str>, place, None::<&str>, flags, None::<&str>);
    match remount(flags | MsFlags::MS_NOATIME) {
        // In a user namespace the times of access stay as they are configured.
        Err(Errno::EPERM) => remount(flags),
        result => result,
    }
}

/// By what the kernel tells folders apart: a link or a bind mount has another name and is the same folder.
fn refuse_running_root(folder: &OwnedFd, path: &Path) -> Result<()> {
    let own = fstat(folder).context(|| format!("cannot examine {}", path.display()))?;
    // In a chroot the first is another one than that of init; where init's cannot be seen there is only the first.
    let running = ["/", "/proc/1/root"].into_iter().filter_map(|root| stat(root).ok());
    for root in running {
        if (root.st_dev, root.st_ino) == (own.st_dev, own.st_ino) {
            return Err(Error::usage(format!("{} is the root of this running system", path.display()))
                .hint("--tree takes the folder of a guest that does not run"));
        }
    }
    Ok(())
}

/// The bind mount would have no such flag, and write where the user had forbidden it.
fn refuse_read_only(folder: &OwnedFd, path: &Path) -> Result<()> {
    let facts = fstatvfs(folder).context(|| format!("cannot examine {}", path.display()))?;
    if facts.flags().contains(FsFlags::ST_RDONLY) {
        return Err(Error::failed(format!("{} is mounted read-only", path.display()))
            .hint("mount it writable, or seal a copy"));
    }
    Ok(())
}

/// The mount points below a folder, as paths from it, each once (proc_pid_mountinfo(5): the fifth field).
fn mounts_below(mountinfo: &[u8], folder: &Path) -> Vec<PathBuf> {
    let points = mountinfo.split(|byte| *byte == b'\n').filter_map(|line| {
        let point = unescape(line.split(|byte| *byte == b' ').nth(4)?);
        let below = point.strip_prefix(folder).ok().filter(|below| !below.as_os_str().is_empty())?;
        Some(Path::new("/").join(below))
    });
    let mut points: Vec<_> = points.collect();
    points.sort_unstable();
    points.dedup();
    points
}

/// Blanks, line ends and backslashes stand as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let (mut bytes, mut at) = (Vec::with_capacity(field.len()), 0);
    while let Some(byte) = field.get(at) {
        let digits = field.get(at + 1..at + 4).filter(|_| *byte == b'\\');
        let number = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(number.unwrap_or(*byte));
        at += if number.is_some() { 4 } else { 1 };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_are_found_by_whole_names_and_unescaped() {
        let line = |point: &str| format!("92 27 7:3 / {point} rw,nosuid - ext4 /dev/loop3 rw\n");
        let points =
            ["/", "/srv", "/srv/a", "/srv/a/proc", "/srv/a/my\\040dir\\134x", "/srv/ab", "/srv/a/proc"];
        let text = points.map(line).concat();
        let found = mounts_below(text.as_bytes(), Path::new("/srv/a"));
        assert_eq!(found, [Path::new("/my dir\\x"), Path::new("/proc")]);
        assert!(mounts_below(b"nonsense\n\n1 2 3", Path::new("/srv")).is_empty());
        assert_eq!(unescape(b"a\\04"), Path::new("a\\04"));
        assert_eq!(unescape(b"a\\999\\"), Path::new("a\\999\\"));
    }
}
