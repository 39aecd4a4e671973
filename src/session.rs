//! An image that is attached, understood and mounted, as `seal`, `inspect` and `verify` need it, and the one right
//! order to take it apart again.

#![forbid(unsafe_code)]

use serde::Serialize;

use crate::attach::{AttachedDisk, ImageSpec, Way};
use crate::disk::{DiskLayout, read_disk};
use crate::error::{Result, both};
use crate::fault::{self, Point};
use crate::image::format::Format;
use crate::image::info::Image;
use crate::inspect::guest::Guest;
use crate::inspect::layout::find_guest;
use crate::mount::Devices;
use crate::mount::options::Access;
use crate::mount::place::GuestLayout;
use crate::mount::tree::MountedTree;
use crate::report::{Event, Observer};
use crate::sys::namespace::{RunFolder, enter_private_mounts};
use crate::sys::tool;

/// What was found out about an image's guest.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Inspection {
    /// The disk: partition table, volumes, filesystems.
    pub disk: DiskLayout,
    /// Which is the root and what is mounted where.
    pub layout: GuestLayout,
    /// The system.
    pub guest: Guest,
}

/// The mounted guest and everything below it. The fields are in the order of taking apart.
#[derive(Debug)]
pub struct Session {
    tree: MountedTree,
    devices: Devices,
    disk: AttachedDisk,
    run: RunFolder,
    /// What was found out.
    pub inspection: Inspection,
    /// How the image was attached.
    pub way: Way,
}

impl Session {
    /// Attaches and mounts.
    ///
    /// The daemon starts in the outer of two private mount namespaces and the guest is mounted in the inner one: when
    /// this process is killed, the kernel unmounts the guest while the daemon can still take its writes.
    ///
    /// # Errors
    /// When the host cannot, or the guest is not one that guestseal understands.
    pub fn open(
        spec: &ImageSpec,
        (way, reason): (Way, &str),
        access: Access,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        enter_private_mounts()?;
        let run = RunFolder::mount()?;
        let disk = AttachedDisk::attach(spec, way, &run)?;
        observer.event(Event::Attached { way: way.name(), reason });
        fault::point(Point::Attached)?;
        enter_private_mounts()?;
        let mut devices = Devices::new(&disk)?;
        let bytes = disk.bytes()?;
        let layout = read_disk(&mut devices.disk(), bytes).map_err(|error| match error.what_to_do() {
            None => error.hint("the image itself may be damaged: qemu-img check IMAGE tells more"),
            Some(_) => error,
        })?;
        observer.event(Event::Stage("looking for the guest"));
        let guest_layout = find_guest(&layout, &mut devices, &run.folder("probe")?)?;
        let warnings = layout.warnings.iter().chain(layout.table.iter().flat_map(|table| &table.warnings));
        for note in warnings.chain(&guest_layout.notes) {
            observer.event(Event::Warning(note));
        }
        let tree = MountedTree::mount(&layout, &guest_layout, &mut devices, &run.folder("root")?, access)?;
        fault::point(Point::Mounted)?;
        let guest = Guest::examine(tree.root())?;
        let inspection = Inspection { disk: layout, layout: guest_layout, guest };
        Ok(Self { tree, devices, disk, run, inspection, way })
    }

    /// The guest's files, what is known of it, and the folder of the host at which it is mounted.
    pub fn guest(&self) -> (&crate::guest::GuestRoot, &Guest, &std::path::Path) {
        (self.tree.root(), &self.inspection.guest, self.tree.folder())
    }

    /// Unmounts, flushes and detaches everything. Goes on after an error and reports the first with the others.
    ///
    /// # Errors
    /// When something could not be written or taken apart; then what is below may not be whole.
    pub fn close(self) -> Result<Inspection> {
        let Self { tree, devices, disk, run, inspection, way: _ } = self;
        let mut result = tree.close();
        // A device in use keeps what is below it in use: go on only while the order holds.
        if result.is_ok() {
            fault::point(Point::Unmounted)?;
            result = both(devices.close(), disk.close());
            result = both(result, run.close());
            fault::point(Point::Detached)?;
        }
        result.map(|()| inspection)
    }
}

/// Chooses how to attach, and says why.
///
/// # Errors
/// A usage error when the way that was asked for cannot work for this image.
pub fn choose_way(asked: Option<Way>, image: &Image, direct: bool) -> Result<(Way, &'static str)> {
    let raw = image.format == Format::Raw && direct;
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
