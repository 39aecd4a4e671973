//! The end of a commit: written into the image, hashed, recorded. `seal` comes here with a commit that it has just
//! begun, `recover` with one that was interrupted; both end in the same image and record.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use crate::error::{Context, Result};
use crate::image::commit::{Pending, interrupted};
use crate::image::container::ContainerErasure;
use crate::image::lock::{LockedImage, Use};
use crate::image::nameless::{folder_of, sweep};
use crate::record::{PendingRecord, SealRecord, digest};
use crate::report::{Event, Observer};
use crate::sys::interrupt;

/// A commit that is done.
#[derive(Debug)]
pub struct Committed {
    /// Where the record is.
    pub record: PathBuf,
    /// The image's digest, where one was wanted.
    pub sha256: Option<String>,
    /// What became of the bytes of the image file that hold nothing of its disk; none when nothing was to be erased.
    pub container: Option<ContainerErasure>,
}

/// Finishes a commit that stands in its journal.
///
/// # Errors
/// [`crate::ErrorKind::Interrupted`]: the journal stays, and `recover` can try again. Any other kind when the commit had
/// just begun and the image is unchanged; then nothing is left of it.
pub fn finish(
    pending: Pending,
    (image, lock): (&Path, &LockedImage),
    record: PendingRecord,
    observer: &mut dyn Observer,
) -> Result<Committed> {
    let pending = pending.write(lock)?;
    let committed = record_it(&pending, (image, lock), record, observer)
        .map_err(|error| interrupted(image).caused_by(error))?;
    pending.finish()?;
    Ok(committed)
}

fn record_it(
    pending: &Pending,
    (image, lock): (&Path, &LockedImage),
    record: PendingRecord,
    observer: &mut dyn Observer,
) -> Result<Committed> {
    let (planned, wants_digest) = pending.record();
    let mut statement: SealRecord = serde_json::from_value(planned.clone())
        .context(|| "the journal holds no record of this version of guestseal")?;
    let container = pending.container(lock)?;
    let sha256 = wants_digest.then(|| digest::sha256(lock.file(), image, observer)).transpose()?;
    statement.set_digest(sha256.as_deref());
    statement.set_container(container.as_ref());
    let record = record.write(&statement)?.name()?;
    Ok(Committed { record, sha256, container })
}

/// Finishes the commit that was interrupted on an image; None when there was none.
///
/// # Errors
/// [`crate::ErrorKind::Busy`] while a run works on it or a guest runs on it, [`crate::ErrorKind::Interrupted`] when it
/// fails again, failed when the journal is damaged or of another image.
pub fn recover(image: &Path, observer: &mut dyn Observer) -> Result<Option<Committed>> {
    let image = image.canonicalize().context(|| format!("cannot find the image {}", image.display()))?;
    let lock = LockedImage::open(&image, Use::Commit)?;
    sweep(folder_of(&image))?;
    let Some(pending) = Pending::find(&image, &lock)? else { return Ok(None) };
    let _hold = interrupt::hold();
    lock.keep_readers_out()?;
    observer.event(Event::Stage(crate::seal::WRITING));
    let record = PendingRecord::prepare(&image)?;
    finish(pending, (&image, &lock), record, observer).map(Some)
}
