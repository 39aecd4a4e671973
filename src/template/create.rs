//! Making a template: seal into the store, keep the definition of the machine beside it, and let nobody write to it.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::seed_place;
use super::store::{HalfTemplate, Store};
use super::{Template, disk_path};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::image::commit::CommitMode;
use crate::image::format::Format;
use crate::image::info::Image;
use crate::image::lock::{LockedImage, Use};
use crate::image::past::Past;
use crate::plan::Plan;
use crate::record::template::{FileStamp, TemplateDisk, TemplateFacts};
use crate::record::{self, PendingRecord, Subject, digest};
use crate::report::Observer;
use crate::seal::{SealReport, seal};
use crate::site::Means;
use crate::sys::reflink::set_immutable;

/// The mode of what nobody is to write to.
const READ_ONLY: u32 = 0o444;

/// What a template is made of.
#[derive(Debug)]
pub struct NewTemplate<'a> {
    /// What it will be called.
    pub name: &'a str,
    /// Where it will be.
    pub store: &'a Store,
    /// Its format, and whether it is compressed.
    pub format: (Format, bool),
    /// The definition of its machine for clones.
    pub definition: Option<String>,
}

/// Makes a template. The images of the plan are only read, whatever it says of its commit.
///
/// # Errors
/// Nothing of it is left in the store then.
pub fn create(
    new: NewTemplate<'_>,
    plan: &mut Plan,
    observer: &mut dyn Observer,
) -> Result<(Template, SealReport)> {
    let NewTemplate { name, store, format: (format, compress), definition } = new;
    let half = store.begin(name)?;
    let first = half.folder().join(format!("{name}.{}", format.driver()));
    let paths: Vec<_> = (0..plan.images.len()).map(|disk| disk_path(&first, disk)).collect();
    plan.commit = CommitMode::Output { paths: paths.clone(), format: Some(format), compress };
    let mut report = seal(plan, observer)?;
    let seed = seed(&paths, format, plan, &report, observer)?;
    let definition = definition.map(|text| write_definition(&half, name, &text)).transpose()?;
    let disks = paths.iter().map(|path| keep(path, format)).collect::<Result<Vec<_>>>()?;
    add_to_record(&paths[0], TemplateFacts { name: name.to_owned(), definition, disks, seed })?;
    let template = half.finish()?;
    // Where they are by now.
    report.image.clone_from(&template.images[0]);
    report.record = record::path_of(&report.image);
    for (disk, image) in report.disks.iter_mut().zip(&template.images) {
        disk.image.clone_from(image);
    }
    Ok((template, report))
}

/// Where clones get their seeds, if the seal made a place for them.
fn seed(
    paths: &[PathBuf],
    format: Format,
    plan: &Plan,
    report: &SealReport,
    observer: &mut dyn Observer,
) -> Result<Option<record::template::SeedPlace>> {
    let made = report.operations.iter().find(|operation| operation.name == seed_place::OPERATION);
    let path = made.and_then(|operation| operation.files.first()).map(|file| file.path.clone());
    let (Some(path), Means::Host(_)) = (path, report.attached.means) else { return Ok(None) };
    let open = |path: &PathBuf| Image::open(path, Some(format), Use::Read, Past::default());
    let images = paths.iter().map(open).collect::<Result<Vec<_>>>()?;
    seed_place::find(&images, &path, (&plan.isolation, plan.attach, plan.root.clone()), observer)
}

fn write_definition(half: &HalfTemplate, name: &str, text: &str) -> Result<Subject> {
    let name = format!("{name}.xml");
    let path = half.folder().join(&name);
    let failed = || format!("cannot write {}", path.display());
    let mut file =
        File::options().write(true).create_new(true).mode(READ_ONLY).open(&path).context(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).context(failed)?;
    let digest = BTreeMap::from([("sha256".to_owned(), digest::of_bytes(text.as_bytes()))]);
    Ok(Subject { name, digest })
}

/// Lets nobody write to a disk of the template any more, and says what it is from now on.
fn keep(path: &Path, format: Format) -> Result<TemplateDisk> {
    let failed = || format!("cannot make {} read-only", path.display());
    let file = File::open(path).context(failed)?;
    file.set_permissions(Permissions::from_mode(READ_ONLY)).context(failed)?;
    file.sync_all().context(failed)?;
    let immutable = set_immutable(&file, true).context(failed)?;
    let image = Image::open(path, Some(format), Use::Look, Past::default())?;
    let stamp = FileStamp::of(&file).context(failed)?;
    Ok(TemplateDisk { format, virtual_bytes: image.virtual_bytes, immutable, stamp })
}

fn add_to_record(image: &Path, facts: TemplateFacts) -> Result<()> {
    let mut record = record::load(image)?;
    record.predicate.template = Some(facts);
    let path = PendingRecord::prepare(image)?.write(&record)?.name()?;
    fs::set_permissions(&path, Permissions::from_mode(READ_ONLY))
        .context(|| format!("cannot make {} read-only", path.display()))
}

/// Refuses a plan that cannot make a template.
///
/// # Errors
/// A usage error.
pub fn check(plan: &Plan) -> Result<()> {
    if plan.past.allow_backing {
        return Err(Error::usage("a template has no backing files")
            .hint("write what is in them into the template: --flatten"));
    }
    Ok(())
}

/// Refuses a template that somebody reads at this moment: a clone that runs on it.
///
/// # Errors
/// [`ErrorKind::Busy`].
pub fn check_unused(template: &Template) -> Result<()> {
    for path in &template.images {
        if let Some(who) = LockedImage::user_of(path)? {
            let what = format!("{} is in use: {who}", path.display());
            return Err(Error::new(ErrorKind::Busy, what).hint("shut its clones down, and delete them"));
        }
    }
    Ok(())
}
