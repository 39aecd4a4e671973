//! Loop devices: a window of a file or device as a block device of its own. Volumes are cut out of the attached disk
//! this way, so neither the kernel's partition parsers nor udev are needed.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use loopdev::{LoopControl, LoopDevice};
use nix::errno::Errno;

use crate::error::{Context, Error, Result, both};
use crate::sys::ioctl::{LoopWindow, loop_clear, loop_configure};
use crate::sys::trouble;

/// How often another process may take the free device before this gives up; each time the kernel names another one.
const ATTEMPTS: u32 = 64;

/// A loop device of this run. It clears itself when its last user is gone, so a kill leaves none.
#[derive(Debug)]
pub struct Loop {
    device: Option<LoopDevice>,
    path: PathBuf,
    /// Open from the start, so that no error of a write is missed; none when it is only read.
    flush: Option<File>,
}

impl Loop {
    /// Attaches a free loop device to a window of `backing`.
    ///
    /// # Errors
    /// When the host has no loop devices, or the kernel refuses.
    pub fn attach(backing: impl AsFd, window: LoopWindow) -> Result<Self> {
        let control = LoopControl::open().map_err(|error| {
            Error::host_lacks("this host has no loop devices (/dev/loop-control)")
                .caused_by(error)
                .hint("load the module `loop`; in a container pass /dev/loop-control and the loop nodes in")
        })?;
        for _ in 0..ATTEMPTS {
            let device = control.next_free().context(|| "cannot open a free loop device")?;
            let path = device.path().ok_or_else(|| Error::failed("a free loop device has no path"))?;
            match loop_configure(device.as_raw_fd(), backing.as_fd(), window) {
                Ok(()) => return Self { device: Some(device), path, flush: None }.watched(&window),
                Err(Errno::EBUSY) => {}
                Err(errno) => return Err(errno).context(|| format!("cannot set up {}", path.display())),
            }
        }
        Err(Error::failed(format!("{ATTEMPTS} free loop devices in turn were taken by others"))
            .hint("try again"))
    }

    fn watched(mut self, window: &LoopWindow) -> Result<Self> {
        if !window.read_only {
            let file = File::open(&self.path).context(|| format!("cannot open {}", self.path.display()))?;
            self.flush = Some(file);
        }
        Ok(self)
    }

    /// The device node.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Flushes and detaches the device. Its filesystem must be unmounted.
    ///
    /// # Errors
    /// When the data cannot be flushed or the device cannot be detached.
    pub fn close(mut self) -> Result<()> {
        self.detach()
    }

    fn detach(&mut self) -> Result<()> {
        // Tried once: a device that stays clears itself when this process ends.
        let Some(device) = self.device.take() else { return Ok(()) };
        let flushed = self.flush.take().map_or(Ok(()), |file| file.sync_all());
        let cleared =
            loop_clear(device.as_raw_fd()).context(|| format!("cannot detach {}", self.path.display()));
        both(flushed.context(|| format!("cannot flush {}", self.path.display())), cleared)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Err(error) = self.detach() {
            trouble::note(error);
        }
    }
}
