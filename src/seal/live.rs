//! Sealing the copy of a guest that goes on running: a file that is gone with the run, whatever becomes of it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::check_new;
use crate::domain::WhileRunning;
use crate::domain::copy::{Copied, PointInTime};
use crate::error::{Context, Error, Result};
use crate::image::commit::CommitMode;
use crate::image::format::Format;
use crate::image::info::{Image, ImageFacts};
use crate::image::lock::Use;
use crate::image::nameless::{NamelessFile, folder_of, sweep};
use crate::image::past::Past;
use crate::plan::Plan;
use crate::report::{Event, Observer, Stage};
use crate::sys::own;

/// What is reported of the disks that were copied.
#[derive(Debug)]
pub(super) struct Source {
    /// The disks themselves, not the copies.
    pub(super) facts: Vec<ImageFacts>,
    /// The state that the copies are in.
    pub(super) point_in_time: PointInTime,
}

/// Copies the disks of a guest that runs, where the plan wants that, and opens the copies; none when the guest is off.
pub(super) fn copy(plan: &mut Plan, observer: &mut dyn Observer) -> Result<Option<(Vec<Image>, Source)>> {
    let Some(domain) = plan.domain.as_ref().filter(|_| plan.while_running == WhileRunning::Copy) else {
        return Ok(None);
    };
    if !domain.state()?.is_active() {
        return Ok(None);
    }
    let CommitMode::Output { paths, .. } = &plan.commit else {
        return Err(Error::usage("a copy is sealed to --output alone"));
    };
    let real = |path: &PathBuf| path.canonicalize().context(|| format!("cannot find {}", path.display()));
    let sources = plan.images.iter().map(real).collect::<Result<Vec<_>>>()?;
    let Some(first) = paths.first() else { return Err(Error::usage("no new file is named")) };
    // Before anything is copied: the name of the result may be wrong.
    let known: Vec<&Path> = sources.iter().map(PathBuf::as_path).collect();
    paths.iter().try_for_each(|path| check_new(path, &known))?;
    let folder = folder_of(first).to_path_buf();
    sweep(&folder)?;
    plan.images.iter().for_each(|image| observer.event(Event::Image(image)));
    observer.event(Event::Stage(Stage::CopyingDisk));
    let Copied { disks, point_in_time } = domain.copy(&folder, observer)?;
    observer.event(Event::Stage(Stage::OpeningImages));
    let (mut images, mut facts) = (Vec::new(), Vec::new());
    for ((disk, file), source) in disks.into_iter().zip(&sources) {
        let (image, fact) = opened(file, (source, disk.format), plan.past)?;
        images.push(image);
        facts.push(fact);
        if let CommitMode::Output { format, .. } = &mut plan.commit {
            format.get_or_insert(disk.format);
        }
    }
    Ok(Some((images, Source { facts, point_in_time })))
}

/// Opens a copy, which has no name from then on; with the facts of the disk that it is a copy of.
fn opened(file: NamelessFile, (source, format): (&Path, Format), past: Past) -> Result<(Image, ImageFacts)> {
    let path = file.temporary_path().unwrap_or_default();
    file.share();
    let mut image = Image::open(&path, Some(Format::Qcow2), Use::Read, past)?;
    // From here on nobody needs its name, and a kill leaves nothing.
    drop(file);
    image.path = PathBuf::from(own::path_of(image.lock.file()));
    let mut facts = image.facts();
    facts.format = format;
    facts.name = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let metadata = source.metadata().context(|| format!("cannot examine {}", source.display()))?;
    // A device says nothing of its length there.
    facts.file_bytes = if metadata.is_file() { metadata.len() } else { facts.virtual_bytes };
    // The new file is for those whom the disk is for.
    let mode = Permissions::from_mode(metadata.permissions().mode() & 0o777);
    image.lock.file().set_permissions(mode).context(|| "cannot set the mode of the copy")?;
    Ok((image, facts))
}
