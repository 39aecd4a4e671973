//! A seal that is thrown away: everything is done to the guest on an overlay that nobody keeps. Unlike a look, it runs what
//! a seal runs, scripts and programs of the guest too, and so finds out whether they would fail.

#![forbid(unsafe_code)]

use std::path::Path;

use serde::Serialize;

use crate::domain::WhileRunning;
use crate::erase::policy::Policy;
use crate::error::{Error, Result};
use crate::expand::Expanded;
use crate::image::commit::CommitMode;
use crate::image::info::{Image, ImageFacts};
use crate::image::lock::Use;
use crate::image::one_or_all;
use crate::image::overlay::Overlay;
use crate::phases::{Phase, Timed};
use crate::plan::Plan;
use crate::report::{Observer, OperationReport, Stage};
use crate::seal::{Applied, apply_to_guest, growth, open_images};
use crate::session::Inspection;
use crate::site::Attached;
use crate::sys::confine::Confinement;
use crate::sys::trouble;

/// Where the overlay is when the image's folder cannot be written: it may grow large, and /tmp may be memory.
const ELSEWHERE: &str = "/var/tmp";

/// What a seal would do, because it was done.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Rehearsal {
    /// The images, which are as they were.
    #[serde(serialize_with = "one_or_all")]
    pub input: Vec<ImageFacts>,
    /// How they were attached, and why so.
    pub attached: Attached,
    /// What grew, with `--expand`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expanded: Option<Expanded>,
    /// What the guest is.
    pub inspection: Inspection,
    /// What held the worker that edited the guest.
    pub confinement: Confinement,
    /// What each operation did.
    pub operations: Vec<OperationReport>,
    /// How long each stage took.
    pub phases: Vec<Phase>,
}

/// Does all that a seal does to the guest, and forgets it. Nothing is erased, for nothing is kept.
///
/// # Errors
/// Those of sealing; the images are unchanged in any case.
pub fn rehearse(plan: &mut Plan, observer: &mut dyn Observer) -> Result<Rehearsal> {
    let mut timed = Timed::new(Stage::OpeningImages, observer);
    let observer: &mut dyn Observer = &mut timed;
    plan.commit = CommitMode::Overlay;
    plan.while_running = WhileRunning::Refuse;
    plan.erase.policy = Policy::None;
    let mut images = open_images(plan, Use::Read, observer)?;
    let grows = growth(plan.expand.as_ref(), &mut images)?;
    let overlays = images.iter().map(overlay).collect::<Result<Vec<_>>>()?;
    let Applied { attached, expanded, inspection, edited, .. } =
        apply_to_guest(plan, (&images, grows), &overlays.iter().collect::<Vec<_>>(), observer)?;
    if let Some(error) = trouble::take().into_iter().next() {
        return Err(Error::failed("clean-up failed, so the result is not trusted").caused_by(error));
    }
    Ok(Rehearsal {
        input: images.iter().map(Image::facts).collect(),
        attached,
        expanded,
        inspection,
        confinement: edited.confinement,
        operations: edited.operations,
        phases: timed.phases(),
    })
}

fn overlay(image: &Image) -> Result<Overlay> {
    let beside = image.place.make_folder().and_then(|folder| Overlay::make(image, folder));
    beside.or_else(|_| Overlay::make(image, Path::new(ELSEWHERE)))
}
