//! The end of a commit: written into the image, hashed, recorded. `seal` comes here with a commit that it has just
//! begun, `recover` with one that was interrupted; both end in the same image and record.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Context, Error, Result};
use crate::guest::path_serde;
use crate::image::commit::{Pending, interrupted};
use crate::image::container::ContainerErasure;
use crate::image::group::{Standing, standing};
use crate::image::lock::{LockedImage, Use};
use crate::image::nameless::sweep;
use crate::image::place::{Named, Place};
use crate::record::{PendingRecord, SealRecord, digest};
use crate::report::{Event, Observer, Stage};
use crate::sys::interrupt;

/// A commit that is done.
#[derive(Debug)]
pub struct Committed {
    /// Where the record is.
    pub record: PathBuf,
    /// The sealed images, the first one first.
    pub disks: Vec<SealedDisk>,
    /// What became of the bytes of the image files that hold nothing of their disks; none when nothing was to be erased.
    pub container: Option<ContainerErasure>,
}

/// A sealed image.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SealedDisk {
    /// Where it is.
    #[serde(with = "path_serde")]
    pub image: PathBuf,
    /// Its digest, where one was wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// What reports say: of several disks each, of one its digest.
pub fn of_several(mut disks: Vec<SealedDisk>) -> (Vec<SealedDisk>, Option<String>) {
    let sha256 = match disks.as_mut_slice() {
        [one] => one.sha256.take(),
        _ => return (disks, None),
    };
    (Vec::new(), sha256)
}

/// Finishes a commit that stands in its journals.
///
/// # Errors
/// [`crate::ErrorKind::Interrupted`]: the journals stay, and `recover` can try again. Any other kind when the commit had
/// just begun and the images are unchanged; then nothing is left of it.
pub fn finish(
    pending: Pending<'_>,
    image: &Place,
    record: PendingRecord,
    observer: &mut dyn Observer,
) -> Result<Committed> {
    let pending = pending.write()?;
    let committed =
        record_it(&pending, record, observer).map_err(|error| interrupted(image).caused_by(error))?;
    pending.finish()?;
    Ok(committed)
}

fn record_it(pending: &Pending<'_>, record: PendingRecord, observer: &mut dyn Observer) -> Result<Committed> {
    let (planned, wants_digest) = pending.record()?;
    let mut statement: SealRecord = serde_json::from_value(planned.clone())
        .context(|| "the journal holds no record of this version of guestseal")?;
    let container = pending.container()?;
    if wants_digest {
        observer.event(Event::Stage(Stage::Hashing));
    }
    let disk = |(image, file): (&Path, _)| {
        let sha256 = wants_digest.then(|| digest::sha256(file, image, observer)).transpose()?;
        Ok(SealedDisk { image: image.to_path_buf(), sha256 })
    };
    let disks = pending.images().map(disk).collect::<Result<Vec<_>>>()?;
    statement.set_digests(disks.iter().map(|disk| disk.sha256.as_deref()));
    statement.set_container(container.as_ref());
    let record = record.write(&statement)?.name()?;
    Ok(Committed { record, disks, container })
}

/// Finishes the commit that was interrupted on an image, and on the other disks of its guest; None when there was none.
///
/// # Errors
/// [`crate::ErrorKind::Busy`] while a run works on it or a guest runs on it, [`crate::ErrorKind::Interrupted`] when it
/// fails again, failed when a journal is damaged or of another image, or a disk is missing.
pub fn recover(image: Named<'_>, observer: &mut dyn Observer) -> Result<Option<Committed>> {
    match recover_from(image, observer)? {
        Recovered::Done(done) => Ok(done.map(|done| *done)),
        Recovered::Elsewhere(first) => match recover_from(Named { path: &first, ..image }, observer)? {
            Recovered::Done(done) => Ok(done.map(|done| *done)),
            Recovered::Elsewhere(_) => {
                let what = format!("the journal of {} is not that of a first disk", first.display());
                Err(Error::failed(what).hint("recover the first disk of this guest"))
            }
        },
    }
}

enum Recovered {
    /// Or there was nothing to do.
    Done(Option<Box<Committed>>),
    /// The journal beside this image decides.
    Elsewhere(PathBuf),
}

fn recover_from(image: Named<'_>, observer: &mut dyn Observer) -> Result<Recovered> {
    let open = |path: &Path| {
        let image = Place::find(Named { path, ..image })?;
        let lock = LockedImage::open(&image.path, Use::Commit)?;
        if image.folder().is_dir() {
            sweep(image.folder())?;
        }
        Ok((image, lock))
    };
    let (image, lock) = open(image.path)?;
    let others = match standing(&image, &lock)? {
        Standing::Nothing => return Ok(Recovered::Done(None)),
        Standing::Elsewhere(first) => return Ok(Recovered::Elsewhere(first)),
        Standing::Here(others) => others,
    };
    let others = others.iter().map(|other| open(other)).collect::<Result<Vec<_>>>()?;
    let images: Vec<_> = std::iter::once((image.clone(), lock)).chain(others).collect();
    let Some(pending) = Pending::find(&images)? else { return Ok(Recovered::Done(None)) };
    let _hold = interrupt::hold();
    images.iter().try_for_each(|(_, lock)| lock.keep_readers_out())?;
    observer.event(Event::Stage(Stage::Writing));
    let record = PendingRecord::prepare(&image.seat)?;
    finish(pending, &image, record, observer).map(|done| Recovered::Done(Some(Box::new(done))))
}
