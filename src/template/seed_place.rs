//! Where each clone of a template gets its random seed: the file that the operation random-seed-place made, as bytes of a
//! disk. A clone is then given its seed without mounting it.

#![forbid(unsafe_code)]

use std::path::Path;

use crate::action::random_seed::{SEED_BYTES, place};
use crate::attach::Way;
use crate::disk::Storage;
use crate::error::{Result, both_values};
use crate::image::info::Image;
use crate::inspect::file_place::file_place;
use crate::isolate::Isolation;
use crate::mount::options::Access;
use crate::record::template::SeedPlace;
use crate::report::Observer;
use crate::seal::specs;
use crate::session::{Handling, Session, choose_way};
use crate::site::Where;

/// The operation that makes it.
pub const OPERATION: &str = "random-seed-place";
/// The operation that gives a seed where there is no such place.
pub const NEW_SEED: &str = "random-seed-new";

/// Finds it on the disks of a template, which are mounted for that, read-only. None where the guest is not for this host
/// to mount, and where its filesystem keeps checksums of what is in files.
///
/// # Errors
/// When the guest cannot be read.
pub fn find(
    images: &[Image],
    path: &Path,
    (isolation, attach, root): (&Isolation, Option<Way>, Option<String>),
    observer: &mut dyn Observer,
) -> Result<Option<SeedPlace>> {
    let how = (isolation, attach, choose_way(attach, images, true)?);
    let Where::Host { attachment, storage } = Where::of(&specs(images, &[], true)?, how, observer)? else {
        return Ok(None);
    };
    let handling = Handling { access: Access::Look, repair: false, root, mount_options: Vec::new() };
    let session = Session::open(attachment, storage, &handling, observer)?;
    let found = {
        let Session { inspection, .. } = &session;
        let on: (&Storage, _) = (&inspection.storage, &inspection.layout);
        file_place(session.root(), on, path, SEED_BYTES as u64)
    };
    let (found, _) = both_values(found, session.close())?;
    let Some((disk, offset)) = found else { return Ok(None) };
    is_there(images, SeedPlace { disk, offset })
}

/// The same place if what stands there is what was put there: it is written over.
///
/// # Errors
/// When the image cannot be read.
pub fn is_there(images: &[Image], seed: SeedPlace) -> Result<Option<SeedPlace>> {
    let there = images.get(seed.disk).map_or(Ok(None), |image| image.peek(seed.offset, SEED_BYTES as u64))?;
    Ok((there.as_deref() == Some(&place()[..])).then_some(seed))
}
