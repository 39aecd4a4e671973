//! Attaching an image: it becomes one disk that can be read and written as raw bytes, through nbd, a FUSE export or
//! (raw images only) itself. One guard for each way, with `close`.

pub mod data;
pub mod fuse;
pub mod loopdev;
pub mod nbd;
pub mod nbd_protocol;
mod nbd_server;
pub mod nbd_status;
#[cfg(test)]
mod nbd_testing;
pub mod remote;

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::disk::{Made, Storage, read_disk};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::image::live::DiskFiles;
use crate::sys::child::Exit;
use crate::sys::ioctl::forget_pages;
pub use data::DataSource;
use fuse::FuseDisk;
use nbd::NbdDisk;

/// How long a server may take from closing its connections to its end.
const LAST_MOMENTS: Duration = Duration::from_secs(5);

/// What qemu is to open: the node tree of a block device, as qemu's `--blockdev` takes it, every format named.
#[derive(Debug, Clone)]
pub struct ImageSpec {
    /// The tree.
    pub layers: Value,
    /// Whether the disk is only read.
    pub read_only: bool,
    /// The files behind it, for who cannot ask qemu where they have data.
    pub files: Option<Arc<DiskFiles>>,
}

/// The ways to attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// qemu-nbd and the kernel's nbd device.
    Nbd,
    /// qemu-storage-daemon's FUSE export.
    Fuse,
    /// The raw image itself; only for --in-place.
    Loop,
}

impl Way {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nbd => "nbd",
            Self::Fuse => "fuse",
            Self::Loop => "loop",
        }
    }
}

/// An attached disk. Volumes are cut out of it with [`loopdev::Loop`].
#[derive(Debug)]
pub struct AttachedDisk {
    guard: Guard,
    path: PathBuf,
    read_only: bool,
}

#[derive(Debug)]
enum Guard {
    Nbd(NbdDisk),
    Fuse(FuseDisk),
    Raw,
    /// A block device that was there before.
    Device {
        /// What it is made of, when it is made of others.
        made: Option<Made>,
        /// Who knows where it has data; none when nobody does.
        data: Option<Box<dyn DataSource>>,
    },
}

impl AttachedDisk {
    /// Attaches `spec` in the given way; the folder is its own and takes what has to be mounted or made.
    ///
    /// # Errors
    /// When the way does not work on this host, or the image cannot be opened.
    pub fn attach(spec: &ImageSpec, way: Way, folder: &Path) -> Result<Self> {
        let guard = match way {
            Way::Fuse => Guard::Fuse(FuseDisk::attach(spec, folder)?),
            Way::Nbd => Guard::Nbd(NbdDisk::attach(spec, folder)?),
            Way::Loop => Guard::Raw,
        };
        let path = match &guard {
            Guard::Nbd(disk) => disk.device().to_path_buf(),
            Guard::Fuse(disk) => disk.file().to_path_buf(),
            Guard::Raw | Guard::Device { .. } => raw_file(&spec.layers)?,
        };
        Ok(Self { guard, path, read_only: spec.read_only })
    }

    /// A block device of this machine, and what it is made of when it is made of others.
    pub fn device(path: PathBuf, made: Option<Made>, read_only: bool) -> Self {
        Self { guard: Guard::Device { made, data: None }, path, read_only }
    }

    /// The same when somebody knows where the device has data: the kernel does not.
    #[must_use]
    pub fn with_data_from(mut self, source: Box<dyn DataSource>) -> Self {
        if let Guard::Device { data, .. } = &mut self.guard {
            *data = Some(source);
        }
        self
    }

    /// Forgets what was read of a block device, so that it is read from the device again.
    ///
    /// # Errors
    /// When the kernel does not.
    pub fn read_anew(&self) -> Result<()> {
        if !self.is_device() {
            return Ok(());
        }
        forget_pages(self.open()?).context(|| format!("cannot read {} anew", self.path.display()))
    }

    /// What it is made of; a disk is made of nothing.
    pub fn made(&self) -> Option<&Made> {
        match &self.guard {
            Guard::Device { made, .. } => made.as_ref(),
            _ => None,
        }
    }

    /// Whether it can be told where it has holes.
    pub fn tells_holes(&self) -> bool {
        !matches!(self.guard, Guard::Device { data: None, .. })
    }

    /// Whether it is a block device that can be mounted as it is.
    pub fn is_device(&self) -> bool {
        matches!(self.guard, Guard::Device { .. })
    }

    /// Opens the disk's bytes.
    ///
    /// # Errors
    /// When that fails.
    pub fn open(&self) -> Result<File> {
        let mut options = File::options();
        options
            .read(true)
            .write(!self.read_only)
            .open(&self.path)
            .context(|| format!("cannot open {}", self.path.display()))
    }

    /// The length of the disk in bytes.
    ///
    /// # Errors
    /// When it cannot be measured.
    pub fn bytes(&self) -> Result<u64> {
        self.open()?.seek(SeekFrom::End(0)).context(|| format!("cannot measure {}", self.path().display()))
    }

    /// Whether it is only read.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Where the disk is: a file or block device of this run.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same failure of whatever used the disk; when its server has gone, as one that followed from that. A signal
    /// that stopped the run stays what it is.
    #[must_use]
    pub fn blame(&self, error: Error) -> Error {
        let serves = match &self.guard {
            _ if error.kind() == ErrorKind::Stopped => Ok(()),
            Guard::Nbd(disk) => disk.check(),
            Guard::Fuse(disk) => disk.check(),
            Guard::Raw | Guard::Device { .. } => Ok(()),
        };
        match serves {
            Ok(()) => error,
            Err(lost) => lost.and_also(error),
        }
    }

    /// Flushes everything into the image and detaches. No volume may be in use.
    ///
    /// # Errors
    /// When data could not be written: the image or overlay behind it is then not whole.
    pub fn close(self) -> Result<()> {
        match self.guard {
            Guard::Nbd(disk) => disk.close(),
            Guard::Fuse(disk) => disk.close(),
            _ if self.read_only => Ok(()),
            Guard::Raw | Guard::Device { .. } => File::open(&self.path)
                .and_then(|file| file.sync_all())
                .context(|| format!("cannot flush {}", self.path.display())),
        }
    }
}

/// What is on the disks.
///
/// # Errors
/// When one cannot be read, or its partition table lies.
pub fn read_storage(disks: &[AttachedDisk]) -> Result<Storage> {
    let read = |disk: &AttachedDisk| {
        let layout = read_disk(&mut disk.open()?, disk.bytes()?)?;
        Ok((layout, disk.made().cloned()))
    };
    disks.iter().map(read).collect::<Result<_>>().map(Storage::new)
}

/// The end of a server that nobody told to end.
fn server_lost(program: &str, exit: Result<Exit>) -> Error {
    let lost = Error::failed(format!("{program} ended while the image was attached"))
        .hint("if nobody ended it, the kernel's log says more (dmesg): memory may have run out");
    match exit.and_then(Exit::success) {
        Ok(()) => lost,
        Err(error) => lost.caused_by(error.chain()),
    }
}

/// Judges how a server ended. That it could not answer a client that was leaving does not count: udev may be reading
/// when the device is taken down.
fn judge_end(exit: Exit) -> Result<()> {
    exit.success_without_complaint(&["Disconnect client"])
}

fn raw_file(layers: &Value) -> Result<PathBuf> {
    let name = layers["file"]["filename"].as_str().filter(|_| layers["driver"] == "raw");
    name.map(PathBuf::from).ok_or_else(|| Error::usage("--attach loop works on raw images only"))
}
