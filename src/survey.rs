//! Looking at an image without changing a byte of it: what `inspect` and `--dry-run` print, and what `verify` judges.

#![forbid(unsafe_code)]

use std::path::PathBuf;

use serde::Serialize;

use crate::apply::Mode;
use crate::attach::Way;
use crate::disk::{FsState, Storage, Volume};
use crate::erase::SwapFile;
use crate::erase::policy::{ErasePlan, Policy};
use crate::erase::report::Erasure;
use crate::error::{Context, Error, Result, both};
use crate::expand::{Expand, Expanded};
use crate::guest::path_serde;
use crate::image::container::{self, ContainerResidue};
use crate::image::format::Format;
use crate::image::info::{Image, ImageFacts};
use crate::image::lock::Use;
use crate::image::one_or_all;
use crate::image::overlay::Overlay;
use crate::image::past::Past;
use crate::image::place::{Named, Surroundings};
use crate::inspect::layout::volume_name;
use crate::isolate::Isolation;
use crate::isolate::host::finished;
use crate::isolate::protocol::Finish;
use crate::mount::options::Access;
use crate::mount::wanted::Wanted;
use crate::operation::Catalogue;
use crate::plan::{Plan, Planned, recorded};
use crate::record::{SealRecord, Subject, digest, disks, without_left};
use crate::repair::Repair;
use crate::report::{Event, Observer, OperationReport, Outcome};
use crate::seal::{request, specs};
use crate::session::{Handling, Inspection, choose_way};
use crate::site::{Finished, Site, Where};
use crate::sys::confine::Confinement;
use crate::uuids;
use crate::worker::conversation::Edited;

/// What was seen in an image.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Survey {
    /// The images.
    #[serde(serialize_with = "one_or_all")]
    pub image: Vec<ImageFacts>,
    /// Whether somebody else used the image meanwhile, so that what was read may have moved.
    pub moving: bool,
    /// What would grow, with `--expand`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expanded: Option<Expanded>,
    /// Filesystems that would be repaired.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub repairs: Vec<Repair>,
    /// What the guest is.
    pub inspection: Inspection,
    /// What held the worker that looked.
    pub confinement: Confinement,
    /// What each operation would do.
    pub operations: Vec<OperationReport>,
}

/// How to open a guest that is only looked at.
#[derive(Debug, Clone)]
pub struct Target {
    /// The images of its disks.
    pub images: Vec<PathBuf>,
    /// The format of each, where the user said it.
    pub formats: Vec<Option<Format>>,
    /// What images that are no files need to know of the user.
    pub surroundings: Surroundings,
    /// How to attach them.
    pub attach: Option<Way>,
    /// Whether the guest is mounted in a machine of its own.
    pub isolation: Isolation,
    /// Which volume has the root, where there are several systems.
    pub root: Option<String>,
    /// Mount options beside our own.
    pub mount_options: Vec<Wanted>,
    /// Which size the first disk would get.
    pub expand: Option<Expand>,
    /// Whether the guest's filesystems are repaired first, on an overlay that is thrown away.
    pub repair: bool,
    /// What becomes of what the image holds besides its disk.
    pub past: Past,
}

impl From<&Plan> for Target {
    /// What is looked at when a plan is not carried out.
    fn from(plan: &Plan) -> Self {
        Self {
            images: plan.images.clone(),
            formats: plan.formats.clone(),
            surroundings: plan.surroundings.clone(),
            attach: plan.attach,
            isolation: plan.isolation.clone(),
            root: plan.root.clone(),
            mount_options: plan.mount_options.clone(),
            expand: plan.expand.clone(),
            repair: plan.repair,
            past: plan.past,
        }
    }
}

/// Looks at an image: opened read-only, mounted read-only, no journal replayed. One that somebody else writes to is
/// looked at all the same, with a warning.
///
/// # Errors
/// When the image or its guest cannot be understood.
pub fn survey(target: &Target, operations: &[Planned], observer: &mut dyn Observer) -> Result<Survey> {
    let images = open(target, observer)?;
    let nothing = ErasePlan { policy: Policy::None, ..ErasePlan::default() };
    look(&images, target, operations, nothing, observer)
        .map(|(seen, _)| seen)
        .map_err(|error| blame(&images, error))
}

fn open(target: &Target, observer: &mut dyn Observer) -> Result<Vec<Image>> {
    let usage = if target.repair { Use::Read } else { Use::Look };
    let mut open = |(number, path): (usize, &PathBuf)| {
        observer.event(Event::Image(path));
        let format = target.formats.get(number).copied().flatten();
        let named = Named { path, surroundings: Some(&target.surroundings) };
        let image = Image::open(named, format, usage, target.past)?;
        if let Some(who) = image.lock.moving() {
            let name = path.display();
            observer
                .event(Event::Warning(&format!("{name} is in use: {who}: what is read here may be moving")));
        }
        Ok(image)
    };
    target.images.iter().enumerate().map(&mut open).collect()
}

/// The same failure, which may be due to somebody who changes an image meanwhile.
fn blame(images: &[Image], error: Error) -> Error {
    images.iter().fold(error, |error, image| image.blame(error))
}

fn is_moving(images: &[Image]) -> bool {
    images.iter().any(|image| image.lock.moving().is_some())
}

fn look(
    images: &[Image],
    target: &Target,
    operations: &[Planned],
    plan: ErasePlan,
    observer: &mut dyn Observer,
) -> Result<(Survey, Residue)> {
    let overlay = |image: &Image| Overlay::make(image, image.place.make_folder()?);
    let overlays =
        if target.repair { images.iter().map(overlay).collect::<Result<_>>()? } else { Vec::new() };
    let specs = specs(images, &overlays.iter().collect::<Vec<_>>(), overlays.is_empty())?;
    let way = choose_way(target.attach, images, overlays.is_empty())?;
    let handling = Handling {
        access: Access::Look,
        repair: target.repair,
        root: target.root.clone(),
        mount_options: target.mount_options.clone(),
    };
    let how = (&target.isolation, target.attach, way);
    let mut planned = operations.to_vec();
    let growth = target.expand.as_ref().zip(images.first()).map(|(expand, image)| expand.growth(image));
    let grows = request(target.expand.as_ref().zip(growth.transpose()?), &handling);
    let site = Site::open(&specs, how, (handling.clone(), grows), observer)?;
    let mut site = site.with_new_uuids(&mut planned, (&target.isolation, handling), observer)?;
    let Edited { mut operations, confinement, .. } = match site.edit(&planned, (Mode::Look, false), observer)
    {
        Ok(seen) => seen,
        Err(error) => return both(Err(error), site.abandon()),
    };
    let expanded = site.expanded.clone();
    let prove = (plan.policy != Policy::None).then_some(plan);
    let finished = site.finish(Finish { prove, ..Finish::default() }, observer)?;
    let Finished { inspection, repairs, erasure, swap_files, proven } = finished;
    uuids::add_returned(&inspection.storage, &planned, &mut operations);
    let residue =
        if proven && prove.is_some() { Residue::Found(erasure) } else { Residue::Unknown(swap_files) };
    let (image, moving) = (images.iter().map(Image::facts).collect(), is_moving(images));
    Ok((Survey { image, moving, expanded, repairs, inspection, confinement, operations }, residue))
}

/// What is known of deleted data when a guest was looked at.
enum Residue {
    /// All: it was counted in the machine that had the guest.
    Found(Erasure),
    /// Where the guest's swap files are.
    Unknown(Vec<SwapFile>),
}

/// What `verify` found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verdict {
    /// The image; the first of several.
    #[serde(with = "path_serde")]
    pub image: PathBuf,
    /// Each image where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<DiskVerdict>,
    /// Whether nothing was found.
    pub sealed: bool,
    /// Whether somebody else used the image meanwhile, so that what was read may have moved.
    pub moving: bool,
    /// Whether those of all images do; none when the record has no digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest_matches: Option<bool>,
    /// Filesystems that were mounted after the sealing, a sentence each: a machine ran on the image.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounted: Vec<String>,
    /// Operations whose work is no longer true, with what is back.
    pub found: Vec<OperationReport>,
    /// Operations that cannot be judged without the secret they were given.
    pub unsure: Vec<String>,
    /// What the proof of the erasure found; none when nothing was erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub erasure: Option<Erasure>,
    /// What the bytes of the image file are that hold nothing of its disk; none when nothing was erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerResidue>,
}

/// What `verify` found of one disk of several.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DiskVerdict {
    /// Its image.
    #[serde(with = "path_serde")]
    pub image: PathBuf,
    /// None when the record has no digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest_matches: Option<bool>,
}

/// Holds the images of a guest against their record: the digest, every recorded operation, which must find nothing to do, and the
/// proof of the erasure as far as one was recorded.
///
/// # Errors
/// When the check cannot be made; what it finds is in the verdict.
pub fn verify(target: &Target, catalogue: &Catalogue, observer: &mut dyn Observer) -> Result<Verdict> {
    // Before their record, which an interrupted commit has not written yet.
    let images = open(target, observer)?;
    let seats: Vec<_> = images.iter().map(|image| image.place.seat.as_path()).collect();
    let SealRecord { predicate: seal, subject, .. } =
        disks::load(&seats).map_err(|error| blame(&images, error))?;
    let wanted = disks::matched(&target.images, &subject)?;
    let planned = recorded(catalogue, seal.operations)?;
    let judge = |observer: &mut dyn Observer| {
        let matches = digests(target, &images, &wanted, observer)?;
        let looked = look(&images, target, &planned, seal.erasure.plan(), observer);
        let (seen, residue) = looked.map_err(|error| about_disks(error, target, &wanted, &matches))?;
        let erasure = match residue {
            Residue::Found(erasure) => Some(erasure),
            Residue::Unknown(swap_files) => {
                residue_in(&images, target, seal.erasure.plan(), &swap_files, observer)?
            }
        };
        let mut verdict = verdict(&images, target, &matches, erasure)?;
        let of = |outcome: Outcome| seen.operations.iter().filter(move |report| report.outcome == outcome);
        verdict.unsure = of(Outcome::Unsure).map(|report| report.name.clone()).collect();
        verdict.found = without_left(&seen.operations, &seal.left);
        verdict.mounted = mounted_after(&seal.finished, &seen.inspection.storage)?;
        verdict.sealed &= verdict.found.is_empty() && verdict.mounted.is_empty();
        Ok(verdict)
    };
    judge(observer).map_err(|error| blame(&images, error))
}

fn digests(
    target: &Target,
    images: &[Image],
    wanted: &[&Subject],
    observer: &mut dyn Observer,
) -> Result<Vec<Option<bool>>> {
    let mut matches = Vec::new();
    for ((image, path), subject) in images.iter().zip(&target.images).zip(wanted) {
        let wanted = subject.digest.get("sha256");
        let same = wanted.map(|wanted| Ok(*wanted == digest::sha256(image.lock.file(), path, observer)?));
        matches.push(same.transpose()?);
    }
    Ok(matches)
}

/// Filesystems that were mounted for writing after the image was sealed, or were not unmounted since.
fn mounted_after(finished: &str, storage: &Storage) -> Result<Vec<String>> {
    let finished: jiff::Timestamp =
        finished.parse().context(|| format!("the record says no time: {finished:?}"))?;
    let sentence = |volume: &Volume| {
        let superblock = volume.superblock.as_ref()?;
        let (name, content) = (volume_name(volume), superblock.content);
        if content.is_linux_filesystem() && superblock.state == FsState::NeedsRecovery {
            return Some(format!("the {content} on {name} was mounted, and not unmounted"));
        }
        let mounted = superblock.mounted?;
        // The record has whole seconds, and so has the filesystem.
        let later = mounted.seconds > finished.as_second() + 1;
        let when = jiff::Timestamp::from_second(mounted.seconds).ok()?;
        later.then(|| {
            format!(
                "the {content} on {name} was mounted at {when}, which is after it was sealed at {finished}"
            )
        })
    };
    Ok(storage.volumes.iter().filter_map(sentence).collect())
}

/// A guest with a disk that is not its own may not even be understood.
fn about_disks(error: Error, target: &Target, wanted: &[&Subject], matches: &[Option<bool>]) -> Error {
    let disks = target.images.iter().zip(wanted).zip(matches);
    let mut others = disks.filter(|(_, matches)| **matches == Some(false));
    match others.next() {
        Some(((image, subject), _)) if wanted.len() > 1 => error.within(format!(
            "{} is not the disk {} that was sealed: its digest differs",
            image.display(),
            subject.name
        )),
        _ => error,
    }
}

/// Looks whether deleted data can be read back from an image, whoever sealed it; it needs no record.
///
/// # Errors
/// When the check cannot be made; what it finds is in the verdict.
pub fn residue(target: &Target, observer: &mut dyn Observer) -> Result<Verdict> {
    let images = open(target, observer)?;
    residue_in(&images, target, ErasePlan::default(), &[], observer)
        .and_then(|erasure| verdict(&images, target, &[], erasure))
        .map_err(|error| blame(&images, error))
}

fn residue_in(
    images: &[Image],
    target: &Target,
    plan: ErasePlan,
    swap_files: &[SwapFile],
    observer: &mut dyn Observer,
) -> Result<Option<Erasure>> {
    if plan.policy == Policy::None {
        return Ok(None);
    }
    let specs = specs(images, &[], true)?;
    let how = (&target.isolation, target.attach, choose_way(target.attach, images, true)?);
    let attachment = match Where::of(&specs, how, observer)? {
        Where::Host { attachment, .. } => attachment,
        Where::Machine { machine, .. } => {
            let finish = Finish { prove: Some(plan), ..Finish::default() };
            return finished(machine, finish, observer).map(Some);
        }
    };
    let erasure = Erasure { policy: plan.policy, ..Erasure::default() };
    attachment.prove(plan, swap_files, erasure, observer).map(Some)
}

fn verdict(
    images: &[Image],
    target: &Target,
    matches: &[Option<bool>],
    erasure: Option<Erasure>,
) -> Result<Verdict> {
    let moving = is_moving(images);
    // The tables of an image that is in use make no sense by its file alone.
    let looks = images.iter().filter(|_| erasure.is_some() && !moving);
    let residues = looks.map(|image| container::residue(image.lock.file(), image.format));
    let container = container::sum_of_residue(residues.collect::<Result<Vec<_>>>()?);
    let known: Vec<bool> = matches.iter().copied().flatten().collect();
    let digest_matches = (!known.is_empty()).then(|| known.iter().all(|same| *same));
    let disk = |(index, image): (usize, &PathBuf)| {
        let digest_matches = matches.get(index).copied().flatten();
        DiskVerdict { image: image.clone(), digest_matches }
    };
    let several = images.len() > 1;
    let disks = target.images.iter().enumerate().filter(|_| several).map(disk).collect();
    let clean = erasure.as_ref().is_none_or(|erasure| erasure.residue() == 0)
        && container.as_ref().is_none_or(|container| container.bytes_nonzero == 0);
    Ok(Verdict {
        image: target.images.first().cloned().unwrap_or_default(),
        disks,
        sealed: clean && digest_matches != Some(false),
        moving,
        digest_matches,
        mounted: Vec::new(),
        found: Vec::new(),
        unsure: Vec::new(),
        erasure,
        container,
    })
}
