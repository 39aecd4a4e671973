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

use crate::attach::{AttachedDisk, read_storage};
use crate::disk::{FsState, Storage};
use crate::error::{Context, Error, ErrorKind, Result, both_values};
use crate::mount::Devices;
use crate::mount::options::{Access, options};
use crate::mount::place::Place;
use crate::report::{Event, Observer, Stage};
use crate::sys::interrupt;

use extent::{Extent, Extents};
use metadata::Act;
use places::Part;
pub use places::SwapFile;
use policy::{ErasePlan, Policy};
use report::{Erasure, VolumeErasure};

/// Makes all that is free on these disks zero; nothing of them may be mounted. `probe` is an empty folder,
/// `cluster_bytes` the unit in which the images keep their data.
///
/// # Errors
/// When a disk cannot be read or written. A volume of which nothing can be said is no error here: see the report.
pub fn erase(
    disks: &[AttachedDisk],
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
    observer.event(Event::Stage(Stage::Erasing));
    let mut devices = Devices::new(disks)?;
    let found = replayed(disks, &mut devices, probe)
        .and_then(|storage| places::find(&storage, &mut devices, probe, plan, swap_files));
    // Closed before anything below the devices is written: they would show what was there.
    let (mut parts, ()) = both_values(found, devices.close())?;
    let data = data_of(disks)?;
    // What is made of other disks comes behind them, and lies on top.
    for (index, disk) in disks.iter().enumerate().rev() {
        let file = disk.open()?;
        for part in parts.iter_mut().filter(|part| part.disk == index && plan.policy == Policy::Full) {
            interrupt::check_before("erasing on")?;
            part.walk((&file, &data[index]), Act::Zero)?;
        }
        file.sync_all().context(|| "cannot flush the erased disk")?;
    }
    zero_free(disks, &data, &mut parts, cluster_bytes)?;
    // Only now: what was made zero in a thin volume may have taken chunks of its pool, or given some back.
    let mut pools = pools_of(disks)?;
    if !pools.is_empty() {
        zero_free(disks, &data_of(disks)?, &mut pools, cluster_bytes)?;
        parts.extend(pools);
    }
    erasure.volumes = parts.into_iter().map(|part| part.report).collect();
    erasure.milliseconds = milliseconds(started);
    Ok(erasure)
}

/// What is free in the thin pools on these disks.
fn pools_of(disks: &[AttachedDisk]) -> Result<Vec<Part>> {
    disks.iter().filter_map(AttachedDisk::made).flat_map(|made| &made.pools).map(Part::of_pool).collect()
}

/// Makes zero what is free of these parts and has data.
fn zero_free(disks: &[AttachedDisk], data: &[Extents], parts: &mut [Part], cluster_bytes: u64) -> Result<()> {
    for (index, disk) in disks.iter().enumerate() {
        let mut free = Vec::new();
        for part in &mut *parts {
            let own = part.free.iter().filter(|(below, _)| *below == index);
            for with_data in own.map(|(_, extents)| extents.shared_with(&data[index])) {
                part.report.bytes_zeroed = part.report.bytes_zeroed.saturating_add(with_data.bytes());
                free.extend(with_data.iter());
            }
        }
        zero::zero(disk, &Extents::new(free)?, cluster_bytes)?;
    }
    Ok(())
}

/// Counts what is not zero on disks that were attached read-only for this; adds it to what the erasure reported.
///
/// # Errors
/// When a disk cannot be read.
pub fn prove(
    disks: &[AttachedDisk],
    probe: &Path,
    plan: ErasePlan,
    swap_files: &[SwapFile],
    mut erasure: Erasure,
    observer: &mut dyn Observer,
) -> Result<Erasure> {
    let started = Instant::now();
    observer.event(Event::Stage(Stage::Proving));
    let mut devices = Devices::new(disks)?;
    let found =
        read_storage(disks).and_then(|storage| places::find(&storage, &mut devices, probe, plan, swap_files));
    let (mut parts, ()) = both_values(found, devices.close())?;
    parts.extend(pools_of(disks)?);
    let data = data_of(disks)?;
    for part in &mut parts {
        if let Some(erased) = erasure.volumes.iter().find(|erased| erased.volume == part.report.volume) {
            take_over(&mut part.report, erased);
        }
    }
    for (index, disk) in disks.iter().enumerate() {
        let mut file = disk.open()?;
        for part in &mut parts {
            if part.disk == index && plan.policy == Policy::Full {
                part.walk((&file, &data[index]), Act::Count)?;
            }
            let own = part.free.iter().filter(|(below, _)| *below == index);
            for with_data in own.map(|(_, extents)| extents.shared_with(&data[index])) {
                let (nonzero, places) = zero::count_nonzero(&mut file, &with_data)?;
                part.report.bytes_nonzero = part.report.bytes_nonzero.saturating_add(nonzero);
                part.report.places.extend(places);
            }
        }
    }
    erasure.volumes = parts.into_iter().map(|part| part.report).collect();
    erasure.proof_milliseconds = milliseconds(started);
    Ok(erasure)
}

/// What of each disk may hold data. Of what is made of others nobody tells: as far as its bytes lie in one place each and
/// are not encrypted, what is known of that place is true of them.
fn data_of(disks: &[AttachedDisk]) -> Result<Vec<Extents>> {
    let mut known: Vec<Extents> = Vec::with_capacity(disks.len());
    for disk in disks {
        let copy = disk.made().and_then(|made| made.copies.first());
        let plain = copy.filter(|copy| copy.iter().all(|segment| !segment.encrypted));
        let below = plain.map(|copy| {
            let pieces = copy.iter().flat_map(|segment| {
                let lies = known.get(segment.disk).map(|data| {
                    let inside = data.within(segment.offset, segment.offset.saturating_add(segment.length));
                    let there = |extent: Extent| segment.start + (extent.start - segment.offset);
                    inside.iter().map(|extent| Extent { start: there(extent), ..extent }).collect::<Vec<_>>()
                });
                lies.unwrap_or_default()
            });
            Extents::new(pieces)
        });
        known.push(match below {
            Some(data) => data?,
            None => disk.all_data()?,
        });
    }
    Ok(known)
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

/// What is on the disks when every filesystem's journal is replayed: also of those that the guest itself does not mount.
fn replayed(disks: &[AttachedDisk], devices: &mut Devices, probe: &Path) -> Result<Storage> {
    let before = read_storage(disks)?;
    let mut mounted = false;
    for (index, volume) in before.volumes.iter().enumerate() {
        let Some(superblock) = &volume.superblock else { continue };
        let known = options(superblock.content, Access::Change, None).is_some();
        if superblock.state != FsState::NeedsRecovery || !known || superblock.needs_other_device {
            continue;
        }
        mounted = true;
        let place = Place::root(index, superblock.content, None);
        // One that cannot be mounted is unproven later, with the reason.
        if let Ok(filesystem) = devices.mount((&before, index), probe, &place, Access::Change) {
            filesystem.close()?;
        }
    }
    if !mounted {
        return Ok(before);
    }
    devices.flush()?;
    read_storage(disks)
}

fn milliseconds(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}
