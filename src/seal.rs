//! The pipeline that seals an image, and nothing else.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;

use crate::apply::{Mode, apply};
use crate::attach::{ImageSpec, Way};
use crate::error::{Error, Result, both_values};
use crate::fault::{self, Point};
use crate::image::commit::{self, CommitMode};
use crate::image::info::{Image, ImageFacts};
use crate::image::lock::Use;
use crate::image::nameless::{NamelessFile, folder_of};
use crate::image::overlay::Overlay;
use crate::mount::options::Access;
use crate::plan::Plan;
use crate::record::{
    Erasure, PREDICATE_TYPE, PendingRecord, STATEMENT_TYPE, Seal, SealRecord, SealedOperation, Subject,
    digest,
};
use crate::report::{Event, Observer, OperationReport, path_text};
use crate::session::{Inspection, Session, choose_way};
use crate::sys::trouble;

/// The stage that may take long without a count to show.
pub const WRITING: &str = "writing the result";

/// What came of a run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SealReport {
    /// The image that went in.
    pub input: ImageFacts,
    /// The sealed image.
    #[serde(serialize_with = "path_text")]
    pub image: PathBuf,
    /// Its record.
    #[serde(serialize_with = "path_text")]
    pub record: PathBuf,
    /// How it was attached, and why so.
    pub attached: Attached,
    /// What the guest is.
    pub inspection: Inspection,
    /// What each operation did.
    pub operations: Vec<OperationReport>,
    /// Digest of the sealed image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// The way an image was attached.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Attached {
    /// nbd, fuse or loop.
    pub way: Way,
    /// Why this one.
    pub reason: &'static str,
}

/// Seals one image.
///
/// # Errors
/// The image is unchanged, except for [`crate::ErrorKind::Interrupted`] and with `--in-place`.
pub fn seal(plan: &Plan, observer: &mut dyn Observer) -> Result<SealReport> {
    let started = now();
    observer.event(Event::Image(&plan.image));
    commit::refuse_interrupted(&plan.image)?;
    let usage = match plan.commit {
        CommitMode::Overlay => Use::Commit,
        CommitMode::Output { .. } => Use::Read,
        CommitMode::InPlace => Use::Write,
    };
    let image = Image::open(&plan.image, plan.format, usage)?;
    fault::point(Point::Locked)?;
    let sealed = sealed_path(plan, &image)?;
    // All files are made before anything is mounted: a full or read-only folder shows while nothing is done yet.
    let record = PendingRecord::prepare(&sealed)?;
    let mut files = Files::make(plan, &image, folder_of(&sealed))?;
    fault::point(Point::FilesMade)?;
    let applied = apply_to_guest(plan, &image, files.overlay.as_ref(), observer)?;
    if let Some(error) = trouble::take().into_iter().next() {
        return Err(Error::failed("clean-up failed, so the result is not trusted").caused_by(error));
    }
    observer.event(Event::Stage(WRITING));
    files.commit(plan, &image)?;
    let finished = now();
    let sha256 = plan.digest.then(|| digest::sha256(&sealed, observer)).transpose()?;
    let statement = statement(
        plan,
        &image,
        &applied,
        Sealing { sealed: &sealed, sha256: sha256.as_deref(), started, finished },
    );
    let record = record.write(&statement)?;
    let Applied { attached, inspection, operations } = applied;
    Ok(SealReport { input: image.facts(), image: sealed, record, attached, inspection, operations, sha256 })
}

/// The files that a run makes; which, depends on how its result becomes permanent.
struct Files {
    overlay: Option<Overlay>,
    output: Option<NamelessFile>,
}

impl Files {
    fn make(plan: &Plan, image: &Image, folder: &Path) -> Result<Self> {
        let overlay = match plan.commit {
            CommitMode::InPlace => None,
            _ => Some(Overlay::make(image, folder)?),
        };
        let output = match plan.commit {
            CommitMode::Output { .. } => Some(NamelessFile::make(folder, image.mode()?)?),
            _ => None,
        };
        Ok(Self { overlay, output })
    }

    fn commit(&mut self, plan: &Plan, image: &Image) -> Result<()> {
        match (&mut self.overlay, &mut self.output) {
            (Some(overlay), Some(output)) => commit::into_new_file(overlay, image, output, &plan.commit),
            (Some(overlay), None) => commit::into_image(overlay, image),
            (None, _) => Ok(()),
        }
    }
}

/// What was done to the guest.
struct Applied {
    attached: Attached,
    inspection: Inspection,
    operations: Vec<OperationReport>,
}

/// Attach, inspect, mount, apply, and everything back: the part of which nothing reaches the image.
fn apply_to_guest(
    plan: &Plan,
    image: &Image,
    overlay: Option<&Overlay>,
    observer: &mut dyn Observer,
) -> Result<Applied> {
    let layers = overlay.map_or_else(|| image.node(false), |overlay| overlay.node(image));
    let (way, reason) = choose_way(plan.attach, image, overlay.is_none())?;
    if overlay.is_none() && way != Way::Loop {
        image.lock.let_qemu_write()?;
    }
    let session =
        Session::open(&ImageSpec { layers, read_only: false }, (way, reason), Access::Change, observer)?;
    observer.event(Event::Stage("applying operations"));
    let applied = apply(&plan.operations, session.guest(), Mode::Change, observer)
        .and_then(|reports| fault::point(Point::Applied).map(|()| reports));
    observer.event(Event::Stage("unmounting"));
    let (operations, inspection) = both_values(applied, session.close())?;
    Ok(Applied { attached: Attached { way, reason }, inspection, operations })
}

struct Sealing<'a> {
    sealed: &'a Path,
    sha256: Option<&'a str>,
    started: String,
    finished: String,
}

fn statement(plan: &Plan, image: &Image, applied: &Applied, sealing: Sealing<'_>) -> SealRecord {
    let Inspection { guest, layout, .. } = &applied.inspection;
    let operations = plan.operations.iter().zip(&applied.operations);
    SealRecord {
        statement_type: STATEMENT_TYPE.into(),
        subject: vec![Subject {
            name: sealing.sealed.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            digest: sealing.sha256.iter().map(|digest| ("sha256".to_owned(), (*digest).to_owned())).collect(),
        }],
        predicate_type: PREDICATE_TYPE.into(),
        predicate: Seal {
            tool_version: env!("CARGO_PKG_VERSION").into(),
            started: sealing.started,
            finished: sealing.finished,
            input: json!(image.facts()),
            guest: json!({
                "os": guest.os, "architecture": guest.architecture, "root": layout.root, "mounts": layout.others,
            }),
            operations: operations.map(|(planned, report)| SealedOperation::new(planned, report)).collect(),
            erasure: Erasure {
                policy: "none".into(),
                note: "deleted data was not erased: it can be read back from the image's free blocks".into(),
            },
            attached: applied.attached.way.name().into(),
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
    Ok(path.clone())
}

fn now() -> String {
    format!("{:.0}", jiff::Timestamp::now())
}
