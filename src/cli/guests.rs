//! The guests that a command line names: by images, by the disks of one guest, or by a domain of libvirt.

use std::path::PathBuf;

use super::args::{DomainArgs, ImageArgs};
use super::print::Printer;
use crate::domain::Domain;
use crate::domain::virsh::Libvirt;
use crate::error::{Error, Result};
use crate::image::format::Format;
use crate::image::uri;
use crate::sys::users::Identity;

/// What virsh takes from the environment: where the user's own libvirt and its settings are.
const LIBVIRT_NAMES: [&str; 7] = [
    "HOME",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_CACHE_HOME",
    "LIBVIRT_DEFAULT_URI",
    "VIRSH_DEFAULT_CONNECT_URI",
    "LIBVIRT_AUTH_FILE",
];

/// The guests that are named.
#[derive(Debug)]
pub(super) struct Guests {
    /// The images of each one's disks.
    pub(super) guests: Vec<Vec<PathBuf>>,
    /// The format of each disk, where it is said.
    pub(super) formats: Vec<Option<Format>>,
    /// The domain whose guest it is.
    pub(super) domain: Option<Domain>,
}

/// Finds them.
///
/// # Errors
/// Usage errors: none, both ways at once; and those of [`Domain::find`].
pub(super) fn named(
    (images, add): (&[PathBuf], &[PathBuf]),
    domain: &DomainArgs,
    image: &ImageArgs,
) -> Result<Guests> {
    // Before anything names them in an error: a URI may have a password.
    images.iter().chain(add).try_for_each(|image| uri::is_remote(image).map(drop))?;
    let Some(wanted) = domain.only()? else {
        return Ok(Guests { guests: by_images(images, add)?, formats: formats(image)?, domain: None });
    };
    if !images.is_empty() || !add.is_empty() {
        return Err(Error::usage("name a guest either by -d or by its images"));
    }
    if !image.format.is_empty() {
        return Err(Error::usage(
            "--format does not go with -d: libvirt knows the formats of a domain's disks",
        ));
    }
    let domain = Domain::find(libvirt(domain.connect.clone()), wanted)?;
    let guests = vec![domain.disks.iter().map(|disk| disk.path.clone()).collect()];
    let formats = domain.disks.iter().map(|disk| Some(disk.format)).collect();
    Ok(Guests { guests, formats, domain: Some(domain) })
}

/// libvirt at this URI, or at its own choice.
pub(super) fn libvirt(uri: Option<String>) -> Libvirt {
    #[expect(clippy::disallowed_methods, reason = "the environment is read in cli and nowhere else")]
    let variable = |name: &str| Some((name.to_owned(), std::env::var(name).ok()?));
    Libvirt { uri, environment: LIBVIRT_NAMES.into_iter().filter_map(variable).collect() }
}

/// The same for a command that only looks: disks that are left alone are told, and that the domain has not ended.
///
/// # Errors
/// As [`named`], and when one disk is named twice.
pub(super) fn to_look_at(
    (images, add): (&[PathBuf], &[PathBuf]),
    domain: &DomainArgs,
    image: &ImageArgs,
    printer: &mut Printer,
) -> Result<Guests> {
    let guests = named((images, add), domain, image)?;
    refuse_twice(&add.iter().collect::<Vec<_>>())?;
    if let Some(domain) = &guests.domain {
        tell_notes(domain, printer);
        domain.warn_unless_off(printer)?;
    }
    Ok(guests)
}

/// Tells of disks of a domain that are left alone.
pub(super) fn tell_notes(domain: &Domain, printer: &Printer) {
    domain.notes.iter().for_each(|note| printer.line(&super::print::clean(&format!("note: {note}"))));
}

impl DomainArgs {
    /// The domain that is named; virsh tells names, UUIDs and numbers apart.
    fn only(&self) -> Result<Option<&str>> {
        match self.domain.as_slice() {
            [] => Ok(None),
            [name] if name.is_empty() => Err(Error::usage("-d needs the name of a domain")
                .hint("for example: -d web; `virsh list --all` shows them all")),
            [name] => Ok(Some(name)),
            _ => Err(Error::usage("-d names one domain at a time").hint("seal them one after the other")),
        }
    }
}

/// The guests that are named by their images.
///
/// # Errors
/// Usage errors: none, one image twice, both ways at once.
fn by_images(images: &[PathBuf], add: &[PathBuf]) -> Result<Vec<Vec<PathBuf>>> {
    let guests: Vec<Vec<PathBuf>> = match (images, add) {
        ([], []) => {
            return Err(Error::usage("no image is named").hint(
                "guestseal IMAGE… seals images, guestseal -d NAME a domain; guestseal --help tells more",
            ));
        }
        (images, []) => images.iter().map(|image| vec![image.clone()]).collect(),
        ([], disks) => vec![disks.to_vec()],
        _ => {
            return Err(Error::usage("name images either with -a or without").hint(
                "repeated -a are the disks of one guest; without it each image is a guest of its own",
            ));
        }
    };
    Ok(guests)
}

/// The format of each disk of a guest: those of `-a`, or one for the only disk of each.
///
/// # Errors
/// A usage error when several are given for images without -a.
fn formats(args: &ImageArgs) -> Result<Vec<Option<Format>>> {
    match args.format.as_slice() {
        _ if !args.disk_formats.is_empty() => Ok(args.disk_formats.clone()),
        [] => Ok(Vec::new()),
        [format] => Ok(vec![format.format()]),
        _ => Err(Error::usage("--format is given more than once for images without -a").hint(
            "seal images of different formats one after the other, or name disks by --format FORMAT -a DISK",
        )),
    }
}

/// Refuses one image that is named twice, by whatever names. Those that are missing are for whoever opens them to report.
pub(super) fn refuse_twice(images: &[&PathBuf]) -> Result<()> {
    let known = images.iter().filter_map(|path| Some((*path, Identity::of(&path.metadata().ok()?))));
    let known: Vec<_> = known.collect();
    for (index, (path, identity)) in known.iter().enumerate() {
        if let Some((first, _)) = known[..index].iter().find(|(_, other)| other == identity) {
            let what = if first == path {
                format!("the image {} is named twice", path.display())
            } else {
                format!("{} and {} are one image", first.display(), path.display())
            };
            return Err(Error::usage(what).hint("name each image once"));
        }
    }
    Ok(())
}
