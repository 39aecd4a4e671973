//! Private mount namespaces: what is mounted there is seen by nobody else and goes with the last process in it.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};
use nix::sched::{CloneFlags, unshare};

use crate::error::{Context, Error, Result};

/// The folder over which a run mounts its own small filesystem; on the host it stays empty.
pub const RUN_FOLDER: &str = "/run/guestseal";

/// Moves this thread into a new mount namespace from which nothing propagates.
///
/// Called twice in a run: the export daemon lives in the outer namespace, guest filesystems are mounted in the inner
/// one, so that after a kill the kernel unmounts them while their daemon is still alive.
///
/// # Errors
/// When not root (CAP_SYS_ADMIN), or the kernel refuses.
pub fn enter_private_mounts() -> Result<()> {
    match unshare(CloneFlags::CLONE_NEWNS) {
        Ok(()) => {}
        Err(Errno::EPERM) => {
            return Err(Error::host_lacks("mounting the guest needs root (CAP_SYS_ADMIN)")
                .hint("run guestseal as root; in a container give it --privileged or CAP_SYS_ADMIN"));
        }
        Err(errno) => return Err(errno).context(|| "cannot make a private mount namespace"),
    }
    nix::mount::mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .context(|| "cannot make the mounts of this run private")
}

/// The run's own filesystem in memory: mount points, the exported disk file, sockets.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    mounted: bool,
}

impl RunFolder {
    /// Mounts it; call in a private namespace only.
    ///
    /// # Errors
    /// When the folder cannot be made or mounted over.
    pub fn mount() -> Result<Self> {
        let path = PathBuf::from(RUN_FOLDER);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .context(|| format!("cannot make the folder {RUN_FOLDER}"))?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        nix::mount::mount(Some("guestseal"), &path, Some("tmpfs"), flags, Some("mode=0700,size=16m"))
            .context(|| format!("cannot mount a private tmpfs at {RUN_FOLDER}"))?;
        Ok(Self { path, mounted: true })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a folder in it and returns its path.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(path),
            result => result.map(|()| path.clone()).context(|| format!("cannot make {}", path.display())),
        }
    }

    /// Takes it out of this namespace, with this namespace's copy of the daemon's export; no filesystem of a guest may
    /// be mounted in it any more.
    ///
    /// # Errors
    /// When it is not mounted.
    pub fn close(mut self) -> Result<()> {
        self.unmount()
    }

    fn unmount(&mut self) -> Result<()> {
        if self.mounted {
            nix::mount::umount2(&self.path, MntFlags::MNT_DETACH)
                .context(|| format!("cannot unmount {RUN_FOLDER}"))?;
            self.mounted = false;
        }
        Ok(())
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            super::trouble::note(error);
        }
    }
}
