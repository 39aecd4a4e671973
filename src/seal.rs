//! The pipeline that seals an image, and nothing else.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;

use crate::apply::{Mode, OperationReport, apply};
use crate::attach::{ImageSpec, Way};
use crate::error::{Error, Result, both_values};
use crate::image::commit::{self, CommitMode};
use crate::image::info::{Image, ImageFacts};
use crate::image::lock::Use;
use crate::image::nameless::NamelessFile;
use crate::image::overlay::Overlay;
use crate::mount::options::Access;
use crate::plan::Plan;
use crate::record::{
    Erasure, PREDICATE_TYPE, PendingRecord, STATEMENT_TYPE, Seal, SealRecord, SealedOperation, Subject,
    digest,
};
use crate::report::{Event, Observer};
use crate::session::{Inspection, Session, choose_way};
use crate::sys::trouble;

/// What came of a run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SealReport {
    /// The image that went in.
    pub input: ImageFacts,
    /// The sealed image.
    pub image: PathBuf,
    /// Its record.
    pub record: PathBuf,
    /// What the guest is.
    pub inspection: Inspection,
    /// What each operation did.
    pub operations: Vec<OperationReport>,
    /// Digest of the sealed image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
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
    let sealed = sealed_path(plan, &image)?;
    let record = PendingRecord::prepare(&sealed)?;
    let (mut overlay, mut output) = (None, None);
    match plan.commit {
        CommitMode::InPlace => {}
        CommitMode::Overlay => overlay = Some(Overlay::make(&image, folder_of(&sealed))?),
        CommitMode::Output { .. } => {
            overlay = Some(Overlay::make(&image, folder_of(&sealed))?);
            output = Some(NamelessFile::make(folder_of(&sealed), image.mode()?)?);
        }
    }
    let (session_way, inspection, operations) = work(plan, &image, overlay.as_ref(), observer)?;
    if let Some(error) = trouble::take().into_iter().next() {
        return Err(Error::failed("clean-up failed, so the result is not trusted").caused_by(error));
    }
    observer.event(Event::Stage("writing the result"));
    match (&mut overlay, &mut output) {
        (Some(overlay), Some(output)) => commit::into_new_file(overlay, &image, output, &plan.commit)?,
        (Some(overlay), None) => commit::into_image(overlay, &image)?,
        (None, _) => {}
    }
    let finished = now();
    let sha256 = plan.digest.then(|| digest::sha256(&sealed, observer)).transpose()?;
    let facts = image.facts();
    let statement = SealRecord {
        statement_type: STATEMENT_TYPE.into(),
        subject: vec![Subject {
            name: sealed.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            digest: sha256.iter().map(|digest| ("sha256".to_owned(), digest.clone())).collect(),
        }],
        predicate_type: PREDICATE_TYPE.into(),
        predicate: Seal {
            tool_version: env!("CARGO_PKG_VERSION").into(),
            started,
            finished,
            input: json!(facts),
            guest: json!({ "os": inspection.guest.os, "architecture": inspection.guest.architecture, "root": inspection.layout.root, "mounts": inspection.layout.others }),
            operations: plan
                .operations
                .iter()
                .zip(&operations)
                .map(|(planned, report)| SealedOperation::new(planned, report))
                .collect(),
            erasure: Erasure {
                policy: "none".into(),
                note: "deleted data was not erased: it can be read back from the image's free blocks".into(),
            },
            attached: session_way.name().into(),
            commit: json!(plan.commit),
        },
    };
    let record = record.write(&statement)?;
    Ok(SealReport { input: facts, image: sealed, record, inspection, operations, sha256 })
}

/// Attach, inspect, mount, apply, and everything back: the part of which nothing reaches the image.
fn work(
    plan: &Plan,
    image: &Image,
    overlay: Option<&Overlay>,
    observer: &mut dyn Observer,
) -> Result<(crate::attach::Way, Inspection, Vec<OperationReport>)> {
    let spec = ImageSpec {
        layers: overlay.map_or_else(|| image.node(false), |overlay| overlay.node(image)),
        read_only: false,
    };
    let way = choose_way(plan.attach, image, overlay.is_none())?;
    if overlay.is_none() && way.0 != Way::Loop {
        image.lock.let_qemu_write()?;
    }
    let session = Session::open(&spec, way, Access::Change, observer)?;
    observer.event(Event::Stage("applying operations"));
    let applied = apply(&plan.operations, session.guest(), Mode::Change, observer);
    observer.event(Event::Stage("unmounting"));
    let closed = session.close();
    let (operations, inspection) = both_values(applied, closed)?;
    Ok((way.0, inspection, operations))
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

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn now() -> String {
    format!("{:.0}", jiff::Timestamp::now())
}
