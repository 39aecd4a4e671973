//! The files that a run makes, and how its result becomes permanent.

#![forbid(unsafe_code)]

use std::fs::File;
use std::path::Path;

use crate::error::{Context, Error, Result};
use crate::fault::{self, Point};
use crate::image::commit::{self, CommitMode, Pending};
use crate::image::container;
use crate::image::info::Image;
use crate::image::nameless::NamelessFile;
use crate::image::overlay::Overlay;
use crate::image::place::Place;
use crate::plan::Plan;
use crate::record::{PendingRecord, SealRecord, WrittenRecord, digest};
use crate::recover::{Committed, SealedDisk, finish};
use crate::report::{Event, Observer, Stage};
use crate::sys::interrupt;

/// The files that a run makes, by how its result becomes permanent.
#[derive(Debug)]
pub struct Files {
    /// Working overlays, with the journals of those that are committed; none with `--in-place`.
    overlays: Vec<(Overlay, Option<NamelessFile>)>,
    /// The new file of each disk, with `--output`.
    outputs: Vec<NamelessFile>,
    record: PendingRecord,
}

impl Files {
    /// Makes them: in the folders of what is `sealed`, the images or new files.
    ///
    /// # Errors
    /// When a folder cannot be written, or something stands in the way.
    pub fn make(plan: &Plan, images: &[Image], sealed: &[Place]) -> Result<Self> {
        let [first, ..] = sealed else { return Err(Error::usage("no image is named")) };
        let record = PendingRecord::prepare(&first.seat)?;
        let (mut outputs, mut overlays) = (Vec::new(), Vec::new());
        for (image, sealed) in images.iter().zip(sealed) {
            match plan.commit {
                CommitMode::InPlace => {}
                CommitMode::Overlay => {
                    image.place.must_last()?;
                    let folder = image.place.folder();
                    Pending::clear(image)?;
                    let journal = NamelessFile::make(folder, 0o600)?;
                    overlays.push((Overlay::make(image, folder)?, Some(journal)));
                }
                CommitMode::Output { .. } => {
                    let folder = sealed.folder();
                    outputs.push(NamelessFile::make(folder, image.mode()?)?);
                    overlays.push((Overlay::make(image, folder)?, None));
                }
            }
        }
        Ok(Self { overlays, outputs, record })
    }

    /// The working overlay of each image; none with `--in-place`.
    pub fn overlays(&self) -> Vec<&Overlay> {
        self.overlays.iter().map(|(overlay, _)| overlay).collect()
    }

    /// Makes the result permanent, and its record.
    ///
    /// # Errors
    /// The images are unchanged, except for [`crate::ErrorKind::Interrupted`] and with `--in-place`.
    pub fn commit(
        self,
        plan: &Plan,
        (images, sealed): (&[Image], &[Place]),
        mut statement: SealRecord,
        observer: &mut dyn Observer,
    ) -> Result<Committed> {
        let Self { mut overlays, mut outputs, record } = self;
        match &plan.commit {
            CommitMode::Overlay => {
                // What has begun is better finished: signals wait.
                let _hold = interrupt::hold();
                let record_text = serde_json::to_value(&statement).context(|| "cannot make the record")?;
                let pending = Pending::begin(&mut overlays, images, (record_text, plan.digest))?;
                finish(pending, &images[0].place, record, observer)
            }
            CommitMode::Output { format, compress, .. } => {
                let mut containers = Vec::new();
                for (((overlay, _), image), new) in
                    overlays.iter().zip(images).zip(outputs.iter().zip(sealed))
                {
                    let (output, path) = new;
                    let (to, how) = ((output, path.path.as_path()), (*format, *compress));
                    containers.extend(commit::into_new_file(overlay, image, to, how)?);
                }
                let container = container::sum(containers);
                statement.set_container(container.as_ref());
                let files: Vec<_> = outputs
                    .iter()
                    .zip(sealed)
                    .map(|(output, place)| (output.file(), place.path.as_path()))
                    .collect();
                let (record, disks) = hashed(plan, &files, statement, record, observer)?;
                interrupt::check_before("giving the new file its name")?;
                let _hold = interrupt::hold();
                // The first, beside which the record is, comes last.
                for (output, place) in outputs.iter_mut().zip(sealed).rev() {
                    output.name_over(place.path.file_name().unwrap_or_default())?;
                }
                fault::point(Point::OutputNamed)?;
                Ok(Committed { record: record.name()?, disks, container })
            }
            CommitMode::InPlace => {
                let _hold = interrupt::hold();
                let containers = images.iter().map(commit::clean_in_place).collect::<Result<Vec<_>>>()?;
                let container = container::sum(containers.into_iter().flatten());
                statement.set_container(container.as_ref());
                let files: Vec<_> =
                    images.iter().map(|image| (image.lock.file(), image.path.as_path())).collect();
                let (record, disks) = hashed(plan, &files, statement, record, observer)?;
                Ok(Committed { record: record.name()?, disks, container })
            }
        }
    }
}

/// Writes the record of files that are whole, with their digests where the plan wants them.
fn hashed(
    plan: &Plan,
    files: &[(&File, &Path)],
    mut statement: SealRecord,
    record: PendingRecord,
    observer: &mut dyn Observer,
) -> Result<(WrittenRecord, Vec<SealedDisk>)> {
    if plan.digest {
        observer.event(Event::Stage(Stage::Hashing));
    }
    let disk = |(file, path): &(&File, &Path)| {
        let sha256 = plan.digest.then(|| digest::sha256(file, path, observer)).transpose()?;
        Ok(SealedDisk { image: path.to_path_buf(), sha256 })
    };
    let disks = files.iter().map(disk).collect::<Result<Vec<_>>>()?;
    statement.set_digests(disks.iter().map(|disk| disk.sha256.as_deref()));
    Ok((record.write(&statement)?, disks))
}
