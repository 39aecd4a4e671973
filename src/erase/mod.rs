//! The erasure: what was deleted is made zero, and proven to be. [`erase`] works on the attached disk after everything
//! is unmounted; [`prove`] looks at a fresh, read-only attachment and finds out anew what should be zero there.

#![forbid(unsafe_code)]

pub mod copies;
pub mod extent;
pub mod fingerprint;
pub mod map;
pub mod metadata;
mod places;
pub mod policy;
pub mod report;
pub mod volume;
mod zero;

use std::path::Path;
use std::time::Instant;

use crate::attach::AttachedDisk;
use crate::disk::{DiskLayout, FsState, read_disk};
use crate::error::{Error, ErrorKind, Result, both_values};
use crate::mount::options::{Access, options};
use crate::mount::place::Place;
use crate::mount::{Devices, Mounted};
use crate::report::{Event, Observer};
use crate::sys::interrupt;

use extent::{Extent, Extents};
use metadata::Act;
pub use places::SwapFile;
use policy::{ErasePlan, Policy};
use report::{Erasure, VolumeErasure};

/// Makes all that is free on a disk zero; nothing of it may be mounted. `probe` is an empty folder, `cluster_bytes` the
/// unit in which the image keeps its data.
///
/// # Errors
/// When the disk cannot be read or written. A volume of which nothing can be said is no error here: see the report.
pub fn erase(
    disk: &AttachedDisk,
    probe: &Path,
    (plan, cluster_bytes): (ErasePlan, u64),
    swap_files: &[SwapFile],
    observer: &mut dyn Observer,
) -> Result<Erasure> {
    let mut erasure = Erasure { policy: plan.policy, keep_gaps: plan.keep_gaps, ..Erasure::default() };
    if plan.policy == Policy::None {
        erasure.notes.push("deleted data was not erased: it can be read back from the image".into());
        return Ok(erasure);
    }
    let started = Instant::now();
    observer.event(Event::Stage("erasing"));
    let mut devices = Devices::new(disk)?;
    let found = replayed(disk, &mut devices, probe)
        .and_then(|layout| places::find(&layout, &mut devices, probe, plan, swap_files));
    // Closed before anything below the devices is written: they would show what was there.
    let (mut parts, ()) = both_values(found, devices.close())?;
    let (file, data) = (disk.open()?, disk.data(Extent { start: 0, length: disk.bytes()? })?);
    for part in &mut parts {
        interrupt::check_before("erasing on")?;
        if plan.policy == Policy::Full {
            part.walk((&file, &data), Act::Zero)?;
        }
        let free = part.free.shared_with(&data);
        part.report.bytes_zeroed = free.bytes();
        part.free = free;
    }
    let free = Extents::new(parts.iter().flat_map(|part| part.free.iter()))?;
    zero::zero(disk, &file, &free, cluster_bytes)?;
    erasure.volumes = parts.into_iter().map(|part| part.report).collect();
    erasure.milliseconds = milliseconds(started);
    Ok(erasure)
}

/// Counts what is not zero on a disk that was attached read-only for this; adds it to what the erasure reported.
///
/// # Errors
/// When the disk cannot be read.
pub fn prove(
    disk: &AttachedDisk,
    probe: &Path,
    plan: ErasePlan,
    swap_files: &[SwapFile],
    mut erasure: Erasure,
    observer: &mut dyn Observer,
) -> Result<Erasure> {
    let started = Instant::now();
    observer.event(Event::Stage("proving the erasure"));
    let mut devices = Devices::new(disk)?;
    let found = layout(disk).and_then(|layout| places::find(&layout, &mut devices, probe, plan, swap_files));
    let (parts, ()) = both_values(found, devices.close())?;
    let (mut file, data) = (disk.open()?, disk.data(Extent { start: 0, length: disk.bytes()? })?);
    let erased = std::mem::take(&mut erasure.volumes);
    for mut part in parts {
        if let Some(erased) = erased.iter().find(|erased| erased.volume == part.report.volume) {
            take_over(&mut part.report, erased);
        }
        if plan.policy == Policy::Full {
            part.walk((&file, &data), Act::Count)?;
        }
        let free = part.free.shared_with(&data);
        (part.report.bytes_nonzero, part.report.places) = zero::count_nonzero(&mut file, &free)?;
        erasure.volumes.push(part.report);
    }
    erasure.proof_milliseconds = milliseconds(started);
    Ok(erasure)
}

/// What only the erasure knew.
fn take_over(proof: &mut VolumeErasure, erased: &VolumeErasure) {
    proof.bytes_zeroed = erased.bytes_zeroed;
    proof.metadata.clone_from(&erased.metadata);
    proof.unproven = erased.unproven.clone().or(proof.unproven.take());
}

/// Refuses a result that is not proven to be clean.
///
/// # Errors
/// [`ErrorKind::Found`] when something is left, or when nothing can be said of a volume and the plan does not allow it.
pub fn judge(erasure: &Erasure, plan: ErasePlan) -> Result<()> {
    if let Some(volume) = erasure.volumes.iter().find(|volume| volume.residue() > 0) {
        return Err(Error::new(ErrorKind::Found, residue_of(volume))
            .hint("the erasure failed; report this, and --erase none seals without it"));
    }
    let Some((volume, why)) = erasure.unproven().next().filter(|_| !plan.allow_unproven) else {
        return Ok(());
    };
    let what = format!("it cannot be proven that nothing deleted is left on {volume}");
    Err(Error::new(ErrorKind::Found, what)
        .caused_by(why)
        .hint("--allow-unproven seals it all the same, and the record says so"))
}

fn residue_of(volume: &VolumeErasure) -> String {
    let metadata = volume.metadata.iter().map(|kind| (kind.bytes_nonzero, kind.kind.as_str()));
    let kinds: Vec<String> = metadata
        .chain([(volume.bytes_nonzero, "free space")])
        .filter(|(bytes, _)| *bytes > 0)
        .map(|(bytes, kind)| format!("{bytes} bytes of {kind}"))
        .collect();
    let places: Vec<String> = volume.places.iter().map(|place| place.start.to_string()).collect();
    let places = if places.is_empty() {
        String::new()
    } else {
        format!(", near bytes {} of the disk", places.join(", "))
    };
    format!("the proof found that {} on {} are not zero{places}", kinds.join(" and "), volume.volume)
}

fn layout(disk: &AttachedDisk) -> Result<DiskLayout> {
    read_disk(&mut disk.open()?, disk.bytes()?)
}

/// The disk's layout when every filesystem's journal is replayed: also of those that the guest itself does not mount.
fn replayed(disk: &AttachedDisk, devices: &mut Devices, probe: &Path) -> Result<DiskLayout> {
    let before = layout(disk)?;
    let mut mounted = false;
    for volume in &before.volumes {
        let Some(superblock) = &volume.superblock else { continue };
        let known = options(superblock.content, Access::Change, None).is_some();
        if superblock.state != FsState::NeedsRecovery || !known || superblock.needs_other_device {
            continue;
        }
        mounted = true;
        let node = devices.node(volume)?;
        // One that cannot be mounted is unproven later, with the reason.
        if let Ok(filesystem) =
            Mounted::mount(&node, probe, &Place::root(0, superblock.content, None), Access::Change)
        {
            filesystem.close()?;
        }
    }
    if !mounted {
        return Ok(before);
    }
    devices.flush()?;
    layout(disk)
}

fn milliseconds(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}
