//! An image that is attached, understood and mounted, as `seal`, `inspect` and `verify` need it, and the one right
//! order to take it apart again.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::attach::{AttachedDisk, ImageSpec, Way, read_storage};
use crate::disk::{FsState, Storage};
use crate::erase::policy::{ErasePlan, Policy};
use crate::erase::report::Erasure;
use crate::erase::{SwapFile, prove};
use crate::error::{Error, Result, all, both, both_values};
use crate::fault::{self, Point};
use crate::guest::GuestRoot;
use crate::image::format::Format;
use crate::image::info::Image;
use crate::inspect::guest::Guest;
use crate::inspect::layout::{find_guest, volume_name};
use crate::inspect::swap_files::swap_files;
use crate::mount::Devices;
use crate::mount::damage::explain;
use crate::mount::options::{Access, options};
use crate::mount::place::GuestLayout;
use crate::mount::tree::MountedTree;
use crate::mount::wanted::Wanted;
use crate::repair::{Repair, repair};
use crate::report::{Event, Observer, Stage};
use crate::sys::interrupt;
use crate::sys::namespace::{RunFolder, enter_private_mounts};
use crate::sys::tool;

/// What was found out about an image's guest.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Inspection {
    /// The disks: partition tables, volumes, filesystems.
    pub storage: Storage,
    /// Which is the root and what is mounted where.
    pub layout: GuestLayout,
    /// The system.
    pub guest: Guest,
}

/// The attached disks of a guest in mount namespaces of this run; nothing of them is mounted.
///
/// The daemons start in the outer of two namespaces and what is mounted from the disks is in the inner one: when this
/// process is killed, the kernel unmounts it while they can still take its writes.
#[derive(Debug)]
pub struct Attachment {
    disks: Vec<AttachedDisk>,
    run: RunFolder,
}

impl Attachment {
    /// Attaches the disks.
    ///
    /// # Errors
    /// When the host cannot.
    pub fn open(specs: &[ImageSpec], way: Way) -> Result<Self> {
        enter_private_mounts()?;
        interrupt::check_before("attaching the image")?;
        let run = RunFolder::mount()?;
        let attach = |(index, spec)| AttachedDisk::attach(spec, way, &run.folder(&format!("disk{index}"))?);
        let disks = specs.iter().enumerate().map(attach).collect::<Result<_>>()?;
        fault::point(Point::Attached)?;
        interrupt::check_before("reading the disk")?;
        enter_private_mounts()?;
        Ok(Self { disks, run })
    }

    /// Devices that are there already, in a machine of our own.
    ///
    /// # Errors
    /// When there can be no folder for the run.
    pub fn of(disks: Vec<AttachedDisk>) -> Result<Self> {
        Ok(Self { disks, run: RunFolder::mount()? })
    }

    /// The disks.
    pub fn disks(&self) -> &[AttachedDisk] {
        &self.disks
    }

    /// The same failure of what used the disks, as one of the server behind one of them when that has gone.
    #[must_use]
    pub fn blame(&self, error: Error) -> Error {
        self.disks.iter().fold(error, |error, disk| disk.blame(error))
    }

    /// What is on the disks.
    ///
    /// # Errors
    /// When one cannot be read, or its partition table lies.
    pub fn storage(&self) -> Result<Storage> {
        read_storage(&self.disks).map_err(|error| {
            let error = match error.what_to_do() {
                None => error.hint("the image itself may be damaged: qemu-img check IMAGE tells more"),
                Some(_) => error,
            };
            self.blame(explain(error))
        })
    }

    /// An empty folder to mount in.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn probe(&self) -> Result<PathBuf> {
        self.run.folder("probe")
    }

    /// Flushes and detaches everything, and goes on with what came of the work. A server that has gone is what the work
    /// failed of.
    ///
    /// # Errors
    /// That of the work, and when something could not be written or taken apart; then what is below may not be whole.
    pub fn close_after<T>(self, work: Result<T>) -> Result<T> {
        let work = work.map_err(|error| self.blame(error));
        let Self { disks, run } = self;
        let closed = all(disks.into_iter().map(AttachedDisk::close));
        both_values(work, both(closed, run.close())).map(|(done, ())| done)
    }
}

impl Attachment {
    /// Counts what is not zero on its disks, and detaches them.
    ///
    /// # Errors
    /// When a disk cannot be read, and as [`Self::close_after`].
    pub fn prove(
        self,
        plan: ErasePlan,
        swap_files: &[SwapFile],
        erasure: Erasure,
        observer: &mut dyn Observer,
    ) -> Result<Erasure> {
        let proof =
            self.probe().and_then(|probe| prove(self.disks(), &probe, plan, swap_files, erasure, observer));
        self.close_after(proof)
    }
}

/// The mounted guest and everything below it. The fields are in the order of taking apart.
#[derive(Debug)]
pub struct Session {
    tree: MountedTree,
    devices: Devices,
    attachment: Attachment,
    /// What was found out.
    pub inspection: Inspection,
    /// Filesystems that were repaired.
    pub repairs: Vec<Repair>,
}

/// What is mounted of an attached disk; in the order of taking apart.
struct Mounted {
    tree: MountedTree,
    devices: Devices,
    inspection: Inspection,
    repairs: Vec<Repair>,
}

/// What is done with the guest's filesystems.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Handling {
    /// Whether they are only looked at.
    pub access: Access,
    /// Whether they are checked and repaired first. Not without an overlay.
    pub repair: bool,
    /// Which volume has the root, of several: as fstab(5) may name it. None where there is one.
    pub root: Option<String>,
    /// With which options they are mounted, beside our own.
    pub mount_options: Vec<Wanted>,
}

impl Session {
    /// Mounts the guest that is on attached disks.
    ///
    /// # Errors
    /// When the host cannot, or the guest is not one that guestseal understands.
    pub fn open(
        attachment: Attachment,
        storage: Storage,
        handling: &Handling,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let mounted = Self::mount(&attachment, storage, handling, observer);
        let Mounted { tree, devices, inspection, repairs } =
            mounted.map_err(|error| attachment.blame(explain(error)))?;
        Ok(Self { tree, devices, attachment, inspection, repairs })
    }

    /// Understands the attached disk and mounts its guest.
    fn mount(
        attachment: &Attachment,
        mut storage: Storage,
        handling: &Handling,
        observer: &mut dyn Observer,
    ) -> Result<Mounted> {
        let mut devices = Devices::new(attachment.disks())?;
        let mut repairs = Vec::new();
        if handling.repair {
            repairs = repair(&storage, &mut devices, &attachment.probe()?, observer)?;
            storage = read_storage(attachment.disks())?;
        }
        interrupt::check_before("looking for the guest")?;
        observer.event(Event::Stage(Stage::LookingForGuest));
        let mut guest_layout =
            find_guest(&storage, handling.root.as_deref(), &mut devices, &attachment.probe()?)?;
        guest_layout.want(&handling.mount_options)?;
        let unfinished = unfinished(&storage, handling.access);
        for note in storage.warnings.iter().chain(&guest_layout.notes).chain(&unfinished) {
            observer.event(Event::Warning(note));
        }
        interrupt::check_before("mounting the guest")?;
        observer.event(Event::Stage(Stage::Mounting));
        let folder = attachment.run.folder("root")?;
        let tree = MountedTree::mount(&storage, &guest_layout, &mut devices, &folder, handling.access)?;
        fault::point(Point::Mounted)?;
        interrupt::check_before("looking at the guest")?;
        let guest = Guest::examine(tree.root())?;
        let inspection = Inspection { storage, layout: guest_layout, guest };
        Ok(Mounted { tree, devices, inspection, repairs })
    }

    /// The same failure of what was done with the guest, as one of the server behind its disk when that has gone.
    #[must_use]
    pub fn blame(&self, error: Error) -> Error {
        self.attachment.blame(error)
    }

    /// The guest's files.
    pub fn root(&self) -> &GuestRoot {
        self.tree.root()
    }

    /// What is known of the guest, and the folder of the host at which it is mounted.
    pub fn guest(&self) -> (&Guest, &Path, Vec<PathBuf>) {
        let points = self.tree.root().mount_points_at(Path::new("/")).map(Path::to_path_buf);
        (&self.inspection.guest, self.tree.folder(), points.collect())
    }

    /// The swap space in files of the guest, by its fstab, as far as it is to be erased.
    ///
    /// # Errors
    /// When the guest's files cannot be read.
    pub fn swap_files(&self, policy: Policy) -> Result<Vec<SwapFile>> {
        match policy {
            Policy::None => Ok(Vec::new()),
            Policy::Full | Policy::Free => swap_files(self.tree.root(), &self.inspection.layout),
        }
    }

    /// Unmounts, flushes and detaches everything. Goes on after an error and reports the first with the others.
    ///
    /// # Errors
    /// When something could not be written or taken apart; then what is below may not be whole.
    pub fn close(self) -> Result<Inspection> {
        self.close_after(|_| Ok(())).map(|(inspection, ())| inspection)
    }

    /// The same, with work on the disk when it is no longer mounted.
    ///
    /// # Errors
    /// As [`Self::close`], and those of the work.
    pub fn close_after<T>(self, work: impl FnOnce(&Attachment) -> Result<T>) -> Result<(Inspection, T)> {
        // What is still here at an error is dropped from the last to the first.
        let Self { inspection, attachment, devices, tree, .. } = self;
        // A device in use keeps what is below it in use: go on only while the order holds.
        tree.close().map_err(|error| attachment.blame(error))?;
        fault::point(Point::Unmounted)?;
        let done = devices.close().and_then(|()| work(&attachment));
        let done = attachment.close_after(done)?;
        fault::point(Point::Detached)?;
        Ok((inspection, done))
    }
}

/// What mounting finishes for a guest that was not shut down in order, or leaves undone when it is only looked at.
fn unfinished(storage: &Storage, access: Access) -> Vec<String> {
    let what = match access {
        Access::Look => "what is in its journal is not seen here; sealing replays it",
        Access::Change => "its journal is replayed",
    };
    let volumes = storage.volumes.iter().filter_map(|volume| Some((volume, volume.superblock.as_ref()?)));
    volumes
        .filter(|(_, superblock)| {
            superblock.state == FsState::NeedsRecovery && options(superblock.content, access, None).is_some()
        })
        .map(|(volume, superblock)| {
            format!("the {} on {} was not unmounted: {what}", superblock.content, volume_name(volume))
        })
        .collect()
}

/// Chooses how to attach, and says why.
///
/// # Errors
/// A usage error when the way that was asked for cannot work for these images of one guest.
pub fn choose_way(asked: Option<Way>, images: &[Image], direct: bool) -> Result<(Way, &'static str)> {
    let raw = images.iter().all(|image| image.format == Format::Raw) && direct;
    match asked {
        Some(Way::Loop) if !raw => Err(crate::Error::usage(
            "--attach loop works only on raw images, with --in-place or when they are only read",
        )),
        Some(way) => Ok((way, "as asked")),
        None if raw => Ok((Way::Loop, "a raw image needs no server")),
        None if tool::has_module("nbd") && tool::Tool::find("qemu-nbd").is_ok() => {
            Ok((Way::Nbd, "the kernel has nbd"))
        }
        None => Ok((Way::Fuse, "the kernel has no nbd")),
    }
}
