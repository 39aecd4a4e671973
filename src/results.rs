//! The files that a run makes, and how its result becomes permanent.

#![forbid(unsafe_code)]

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};
use crate::fault::{self, Point};
use crate::image::commit::{self, CommitMode, Pending};
use crate::image::info::Image;
use crate::image::nameless::{NamelessFile, folder_of};
use crate::image::overlay::Overlay;
use crate::plan::Plan;
use crate::record::{PendingRecord, SealRecord, WrittenRecord, digest};
use crate::recover::{Committed, finish};
use crate::report::Observer;
use crate::sys::interrupt;

/// The files that a run makes, by how its result becomes permanent.
#[derive(Debug)]
pub struct Files(Kind);

#[derive(Debug)]
enum Kind {
    IntoImage { overlay: Overlay, journal: NamelessFile, record: PendingRecord },
    NewFile { overlay: Overlay, output: NamelessFile, path: PathBuf, record: PendingRecord },
    InPlace { record: PendingRecord },
}

impl Files {
    /// Makes them in the folder of the sealed image.
    ///
    /// # Errors
    /// When the folder cannot be written, or something stands in the way.
    pub fn make(plan: &Plan, image: &Image, sealed: &Path) -> Result<Self> {
        let folder = folder_of(sealed);
        let record = PendingRecord::prepare(sealed)?;
        Ok(Self(match plan.commit {
            CommitMode::InPlace => Kind::InPlace { record },
            CommitMode::Overlay => {
                Pending::clear(image)?;
                let journal = NamelessFile::make(folder, 0o600)?;
                Kind::IntoImage { overlay: Overlay::make(image, folder)?, journal, record }
            }
            CommitMode::Output { .. } => {
                let output = NamelessFile::make(folder, image.mode()?)?;
                let overlay = Overlay::make(image, folder)?;
                Kind::NewFile { overlay, output, path: sealed.to_path_buf(), record }
            }
        }))
    }

    /// The working overlay; none with `--in-place`.
    pub fn overlay(&self) -> Option<&Overlay> {
        match &self.0 {
            Kind::IntoImage { overlay, .. } | Kind::NewFile { overlay, .. } => Some(overlay),
            Kind::InPlace { .. } => None,
        }
    }

    /// Makes the result permanent, and its record.
    ///
    /// # Errors
    /// The image is unchanged, except for [`crate::ErrorKind::Interrupted`] and with `--in-place`.
    pub fn commit(
        self,
        plan: &Plan,
        image: &Image,
        mut statement: SealRecord,
        observer: &mut dyn Observer,
    ) -> Result<Committed> {
        match self.0 {
            Kind::IntoImage { mut overlay, journal, record } => {
                // What has begun is better finished: signals wait.
                let _hold = interrupt::hold();
                let record_text = serde_json::to_value(&statement).context(|| "cannot make the record")?;
                let pending = Pending::begin(&mut overlay, journal, image, (record_text, plan.digest))?;
                finish(pending, (&image.path, &image.lock), record, observer)
            }
            Kind::NewFile { overlay, mut output, path, record } => {
                let container = commit::into_new_file(&overlay, image, &output, &plan.commit)?;
                statement.set_container(container.as_ref());
                let (record, sha256) = hashed(plan, (output.file(), &path), statement, record, observer)?;
                interrupt::check_before("giving the new file its name")?;
                let _hold = interrupt::hold();
                output.name_over(path.file_name().unwrap_or_default())?;
                fault::point(Point::OutputNamed)?;
                Ok(Committed { record: record.name()?, sha256, container })
            }
            Kind::InPlace { record } => {
                let _hold = interrupt::hold();
                let container = commit::clean_in_place(image)?;
                statement.set_container(container.as_ref());
                let file = (image.lock.file(), image.path.as_path());
                let (record, sha256) = hashed(plan, file, statement, record, observer)?;
                Ok(Committed { record: record.name()?, sha256, container })
            }
        }
    }
}

/// Writes the record of a file that is whole, with its digest where the plan wants one.
fn hashed(
    plan: &Plan,
    (file, path): (&File, &Path),
    mut statement: SealRecord,
    record: PendingRecord,
    observer: &mut dyn Observer,
) -> Result<(WrittenRecord, Option<String>)> {
    let sha256 = plan.digest.then(|| digest::sha256(file, path, observer)).transpose()?;
    statement.set_digest(sha256.as_deref());
    Ok((record.write(&statement)?, sha256))
}
