//! The pipeline that seals an image, and nothing else.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::statvfs::statvfs;
use serde::Serialize;
use serde_json::json;

use crate::apply::Mode;
use crate::attach::ImageSpec;
use crate::erase::policy::Policy;
use crate::erase::report::Erasure;
use crate::error::{Error, ErrorKind, Result, both};
use crate::fault::{self, Point};
use crate::guest::path_serde;
use crate::image::commit::CommitMode;
use crate::image::container::ContainerErasure;
use crate::image::info::{Image, ImageFacts};
use crate::image::live::DiskFiles;
use crate::image::lock::{LockedImage, Use};
use crate::image::nameless::{folder_of, sweep};
use crate::image::overlay::Overlay;
use crate::image::qcow2::CLUSTER;
use crate::isolate::protocol::Finish;
use crate::mount::options::Access;
use crate::plan::Plan;
use crate::proof::Proof;
use crate::record::{PREDICATE_TYPE, STATEMENT_TYPE, Seal, SealRecord, SealedOperation, Subject};
use crate::recover::Committed;
use crate::repair::Repair;
use crate::report::{Event, Observer, OperationReport};
use crate::results::Files;
use crate::session::{Handling, Inspection, choose_way};
use crate::site::{Attached, Finished, Site};
use crate::sys::confine::Confinement;
use crate::sys::{interrupt, trouble};
use crate::worker::conversation::Edited;

/// The stage that may take long without a count to show.
pub const WRITING: &str = "writing the result";

/// What came of a run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SealReport {
    /// The image that went in.
    pub input: ImageFacts,
    /// The sealed image.
    #[serde(with = "path_serde")]
    pub image: PathBuf,
    /// Its record.
    #[serde(with = "path_serde")]
    pub record: PathBuf,
    /// How it was attached, and why so.
    pub attached: Attached,
    /// Filesystems that were repaired.
    pub repairs: Vec<Repair>,
    /// What the guest is.
    pub inspection: Inspection,
    /// What held the worker that edited the guest.
    pub confinement: Confinement,
    /// What each operation did.
    pub operations: Vec<OperationReport>,
    /// What was erased, and what the proof found.
    pub erasure: Erasure,
    /// What became of the bytes of the image file that hold nothing of its disk; none when nothing was to be erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerErasure>,
    /// Digest of the sealed image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// Seals one image.
///
/// # Errors
/// The image is unchanged, except for [`crate::ErrorKind::Interrupted`] and with `--in-place`.
pub fn seal(plan: &mut Plan, observer: &mut dyn Observer) -> Result<SealReport> {
    let started = now();
    observer.event(Event::Image(&plan.image));
    let usage = match plan.commit {
        CommitMode::Overlay => Use::Commit,
        CommitMode::Output { .. } => Use::Read,
        CommitMode::InPlace => Use::Write,
    };
    let image = Image::open(&plan.image, plan.format, usage, plan.past)?;
    image.holds().iter().for_each(|held| observer.event(Event::Warning(held)));
    fault::point(Point::Locked)?;
    let sealed = sealed_path(plan, &image)?;
    sweep(folder_of(&sealed))?;
    // All files are made before anything is mounted: a full or read-only folder shows while nothing is done yet, and
    // names are given within one mount only.
    let files = Files::make(plan, &image, &sealed)?;
    fault::point(Point::FilesMade)?;
    let applied = apply_to_guest(plan, &image, files.overlay(), observer)
        .map_err(|error| about_room(error, folder_of(&sealed)))?;
    if let Some(error) = trouble::take().into_iter().next() {
        return Err(Error::failed("clean-up failed, so the result is not trusted").caused_by(error));
    }
    interrupt::check_before("writing the result")?;
    observer.event(Event::Stage(WRITING));
    let statement = statement(plan, &image, &applied, &sealed, started);
    let Committed { record, sha256, container } = files.commit(plan, &image, statement, observer)?;
    let Applied { attached, repairs, inspection, edited, erasure } = applied;
    let (input, Edited { operations, confinement, .. }) = (image.facts(), edited);
    if let Some(container) = container.as_ref().filter(|container| container.bytes_nonzero > 0) {
        let what = format!(
            "{} bytes of the file that hold nothing of its disk are not zero",
            container.bytes_nonzero
        );
        return Err(Error::new(ErrorKind::Found, what).within(format!("{} is sealed, but", sealed.display())));
    }
    Ok(SealReport {
        input,
        image: sealed,
        record,
        attached,
        repairs,
        inspection,
        confinement,
        operations,
        erasure,
        container,
        sha256,
    })
}

/// Writes of the guest that find no room end as errors of all kinds; the reason is to be named.
fn about_room(error: Error, folder: &Path) -> Error {
    /// What qemu takes at a time for a new cluster, and some more for its tables.
    const LITTLE: u64 = 256 << 10;
    let free = statvfs(folder).map(|disk| disk.blocks_available().saturating_mul(disk.fragment_size()));
    if free.is_ok_and(|free| free >= LITTLE) || free.is_err() {
        return error;
    }
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
struct Applied {
    attached: Attached,
    repairs: Vec<Repair>,
    inspection: Inspection,
    edited: Edited,
    erasure: Erasure,
}

/// Attach, inspect, mount, apply, erase, everything back, and prove: the part of which nothing reaches the image.
fn apply_to_guest(
    plan: &mut Plan,
    image: &Image,
    overlay: Option<&Overlay>,
    observer: &mut dyn Observer,
) -> Result<Applied> {
    let layers = |read_only| overlay.map_or_else(|| image.node(read_only), |overlay| overlay.node(image));
    let (way, reason) = choose_way(plan.attach, image, overlay.is_none())?;
    let cluster_bytes = if overlay.is_some() { CLUSTER } else { image.cluster_bytes()? };
    let files = DiskFiles::of(image, overlay)?.map(Arc::new);
    let handling = Handling { access: Access::Change, repair: plan.repair };
    let spec = ImageSpec { layers: layers(false), read_only: false, files: files.clone() };
    let how = (&plan.isolation, plan.attach, (way, reason));
    let mut site = Site::open(&[spec], how, handling, observer)?;
    observer.event(Event::Stage("applying operations"));
    let fingerprints = plan.erase.policy != Policy::None;
    let edited = site.edit(&plan.operations, (Mode::Change, fingerprints), observer);
    plan.forget_passwords();
    let edited = edited.and_then(|edited| fault::point(Point::Applied).map(|()| edited));
    observer.event(Event::Stage("unmounting"));
    let edited = match edited {
        Ok(edited) => edited,
        Err(error) => return both(Err(error), site.abandon()),
    };
    let attached = site.attached.clone();
    let proof = (plan.erase.policy != Policy::None).then_some(plan.erase);
    let finish = Finish { erase: Some((plan.erase, cluster_bytes)), prove: proof };
    let Finished { inspection, repairs, mut erasure, swap_files, proven } = site.finish(finish, observer)?;
    if proof.is_some() {
        let proof = Proof {
            plan: plan.erase,
            image,
            overlay,
            way: (!proven).then_some(way),
            swap_files: &swap_files,
            prints: &edited.fingerprints,
        };
        let spec = ImageSpec { layers: layers(true), read_only: true, files };
        erasure = proof.make(&[spec], erasure, observer)?;
    }
    Ok(Applied { attached, repairs, inspection, edited, erasure })
}

/// The record, but for the digest.
fn statement(plan: &Plan, image: &Image, applied: &Applied, sealed: &Path, started: String) -> SealRecord {
    let Inspection { guest, layout, .. } = &applied.inspection;
    let operations = plan.operations.iter().zip(&applied.edited.operations);
    SealRecord {
        statement_type: STATEMENT_TYPE.into(),
        subject: vec![Subject {
            name: sealed.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            digest: BTreeMap::new(),
        }],
        predicate_type: PREDICATE_TYPE.into(),
        predicate: Seal {
            tool_version: env!("CARGO_PKG_VERSION").into(),
            started,
            finished: now(),
            input: json!(image.facts()),
            guest: json!({
                "os": guest.os, "architecture": guest.architecture, "root": layout.root, "mounts": layout.others,
            }),
            repairs: applied.repairs.clone(),
            operations: operations.map(|(planned, report)| SealedOperation::new(planned, report)).collect(),
            erasure: applied.erasure.clone(),
            container: None,
            attached: applied.attached.means.name().into(),
            confinement: Some(applied.edited.confinement.clone()),
            commit: json!(plan.commit),
        },
    }
}

fn sealed_path(plan: &Plan, image: &Image) -> Result<PathBuf> {
    let CommitMode::Output { path, .. } = &plan.commit else { return Ok(image.path.clone()) };
    if path.canonicalize().is_ok_and(|path| path == image.path) {
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
    }
    Ok(path.clone())
}

pub(crate) fn now() -> String {
    format!("{:.0}", jiff::Timestamp::now())
}
