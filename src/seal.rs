//! The pipeline that seals an image, and nothing else.

#![forbid(unsafe_code)]

mod live;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::statvfs::statvfs;
use serde::Serialize;
use serde_json::json;

use crate::apply::{Left, Mode};
use crate::attach::ImageSpec;
use crate::domain::copy::PointInTime;
use crate::domain::{self, Domain, WhileRunning};
use crate::erase::policy::Policy;
use crate::erase::report::Erasure;
use crate::error::{Error, ErrorKind, Result, both};
use crate::expand::{Expand, Expanded, Growth, Request};
use crate::fault::{self, Point};
use crate::guest::path_serde;
use crate::image::commit::CommitMode;
use crate::image::container::ContainerErasure;
use crate::image::info::{Image, ImageFacts};
use crate::image::live::DiskFiles;
use crate::image::lock::{LockedImage, Use};
use crate::image::nameless::sweep;
use crate::image::one_or_all;
use crate::image::overlay::Overlay;
use crate::image::place::{Named, Place};
use crate::image::qcow2::CLUSTER;
use crate::image::uri;
use crate::isolate::protocol::Finish;
use crate::mount::options::Access;
use crate::phases::{Phase, Timed};
use crate::plan::Plan;
use crate::proof::Proof;
use crate::record::{PREDICATE_TYPE, STATEMENT_TYPE, Seal, SealRecord, SealedOperation, Subject};
use crate::recover::{Committed, SealedDisk, of_several};
use crate::repair::Repair;
use crate::report::{Event, Observer, OperationReport, Stage};
use crate::results::Files;
use crate::session::{Handling, Inspection, choose_way};
use crate::site::{Attached, Finished, Site};
use crate::sys::confine::Confinement;
use crate::sys::{interrupt, trouble};
use crate::worker::conversation::Edited;

/// What came of a run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SealReport {
    /// The domain of libvirt whose guest it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<domain::Identity>,
    /// In which state its guest was copied, where it went on running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub point_in_time: Option<PointInTime>,
    /// The images that went in.
    #[serde(serialize_with = "one_or_all")]
    pub input: Vec<ImageFacts>,
    /// The sealed image; the first of several.
    #[serde(with = "path_serde")]
    pub image: PathBuf,
    /// Each sealed image where there are several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<SealedDisk>,
    /// Its record.
    #[serde(with = "path_serde")]
    pub record: PathBuf,
    /// How it was attached, and why so.
    pub attached: Attached,
    /// What grew, with `--expand`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expanded: Option<Expanded>,
    /// Filesystems that were repaired.
    pub repairs: Vec<Repair>,
    /// What the guest is.
    pub inspection: Inspection,
    /// What held the worker that edited the guest.
    pub confinement: Confinement,
    /// What each operation did.
    pub operations: Vec<OperationReport>,
    /// What the customisation made that an operation would have removed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<Left>,
    /// What was erased, and what the proof found.
    pub erasure: Erasure,
    /// What became of the bytes of the image file that hold nothing of its disk; none when nothing was to be erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerErasure>,
    /// Digest of the sealed image where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// How long each stage took.
    pub phases: Vec<Phase>,
}

/// Seals one guest.
///
/// # Errors
/// Its images are unchanged, except for [`crate::ErrorKind::Interrupted`] and with `--in-place`.
pub fn seal(plan: &mut Plan, observer: &mut dyn Observer) -> Result<SealReport> {
    let started = now();
    let first = match plan.while_running {
        WhileRunning::ShutDown(_) => Stage::ShuttingDown,
        WhileRunning::Refuse | WhileRunning::Copy => Stage::OpeningImages,
    };
    let mut timed = Timed::new(first, observer);
    let observer: &mut dyn Observer = &mut timed;
    let usage = match plan.commit {
        CommitMode::Overlay => Use::Commit,
        CommitMode::Output { .. } => Use::Read,
        CommitMode::InPlace => Use::Write,
    };
    let copied = live::copy(plan, observer)?;
    let (mut images, copied) = match copied {
        Some((images, copied)) => (images, Some(copied)),
        None => (open_images(plan, usage, observer)?, None),
    };
    fault::point(Point::Locked)?;
    let grows = growth(plan.expand.as_ref(), &mut images)?;
    let mut sealed = sealed_places(plan, &images)?;
    for place in &sealed {
        sweep(place.make_folder()?)?;
    }
    // All files are made before anything is mounted: a full or read-only folder shows while nothing is done yet, and
    // names are given within one mount only.
    let files = Files::make(plan, &images, &sealed)?;
    fault::point(Point::FilesMade)?;
    let applied = apply_to_guest(plan, (&images, grows), &files.overlays(), observer).map_err(|error| {
        let error = about_room(error, sealed.iter().map(Place::folder));
        images.iter().fold(error, |error, image| image.blame(error))
    })?;
    if let Some(error) = trouble::take().into_iter().next() {
        return Err(Error::failed("clean-up failed, so the result is not trusted").caused_by(error));
    }
    interrupt::check_before("writing the result")?;
    let ended = plan.domain.as_ref().filter(|_| copied.is_none());
    ended.map_or(Ok(()), Domain::must_still_be_off)?;
    observer.event(Event::Stage(Stage::Writing));
    let input: Vec<_> = match &copied {
        Some(copied) => copied.facts.clone(),
        None => images.iter().map(Image::facts).collect(),
    };
    let point_in_time = copied.map(|copied| copied.point_in_time);
    let statement = statement(plan, (&input, point_in_time), &applied, &sealed, started);
    let Committed { record, disks, container } =
        files.commit(plan, (&images, &sealed), statement, observer)?;
    let Applied { attached, expanded, repairs, inspection, edited, erasure } = applied;
    let (disks, sha256) = of_several(disks);
    let Edited { operations, confinement, left, .. } = edited;
    if let Some(container) = container.as_ref().filter(|container| container.bytes_nonzero > 0) {
        let what = format!(
            "{} bytes of the file that hold nothing of its disk are not zero",
            container.bytes_nonzero
        );
        let image = sealed[0].path.display();
        return Err(Error::new(ErrorKind::Found, what).within(format!("{image} is sealed, but")));
    }
    Ok(SealReport {
        domain: identity(plan),
        point_in_time,
        input,
        image: sealed.swap_remove(0).path,
        disks,
        record,
        attached,
        expanded,
        repairs,
        inspection,
        confinement,
        operations,
        left,
        erasure,
        container,
        sha256,
        phases: timed.phases(),
    })
}

/// Opens and locks the images of a guest that has ended, for this use.
pub(crate) fn open_images(plan: &Plan, usage: Use, observer: &mut dyn Observer) -> Result<Vec<Image>> {
    plan.domain.as_ref().map_or(Ok(()), |domain| domain.must_be_off(plan.while_running, observer))?;
    if matches!(plan.while_running, WhileRunning::ShutDown(_)) {
        observer.event(Event::Stage(Stage::OpeningImages));
    }
    plan.images.iter().for_each(|image| observer.event(Event::Image(image)));
    let open = |(number, image): (usize, &PathBuf)| {
        let named = Named { path: image, surroundings: Some(&plan.surroundings) };
        Image::open(named, plan.formats.get(number).copied().flatten(), usage, plan.past)
    };
    let images = plan.images.iter().enumerate().map(open).collect::<Result<Vec<_>>>()?;
    for held in images.iter().flat_map(Image::holds) {
        observer.event(Event::Warning(&held));
    }
    Ok(images)
}

/// Writes of the guest that find no room end as errors of all kinds; the reason is to be named.
fn about_room<'a>(error: Error, mut folders: impl Iterator<Item = &'a Path>) -> Error {
    /// What qemu takes at a time for a new cluster, and some more for its tables.
    const LITTLE: u64 = 256 << 10;
    let free = |folder: &Path| {
        statvfs(folder).map(|disk| disk.blocks_available().saturating_mul(disk.fragment_size()))
    };
    let Some(folder) = folders.find(|folder| free(folder).is_ok_and(|free| free < LITTLE)) else {
        return error;
    };
    let what = format!("no space is left in {} for the working overlay", folder.display());
    let error = match error.kind() {
        ErrorKind::Failed => error.within(what),
        // A guest that looked damaged because its writes were lost.
        ErrorKind::Unsupported => Error::failed(what).caused_by(error),
        _ => return error,
    };
    error.hint("make room, or put the result elsewhere with --output NEW")
}

/// What was done to the guest.
pub(crate) struct Applied {
    pub(crate) attached: Attached,
    pub(crate) expanded: Option<Expanded>,
    pub(crate) repairs: Vec<Repair>,
    pub(crate) inspection: Inspection,
    pub(crate) edited: Edited,
    pub(crate) erasure: Erasure,
}

/// Attach, inspect, mount, apply, erase, everything back, and prove: the part of which nothing reaches the image.
pub(crate) fn apply_to_guest(
    plan: &mut Plan,
    (images, grows): (&[Image], Option<Growth>),
    overlays: &[&Overlay],
    observer: &mut dyn Observer,
) -> Result<Applied> {
    let (way, reason) = choose_way(plan.attach, images, overlays.is_empty())?;
    let cluster_bytes = cluster_bytes(images, overlays)?;
    let handling = Handling {
        access: Access::Change,
        repair: plan.repair,
        root: plan.root.clone(),
        mount_options: plan.mount_options.clone(),
    };
    let how = (&plan.isolation, plan.attach, (way, reason));
    let grows = request(plan.expand.as_ref().zip(grows), &handling);
    let site = Site::open(&specs(images, overlays, false)?, how, (handling.clone(), grows), observer)?;
    let mut site = site.with_new_uuids(&mut plan.operations, (&plan.isolation, handling), observer)?;
    observer.event(Event::Stage(Stage::Applying));
    let fingerprints = plan.erase.policy != Policy::None;
    let edited = site.edit(&plan.operations, (Mode::Change, fingerprints), observer);
    plan.forget_passwords();
    let edited = edited.and_then(|edited| fault::point(Point::Applied).map(|()| edited));
    observer.event(Event::Stage(Stage::Unmounting));
    let edited = match edited {
        Ok(edited) => edited,
        Err(error) => return both(Err(error), site.abandon()),
    };
    let (attached, expanded) = (site.attached.clone(), site.expanded.clone());
    let proof = (plan.erase.policy != Policy::None).then_some(plan.erase);
    let uuids = plan.operations.iter().flat_map(|planned| planned.settings.uuids.iter().flatten()).cloned();
    let finish = Finish { uuids: uuids.collect(), erase: Some((plan.erase, cluster_bytes)), prove: proof };
    let Finished { inspection, repairs, mut erasure, swap_files, proven } = site.finish(finish, observer)?;
    if proof.is_some() {
        let proof = Proof {
            plan: plan.erase,
            images,
            overlays,
            way: (!proven).then_some(way),
            swap_files: &swap_files,
            prints: &edited.fingerprints,
        };
        erasure = proof.make(&specs(images, overlays, true)?, erasure, observer)?;
    }
    Ok(Applied { attached, expanded, repairs, inspection, edited, erasure })
}

/// The sizes of the first disk when it is to grow, which its image then knows.
pub(crate) fn growth(expand: Option<&Expand>, images: &mut [Image]) -> Result<Option<Growth>> {
    let Some((expand, image)) = expand.zip(images.first_mut()) else { return Ok(None) };
    let growth = expand.growth(image)?;
    image.grow_to(growth.to);
    Ok(Some(growth))
}

/// What a site is asked to grow.
pub(crate) fn request(grows: Option<(&Expand, Growth)>, handling: &Handling) -> Option<Request> {
    let (expand, growth) = grows?;
    let (volume, root) = (expand.volume.clone(), handling.root.clone());
    Some(Request { growth, volume, root, access: handling.access })
}

/// What is attached: each image, under its overlay where there is one.
pub(crate) fn specs(images: &[Image], overlays: &[&Overlay], read_only: bool) -> Result<Vec<ImageSpec>> {
    let spec = |(index, image): (usize, &Image)| {
        let overlay = overlays.get(index).copied();
        let layers = overlay.map_or_else(|| image.node(read_only), |overlay| overlay.node(image));
        Ok(ImageSpec { layers, read_only, files: DiskFiles::of(image, overlay)?.map(Arc::new) })
    };
    images.iter().enumerate().map(spec).collect()
}

/// The largest of the units in which the disks' files keep data: what is a multiple of it is one of all.
fn cluster_bytes(images: &[Image], overlays: &[&Overlay]) -> Result<u64> {
    if !overlays.is_empty() {
        return Ok(CLUSTER);
    }
    images.iter().try_fold(1, |most, image| Ok(image.cluster_bytes()?.max(most)))
}

fn identity(plan: &Plan) -> Option<domain::Identity> {
    plan.domain.as_ref().map(|domain| domain.identity.clone())
}

/// The record, but for the digest.
fn statement(
    plan: &Plan,
    (facts, point_in_time): (&[ImageFacts], Option<PointInTime>),
    applied: &Applied,
    sealed: &[Place],
    started: String,
) -> SealRecord {
    let Inspection { guest, layout, .. } = &applied.inspection;
    let operations = plan.operations.iter().zip(&applied.edited.operations);
    let subject = |place: &Place| Subject {
        name: place.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        digest: BTreeMap::new(),
    };
    SealRecord {
        statement_type: STATEMENT_TYPE.into(),
        subject: sealed.iter().map(subject).collect(),
        predicate_type: PREDICATE_TYPE.into(),
        predicate: Seal {
            tool_version: env!("CARGO_PKG_VERSION").into(),
            started,
            finished: now(),
            input: if let [facts] = facts { json!(facts) } else { json!(facts) },
            domain: identity(plan),
            point_in_time,
            guest: json!({
                "os": guest.os, "architecture": guest.architecture, "root": layout.root, "mounts": layout.others,
            }),
            expanded: applied.expanded.clone(),
            repairs: applied.repairs.clone(),
            operations: operations.map(|(planned, report)| SealedOperation::new(planned, report)).collect(),
            left: applied.edited.left.clone(),
            erasure: applied.erasure.clone(),
            container: None,
            attached: applied.attached.means.name().into(),
            attached_because: Some(applied.attached.reason.clone()),
            confinement: Some(applied.edited.confinement.clone()),
            commit: json!(plan.commit),
            template: None,
        },
    }
}

/// What is sealed of each disk: its image, or the new file. The record stands beside the first.
fn sealed_places(plan: &Plan, images: &[Image]) -> Result<Vec<Place>> {
    if images.is_empty() {
        return Err(Error::usage("no image is named"));
    }
    let CommitMode::Output { paths, .. } = &plan.commit else {
        return Ok(images.iter().map(|image| image.place.clone()).collect());
    };
    if paths.len() != images.len() {
        return Err(Error::usage(format!("{} new files are named for {} disks", paths.len(), images.len())));
    }
    let known: Vec<&Path> = images.iter().map(|image| image.path.as_path()).collect();
    paths.iter().try_for_each(|path| check_new(path, &known))?;
    Ok(paths.iter().map(|path| Place::new_file(path)).collect())
}

/// Refuses a new file that cannot be one.
fn check_new(path: &Path, images: &[&Path]) -> Result<()> {
    if uri::is_remote(path)? {
        return Err(Error::usage("--output writes a file of this host, and a URI names none")
            .hint("copy the new file there afterwards: qemu-img convert -n"));
    }
    if path.canonicalize().is_ok_and(|path| images.contains(&path.as_path())) {
        return Err(Error::usage("--output names the image itself")
            .hint("leave --output out to seal the image itself"));
    }
    if path.is_dir() {
        return Err(Error::usage(format!("{} is a folder", path.display()))
            .hint("--output takes the name of the new image"));
    }
    if path.is_file() {
        // What is replaced may be the image of another running guest.
        LockedImage::open(path, Use::Commit)?;
    } else if path.exists() {
        return Err(Error::usage(format!("{} is no regular file", path.display())).hint(
            "--output takes the name of a new file; qemu-img convert -n writes it to a device afterwards",
        ));
    }
    Ok(())
}

pub(crate) fn now() -> String {
    format!("{:.0}", jiff::Timestamp::now())
}
