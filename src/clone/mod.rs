//! Clones of a template: thin ones, which read from it what they did not write, and full ones. Each is there whole or not at
//! all, and has a random seed of its own.

#![forbid(unsafe_code)]

pub mod deploy;
pub mod full;
pub mod names;
pub mod source;
mod thin;

use std::path::PathBuf;
use std::time::Instant;

use nix::unistd::unlink;
use serde::Serialize;

use crate::attach::Way;
use crate::domain::WhileRunning;
use crate::erase::policy::{ErasePlan, Policy};
use crate::error::{Context, Error, Result, all, both};
use crate::expand::Expanded;
use crate::guest::path_serde;
use crate::image::commit::CommitMode;
use crate::image::format::Format;
use crate::image::nameless::{NamelessFile, folder_of, sweep};
use crate::image::overlay::Overlay;
use crate::image::past::Past;
use crate::image::place::Surroundings;
use crate::isolate::Isolation;
use crate::mount::wanted::Wanted;
use crate::plan::{Plan, Planned};
use crate::report::{Event, Observer, OperationReport, Stage};
use crate::seal::apply_to_guest;
use crate::sys::interrupt;
use source::Source;

/// What kind of clone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Over the template, named by its absolute path or by one from the folder of the clone.
    Thin {
        /// By which.
        relative: bool,
    },
    /// With all that the template has.
    Full {
        /// Its format; the template's own when none is said.
        format: Option<Format>,
        /// Whether its clusters are compressed.
        compress: bool,
    },
}

/// How the guest of a clone is mounted, where operations run.
#[derive(Debug, Clone, Default)]
pub struct Mounting {
    /// How to attach its disks.
    pub attach: Option<Way>,
    /// Whether it is mounted in a machine of its own.
    pub isolation: Isolation,
    /// Which volume has the root, where there are several systems.
    pub root: Option<String>,
    /// Mount options beside our own.
    pub mount_options: Vec<Wanted>,
}

/// One clone that is wanted.
#[derive(Debug)]
pub struct NewClone {
    /// The image of its first disk; those of others are named after it.
    pub image: PathBuf,
    /// What is done to its guest.
    pub operations: Vec<Planned>,
}

/// Where a clone has its random seed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seed {
    /// It was written to its place in the image.
    Placed,
    /// An operation gave it one.
    Operation,
    /// It has none of its own: as asked.
    None,
}

/// A clone that was made.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Cloned {
    /// The image of its first disk.
    #[serde(with = "path_serde")]
    pub image: PathBuf,
    /// Those of its other disks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<PathBuf>,
    /// Its template.
    pub template: String,
    /// Whether it is thin.
    pub thin: bool,
    /// Whether a full clone shares the template's blocks on the host's filesystem.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reflinked: bool,
    /// Its random seed.
    pub seed: Seed,
    /// What was done to its guest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<OperationReport>,
    /// What grew.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expanded: Option<Expanded>,
    /// How long it took.
    pub milliseconds: u64,
}

impl Cloned {
    /// Removes it again, when what was to be made of it failed.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self) -> Result<()> {
        remove(std::iter::once(&self.image).chain(&self.others))
    }
}

/// Removes images, each of them whatever becomes of the others.
fn remove<'a>(images: impl IntoIterator<Item = &'a PathBuf>) -> Result<()> {
    let one =
        |image: &PathBuf| unlink(image.as_path()).context(|| format!("cannot remove {}", image.display()));
    all(images.into_iter().map(one))
}

/// Makes one clone. With `new_seed` it gets a random seed of its own, by that operation where the template has no place for
/// one.
///
/// # Errors
/// A usage error when a name is taken; nothing of the clone is left then.
pub fn clone(
    source: &Source,
    new: NewClone,
    how: How,
    (mounting, new_seed): (&Mounting, Option<&Planned>),
    observer: &mut dyn Observer,
) -> Result<Cloned> {
    let started = Instant::now();
    let NewClone { image, mut operations } = new;
    let format = source.format_of(how);
    let paths = source.paths_of_clone(&image);
    paths.iter().try_for_each(|path| refuse_taken(path))?;
    sweep(folder_of(&image))?;
    observer.event(Event::Stage(Stage::Cloning));
    let made = match how {
        How::Thin { relative } => thin::make(source, &paths, relative, new_seed.is_some())?,
        How::Full { .. } => full::make(source, &paths, format, new_seed.is_some(), observer)?,
    };
    let Made { mut files, seeded, reflinked } = made;
    let seed = match new_seed {
        Some(_) if seeded => Seed::Placed,
        Some(operation) => {
            operations.push(operation.clone());
            Seed::Operation
        }
        None => Seed::None,
    };
    let (mut done, mut expanded) = (Vec::new(), None);
    if !operations.is_empty() || source.grows.is_some() {
        let as_copy = matches!(how, How::Full { .. }).then_some(format);
        let edited = edit(source, files, as_copy, operations, mounting, observer)?;
        (files, done, expanded) = (edited.files, edited.operations, edited.expanded);
    }
    if let How::Full { compress: true, .. } = how {
        files = full::compressed(files, &paths, format)?;
    }
    interrupt::check_before("giving the clone its name")?;
    name(files, &paths)?;
    let mut paths = paths.into_iter();
    Ok(Cloned {
        image: paths.next().unwrap_or(image),
        others: paths.collect(),
        template: source.template.name.clone(),
        thin: matches!(how, How::Thin { .. }),
        reflinked,
        seed,
        operations: done,
        expanded,
        milliseconds: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

/// The files of a clone, nameless yet.
#[derive(Debug)]
struct Made {
    files: Vec<NamelessFile>,
    /// Whether its random seed is there.
    seeded: bool,
    reflinked: bool,
}

/// Refuses a name that is taken, before anything is made.
///
/// # Errors
/// A usage error.
pub fn refuse_taken(path: &std::path::Path) -> Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(Error::usage(format!("{} is there already", path.display()))
            .hint("choose another name; a clone never takes the place of a file"));
    }
    Ok(())
}

/// A clone of which the guest was edited.
struct Edited {
    files: Vec<NamelessFile>,
    operations: Vec<OperationReport>,
    expanded: Option<Expanded>,
}

/// Does operations on the guest of a clone that has no name yet.
fn edit(
    source: &Source,
    files: Vec<NamelessFile>,
    as_copy: Option<Format>,
    operations: Vec<Planned>,
    mounting: &Mounting,
    observer: &mut dyn Observer,
) -> Result<Edited> {
    let Mounting { attach, isolation, root, mount_options } = mounting.clone();
    let mut plan = Plan {
        surroundings: Surroundings::default(),
        domain: None,
        while_running: WhileRunning::Refuse,
        images: source.template.images.clone(),
        formats: Vec::new(),
        attach,
        isolation,
        root,
        mount_options,
        expand: source.grows.as_ref().map(|(expand, _)| expand.clone()),
        repair: false,
        commit: CommitMode::Overlay,
        // The template holds nothing that was deleted, and the clone what it gets.
        erase: ErasePlan { policy: Policy::None, ..ErasePlan::default() },
        past: Past::default(),
        operations,
        digest: false,
    };
    let overlay = |file| match as_copy {
        None => Overlay::over(file),
        Some(format) => Overlay::copy(file, format),
    };
    let overlays: Vec<_> = files.into_iter().map(overlay).collect();
    let growth = source.grows.as_ref().map(|(_, growth)| *growth);
    let images = (source.images.as_slice(), growth);
    let applied = apply_to_guest(&mut plan, images, &overlays.iter().collect::<Vec<_>>(), observer)?;
    if let Some(error) = crate::sys::trouble::take().into_iter().next() {
        return Err(Error::failed("clean-up failed, so the clone is not trusted").caused_by(error));
    }
    Ok(Edited {
        files: overlays.into_iter().map(Overlay::into_file).collect(),
        operations: applied.edited.operations,
        expanded: applied.expanded,
    })
}

/// Gives the files their names, the first last; on failure none has one.
fn name(files: Vec<NamelessFile>, paths: &[PathBuf]) -> Result<()> {
    let _hold = interrupt::hold();
    let mut named: Vec<&PathBuf> = Vec::new();
    for (mut file, path) in files.into_iter().zip(paths).rev() {
        if let Err(error) = file.name(path.file_name().unwrap_or_default()) {
            return both(Err(error), remove(named));
        }
        named.push(path);
    }
    Ok(())
}
