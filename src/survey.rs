//! Looking at an image without changing a byte of it: what `inspect` and `--dry-run` print, and what `verify` judges.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

use crate::apply::Mode;
use crate::attach::{ImageSpec, Way};
use crate::erase::policy::{ErasePlan, Policy};
use crate::erase::report::Erasure;
use crate::erase::{SwapFile, prove};
use crate::error::{Result, both};
use crate::guest::path_serde;
use crate::image::container::{self, ContainerResidue};
use crate::image::format::Format;
use crate::image::info::{Image, ImageFacts};
use crate::image::live::DiskFiles;
use crate::image::lock::Use;
use crate::image::nameless::folder_of;
use crate::image::overlay::Overlay;
use crate::image::past::Past;
use crate::isolate::Isolation;
use crate::isolate::host::finished;
use crate::isolate::protocol::Finish;
use crate::mount::options::Access;
use crate::operation::Catalogue;
use crate::plan::{Planned, recorded};
use crate::record::{self, SealRecord, digest};
use crate::repair::Repair;
use crate::report::{Event, Observer, OperationReport, Outcome};
use crate::session::{Handling, Inspection, choose_way};
use crate::site::{Finished, Site, Where};
use crate::sys::confine::Confinement;
use crate::worker::conversation::Edited;

/// What was seen in an image.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Survey {
    /// The image.
    pub image: ImageFacts,
    /// Whether somebody else used the image meanwhile, so that what was read may have moved.
    pub moving: bool,
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

/// How to open an image that is only looked at.
#[derive(Debug, Clone)]
pub struct Target {
    /// The image.
    pub image: PathBuf,
    /// Its format, where the user said it.
    pub format: Option<Format>,
    /// How to attach it.
    pub attach: Option<Way>,
    /// Whether the guest is mounted in a machine of its own.
    pub isolation: Isolation,
    /// Whether the guest's filesystems are repaired first, on an overlay that is thrown away.
    pub repair: bool,
    /// What becomes of what the image holds besides its disk.
    pub past: Past,
}

/// Looks at an image: opened read-only, mounted read-only, no journal replayed. One that somebody else writes to is
/// looked at all the same, with a warning.
///
/// # Errors
/// When the image or its guest cannot be understood.
pub fn survey(target: &Target, operations: &[Planned], observer: &mut dyn Observer) -> Result<Survey> {
    let image = open(target, observer)?;
    let nothing = ErasePlan { policy: Policy::None, ..ErasePlan::default() };
    look(&image, target, operations, nothing, observer)
        .map(|(seen, _)| seen)
        .map_err(|error| image.lock.blame(error))
}

fn open(target: &Target, observer: &mut dyn Observer) -> Result<Image> {
    observer.event(Event::Image(&target.image));
    let usage = if target.repair { Use::Read } else { Use::Look };
    let image = Image::open(&target.image, target.format, usage, target.past)?;
    if let Some(who) = image.lock.moving() {
        let name = target.image.display();
        observer.event(Event::Warning(&format!("{name} is in use: {who}: what is read here may be moving")));
    }
    Ok(image)
}

fn look(
    image: &Image,
    target: &Target,
    operations: &[Planned],
    plan: ErasePlan,
    observer: &mut dyn Observer,
) -> Result<(Survey, Residue)> {
    let overlay = target.repair.then(|| Overlay::make(image, folder_of(&image.path))).transpose()?;
    let layers = overlay.as_ref().map_or_else(|| image.node(true), |overlay| overlay.node(image));
    let spec = ImageSpec {
        layers,
        read_only: overlay.is_none(),
        files: DiskFiles::of(image, overlay.as_ref())?.map(Arc::new),
    };
    let way = choose_way(target.attach, image, overlay.is_none())?;
    let handling = Handling { access: Access::Look, repair: target.repair };
    let how = (&target.isolation, target.attach, way);
    let mut site = Site::open(&[spec], how, handling, observer)?;
    let Edited { operations, confinement, .. } = match site.edit(operations, (Mode::Look, false), observer) {
        Ok(seen) => seen,
        Err(error) => return both(Err(error), site.abandon()),
    };
    let prove = (plan.policy != Policy::None).then_some(plan);
    let finished = site.finish(Finish { erase: None, prove }, observer)?;
    let Finished { inspection, repairs, erasure, swap_files, proven } = finished;
    let residue =
        if proven && prove.is_some() { Residue::Found(erasure) } else { Residue::Unknown(swap_files) };
    let moving = image.lock.moving().is_some();
    Ok((Survey { image: image.facts(), moving, repairs, inspection, confinement, operations }, residue))
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
    /// The image.
    #[serde(with = "path_serde")]
    pub image: PathBuf,
    /// Whether nothing was found.
    pub sealed: bool,
    /// Whether somebody else used the image meanwhile, so that what was read may have moved.
    pub moving: bool,
    /// None when the record has no digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest_matches: Option<bool>,
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

/// Holds an image against its record: the digest, every recorded operation, which must find nothing to do, and the
/// proof of the erasure as far as one was recorded.
///
/// # Errors
/// When the check cannot be made; what it finds is in the verdict.
pub fn verify(target: &Target, catalogue: &Catalogue, observer: &mut dyn Observer) -> Result<Verdict> {
    let path = target.image.as_path();
    // Before its record, which an interrupted commit has not written yet.
    let image = open(target, observer)?;
    let SealRecord { predicate: seal, subject, .. } =
        record::load(path).map_err(|error| image.lock.blame(error))?;
    let operations: Vec<_> =
        seal.operations.into_iter().map(|operation| (operation.name, operation.parameters)).collect();
    let planned = recorded(catalogue, &operations)?;
    let wanted = subject.first().and_then(|subject| subject.digest.get("sha256"));
    let judge = |observer: &mut dyn Observer| {
        let digest_matches = wanted
            .map(|wanted| Ok(*wanted == digest::sha256(image.lock.file(), path, observer)?))
            .transpose()?;
        let (seen, residue) = look(&image, target, &planned, seal.erasure.plan(), observer)?;
        let erasure = match residue {
            Residue::Found(erasure) => Some(erasure),
            Residue::Unknown(swap_files) => {
                residue_in(&image, target, seal.erasure.plan(), &swap_files, observer)?
            }
        };
        let mut verdict = verdict(&image, path, digest_matches, erasure)?;
        let of = |outcome: Outcome| seen.operations.iter().filter(move |report| report.outcome == outcome);
        verdict.unsure = of(Outcome::Unsure).map(|report| report.name.clone()).collect();
        verdict.found = of(Outcome::Changed).cloned().collect();
        verdict.sealed &= verdict.found.is_empty();
        Ok(verdict)
    };
    judge(observer).map_err(|error| image.lock.blame(error))
}

/// Looks whether deleted data can be read back from an image, whoever sealed it; it needs no record.
///
/// # Errors
/// When the check cannot be made; what it finds is in the verdict.
pub fn residue(target: &Target, observer: &mut dyn Observer) -> Result<Verdict> {
    let image = open(target, observer)?;
    residue_in(&image, target, ErasePlan::default(), &[], observer)
        .and_then(|erasure| verdict(&image, &target.image, None, erasure))
        .map_err(|error| image.lock.blame(error))
}

fn residue_in(
    image: &Image,
    target: &Target,
    plan: ErasePlan,
    swap_files: &[SwapFile],
    observer: &mut dyn Observer,
) -> Result<Option<Erasure>> {
    if plan.policy == Policy::None {
        return Ok(None);
    }
    let specs = [ImageSpec {
        layers: image.node(true),
        read_only: true,
        files: DiskFiles::of(image, None)?.map(Arc::new),
    }];
    let how = (&target.isolation, target.attach, choose_way(target.attach, image, true)?);
    let attachment = match Where::of(&specs, how, observer)? {
        Where::Host { attachment, .. } => attachment,
        Where::Machine { machine, .. } => {
            let finish = Finish { erase: None, prove: Some(plan) };
            return finished(machine, finish, observer).map(Some);
        }
    };
    let erasure = Erasure { policy: plan.policy, ..Erasure::default() };
    let proof = attachment
        .probe()
        .and_then(|probe| prove(attachment.disks(), &probe, plan, swap_files, erasure, observer));
    attachment.close_after(proof).map(Some)
}

fn verdict(
    image: &Image,
    path: &Path,
    digest_matches: Option<bool>,
    erasure: Option<Erasure>,
) -> Result<Verdict> {
    let moving = image.lock.moving().is_some();
    // The tables of an image that is in use make no sense by its file alone.
    let look = erasure.is_some() && !moving;
    let container = look.then(|| container::residue(image.lock.file(), image.format)).transpose()?;
    let clean = erasure.as_ref().is_none_or(|erasure| erasure.residue() == 0)
        && container.as_ref().is_none_or(|container| container.bytes_nonzero == 0);
    Ok(Verdict {
        image: path.to_path_buf(),
        sealed: clean && digest_matches != Some(false),
        moving,
        digest_matches,
        found: Vec::new(),
        unsure: Vec::new(),
        erasure,
        container,
    })
}
