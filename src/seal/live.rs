//! Sealing the copy of a guest that goes on running: a file that is gone with the run, whatever becomes of it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::check_new;
use crate::domain::WhileRunning;
use crate::domain::copy::{Copied, PointInTime};
use crate::error::{Context, Error, Result};
use crate::image::commit::CommitMode;
use crate::image::format::Format;
use crate::image::info::{Image, ImageFacts};
use crate::image::lock::Use;
use crate::image::nameless::{folder_of, sweep};
use crate::plan::Plan;
use crate::report::{Event, Observer, Stage};
use crate::sys::own;

/// What is reported of the disk that was copied.
#[derive(Debug)]
pub(super) struct Source {
    /// The disk itself, not the copy.
    pub(super) facts: ImageFacts,
    /// The state that the copy is in.
    pub(super) point_in_time: PointInTime,
}

/// Copies the disk of a guest that runs, where the plan wants that, and opens the copy; none when the guest is off.
pub(super) fn copy(plan: &mut Plan, observer: &mut dyn Observer) -> Result<Option<(Image, Source)>> {
    let Some(domain) = plan.domain.as_ref().filter(|_| plan.while_running == WhileRunning::Copy) else {
        return Ok(None);
    };
    if !domain.state()?.is_active() {
        return Ok(None);
    }
    let (CommitMode::Output { paths, .. }, Some(source)) = (&plan.commit, plan.images.first()) else {
        return Err(Error::usage("a copy is sealed to --output alone"));
    };
    let source = source.canonicalize().context(|| format!("cannot find {}", source.display()))?;
    let Some(new) = paths.first() else { return Err(Error::usage("no new file is named")) };
    // Before anything is copied: the name of the result may be wrong.
    check_new(new, &[&source])?;
    let folder = folder_of(new).to_path_buf();
    sweep(&folder)?;
    plan.images.iter().for_each(|image| observer.event(Event::Image(image)));
    observer.event(Event::Stage(Stage::CopyingDisk));
    let Copied { file, disk, point_in_time } = domain.copy(&folder, observer)?;
    observer.event(Event::Stage(Stage::OpeningImages));
    let path = file.temporary_path().unwrap_or_default();
    file.share();
    let mut image = Image::open(&path, Some(Format::Qcow2), Use::Read, plan.past)?;
    // From here on nobody needs its name, and a kill leaves nothing.
    drop(file);
    image.path = PathBuf::from(own::path_of(image.lock.file()));
    let mut facts = image.facts();
    facts.format = disk.format;
    facts.name = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let metadata = source.metadata().context(|| format!("cannot examine {}", source.display()))?;
    // A device says nothing of its length there.
    facts.file_bytes = if metadata.is_file() { metadata.len() } else { facts.virtual_bytes };
    // The new file is for those whom the disk is for.
    let mode = Permissions::from_mode(metadata.permissions().mode() & 0o777);
    image.lock.file().set_permissions(mode).context(|| "cannot set the mode of the copy")?;
    if let CommitMode::Output { format, .. } = &mut plan.commit {
        format.get_or_insert(disk.format);
    }
    Ok(Some((image, Source { facts, point_in_time })))
}
