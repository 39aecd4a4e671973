//! Looking at an image without changing a byte of it: what `inspect` and `--dry-run` print, and what `verify` judges.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::apply::{Mode, apply};
use crate::attach::{ImageSpec, Way};
use crate::error::{Context, Result, both_values};
use crate::image::commit::refuse_interrupted;
use crate::image::format::Format;
use crate::image::info::{Image, ImageFacts};
use crate::image::lock::Use;
use crate::mount::options::Access;
use crate::operation::Catalogue;
use crate::plan::{Planned, recorded};
use crate::record::{self, digest};
use crate::report::{Event, Observer, OperationReport, Outcome, path_text};
use crate::session::{Inspection, Session, choose_way};

/// What was seen in an image.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Survey {
    /// The image.
    pub image: ImageFacts,
    /// What the guest is.
    pub inspection: Inspection,
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
}

/// Looks at an image: opened read-only, mounted read-only, no journal replayed.
///
/// # Errors
/// When the image or its guest cannot be understood.
pub fn survey(target: &Target, operations: &[Planned], observer: &mut dyn Observer) -> Result<Survey> {
    observer.event(Event::Image(&target.image));
    refuse_interrupted(&target.image)?;
    let image = Image::open(&target.image, target.format, Use::Read)?;
    let spec = ImageSpec { layers: image.node(true), read_only: true };
    let way = choose_way(target.attach, &image, true)?;
    let session = Session::open(&spec, way, Access::Look, observer)?;
    let seen = apply(operations, session.guest(), Mode::Look, observer);
    let (operations, inspection) = both_values(seen, session.close())?;
    Ok(Survey { image: image.facts(), inspection, operations })
}

/// What `verify` found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Verdict {
    /// The image.
    #[serde(serialize_with = "path_text")]
    pub image: PathBuf,
    /// Whether nothing was found.
    pub sealed: bool,
    /// None when the record has no digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest_matches: Option<bool>,
    /// Operations whose work is no longer true, with what is back.
    pub found: Vec<OperationReport>,
    /// Operations that cannot be judged without the secret they were given.
    pub unsure: Vec<String>,
}

/// Holds an image against its record: the digest, and every recorded operation, which must find nothing to do.
///
/// # Errors
/// When the check cannot be made; what it finds is in the verdict.
pub fn verify(target: &Target, catalogue: &Catalogue, observer: &mut dyn Observer) -> Result<Verdict> {
    let path = target.image.as_path();
    path.metadata().context(|| format!("cannot find the image {}", path.display()))?;
    let seal = record::load(path)?;
    let wanted = seal.subject.first().and_then(|subject| subject.digest.get("sha256"));
    let digest_matches = wanted.map(|wanted| Ok(*wanted == digest::sha256(path, observer)?)).transpose()?;
    let operations: Vec<_> = seal
        .predicate
        .operations
        .into_iter()
        .map(|operation| (operation.name, operation.parameters))
        .collect();
    let planned = recorded(catalogue, &operations)?;
    let seen = survey(target, &planned, observer)?;
    Ok(verdict(path, digest_matches, &seen.operations))
}

fn verdict(image: &Path, digest_matches: Option<bool>, seen: &[OperationReport]) -> Verdict {
    let of = |outcome: Outcome| seen.iter().filter(move |report| report.outcome == outcome);
    let unsure = of(Outcome::Unsure).map(|report| report.name.clone()).collect();
    let found: Vec<_> = of(Outcome::Changed).cloned().collect();
    let sealed = found.is_empty() && digest_matches != Some(false);
    Verdict { image: image.to_path_buf(), sealed, digest_matches, found, unsure }
}
