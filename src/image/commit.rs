//! Making the work of a run permanent: the overlay is written into the image, or into a new file.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::format::Format;
use super::info::Image;
use super::nameless::NamelessFile;
use super::overlay::Overlay;
use crate::error::{Context, Error, ErrorKind, Result, both};
use crate::sys::interrupt::{self, Hold};
use crate::sys::tool::Tool;

/// How the result of a run becomes permanent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", tag = "mode")]
pub enum CommitMode {
    /// Work on an overlay that is written into the image at the end.
    Overlay,
    /// Write the result to a new file; the image is only read.
    Output {
        /// The new file.
        path: PathBuf,
        /// Its format; the image's own when none is said.
        format: Option<Format>,
        /// Whether its clusters are compressed.
        compress: bool,
    },
    /// Write into the image from the start, for those who keep their own copy.
    InPlace,
}

/// The name under which an overlay stands while its commit runs. Finding it means: a commit was interrupted.
pub fn overlay_name(image: &Path) -> PathBuf {
    let name = image.file_name().unwrap_or_default().to_string_lossy();
    image.with_file_name(format!(".{name}.guestseal-overlay"))
}

/// Refuses to work on an image whose last commit was interrupted.
///
/// # Errors
/// [`ErrorKind::Interrupted`] when there is such an overlay.
pub fn refuse_interrupted(image: &Path) -> Result<()> {
    // A missing image is for whoever opens it to report.
    let Ok(image) = &image.canonicalize() else { return Ok(()) };
    let overlay = overlay_name(image);
    if overlay.symlink_metadata().is_ok() {
        return Err(interrupted(image, &overlay));
    }
    Ok(())
}

fn interrupted(image: &Path, overlay: &Path) -> Error {
    Error::new(ErrorKind::Interrupted, format!("a commit into {} was interrupted", image.display())).hint(
        format!(
            "everything is in {}: finish it with `guestseal recover {}`",
            overlay.display(),
            image.display()
        ),
    )
}

/// Writes the overlay into its image. While that goes on the overlay has a name: a failure leaves everything needed to
/// finish, and committing again gives the same image.
///
/// # Errors
/// [`ErrorKind::Failed`] or [`ErrorKind::Busy`] when the image is unchanged, [`ErrorKind::Interrupted`] when it is not.
pub fn into_image(overlay: &mut Overlay, image: &Image) -> Result<()> {
    if !image.is_untouched()? {
        let what = format!("{} was changed by another program meanwhile", image.path.display());
        return Err(Error::new(ErrorKind::Busy, what).hint("nothing of this run was written to it"));
    }
    let name = overlay_name(&image.path);
    overlay.name(&name.file_name().unwrap_or_default().to_string_lossy())?;
    crate::fault::point(crate::fault::Point::OverlayNamed)?;
    let committed = image.lock.let_qemu_write().and_then(|()| commit_named(&name, image.path.as_path()));
    if let Err(error) = committed {
        if image.is_untouched()? {
            return both(Err(error), remove_overlay(&name));
        }
        return Err(interrupted(&image.path, &name).caused_by(error));
    }
    image.lock.file().sync_all().context(|| format!("cannot flush {}", image.path.display()))?;
    remove_overlay(&name)
}

/// Finishes an interrupted commit. False when there was none.
///
/// # Errors
/// [`ErrorKind::Interrupted`] when it fails again, [`ErrorKind::Failed`] when the overlay is not one of this image.
pub fn recover(image: &Path) -> Result<bool> {
    let image = image.canonicalize().context(|| format!("cannot find the image {}", image.display()))?;
    let _hold = interrupt::hold();
    let name = overlay_name(&image);
    let mut file = match File::open(&name) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Error::failed(format!("cannot open {}", name.display())).caused_by(error)),
    };
    let header = super::qcow2::read_header(&mut file)?;
    if header.backing_file.as_deref() != image.to_str() {
        return Err(Error::failed(format!(
            "{} belongs to another image: {:?}",
            name.display(),
            header.backing_file
        )));
    }
    commit_named(&name, &image).map_err(|error| interrupted(&image, &name).caused_by(error))?;
    File::open(&image)
        .and_then(|file| file.sync_all())
        .context(|| format!("cannot flush {}", image.display()))?;
    remove_overlay(&name)?;
    Ok(true)
}

fn commit_named(overlay: &Path, image: &Path) -> Result<()> {
    enough_room(overlay, image)?;
    let commit =
        Tool::find("qemu-img")?.spawn().args(["commit", "-q", "-d", "-f", "qcow2", "-t", "writeback"]);
    let (exit, _) = commit.arg(overlay).output(1 << 16)?;
    // qemu-img has one exit code for everything; its own word for a lock that others hold is all there is.
    let kind = if exit.stderr.contains("lock") { ErrorKind::Busy } else { ErrorKind::Failed };
    exit.success().map_err(|error| {
        Error::new(kind, format!("cannot write the result into {}", image.display())).caused_by(error)
    })
}

fn remove_overlay(name: &Path) -> Result<()> {
    fs::remove_file(name).context(|| format!("cannot remove the working overlay {}", name.display()))?;
    name.parent().map_or(Ok(()), sync_folder)
}

/// Refuses a commit for which the disk may be too small, while the image is still whole. What the overlay holds is the
/// most that the image can grow by.
fn enough_room(overlay: &Path, image: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let failed = || format!("cannot measure the room for {}", image.display());
    let needed = fs::metadata(overlay).context(failed)?.blocks() * 512;
    let disk = nix::sys::statvfs::statvfs(image).context(failed)?;
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    if free >= needed {
        return Ok(());
    }
    let what = format!(
        "the disk is too full to write the result into {}: {free} bytes of {needed} are free",
        image.display()
    );
    Err(Error::failed(what).hint("make room, or put the result elsewhere with --output NEW"))
}

/// Makes names in a folder permanent.
///
/// # Errors
/// When the filesystem cannot.
pub fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .context(|| format!("cannot flush the folder {}", folder.display()))
}

/// Writes overlay and image together as a new file, which has no name until it is whole. From then on signals wait.
///
/// # Errors
/// When it cannot be written; then nothing of it is left.
pub fn into_new_file(
    overlay: &Overlay,
    image: &Image,
    output: &mut NamelessFile,
    plan: &CommitMode,
) -> Result<Hold> {
    let CommitMode::Output { path, format, compress } = plan else {
        return Err(Error::failed("no new file is planned"));
    };
    let format = format.unwrap_or(image.format);
    let mut convert =
        Tool::find("qemu-img")?.spawn().args(["convert", "-q", "-f", "qcow2", "-O", format.driver()]);
    if *compress {
        convert = convert.arg("-c");
    }
    let (exit, _) = convert.arg(overlay.path()).arg(output.path()).output(1 << 16)?;
    exit.success()
        .map_err(|error| Error::failed(format!("cannot write {}", path.display())).caused_by(error))?;
    interrupt::check_before("giving the new file its name")?;
    let hold = interrupt::hold();
    output.name_over(&path.file_name().unwrap_or_default().to_string_lossy()).map(|()| hold)
}
