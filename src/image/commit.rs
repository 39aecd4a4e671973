//! Making the work of a run permanent: the overlay is written into the image, or into a new file.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::container::{self, ContainerErasure};
use super::format::Format;
use super::group::{self, OtherDisk};
use super::identity::{Identity, ImageIdentity};
use super::info::Image;
use super::journal::{self, Entry, FirstEntry};
use super::lock::LockedImage;
use super::nameless::NamelessFile;
use super::one_or_all;
use super::overlay::Overlay;
use super::part::{Part, overlay_path, remove_all};
use super::past;
use super::place::Place;
use crate::error::{Context, Error, ErrorKind, Result, both};
use crate::fault::{self, Point};
use crate::sys::tool::Tool;

/// How the result of a run becomes permanent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "kebab-case", tag = "mode")]
pub enum CommitMode {
    /// Work on an overlay that is written into the image at the end.
    Overlay,
    /// Write the result to a new file; the image is only read.
    Output {
        /// The new file of each disk; the first says where the record is.
        #[serde(rename = "path", serialize_with = "one_or_all")]
        paths: Vec<PathBuf>,
        /// Their format; the images' own when none is said.
        format: Option<Format>,
        /// Whether their clusters are compressed.
        compress: bool,
    },
    /// Write into the image from the start, for those who keep their own copy.
    InPlace,
}

/// Refuses to work on an image whose last commit was interrupted. Call with the image locked: the journal of a run
/// that goes on is no interruption.
///
/// # Errors
/// [`ErrorKind::Interrupted`] when it has a journal that still says something.
pub fn refuse_interrupted(image: &Place) -> Result<()> {
    let journal = journal::path_of(&image.seat);
    match journal.symlink_metadata() {
        Ok(_) if group::is_dead(image).unwrap_or(false) => Ok(()),
        Ok(_) => Err(interrupted(image)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::failed(format!("cannot look for {}", journal.display())).caused_by(error)),
    }
}

/// What to say when a commit stands half done.
pub fn interrupted(image: &Place) -> Error {
    let hint = format!(
        "all that is needed is {}, in {}: finish it with `guestseal recover {}`",
        if image.is_apart() { "kept" } else { "beside it" },
        journal::path_of(&image.seat).display(),
        image.arguments()
    );
    Error::new(ErrorKind::Interrupted, format!("a commit into {} was interrupted", image.path.display()))
        .hint(hint)
}

/// A commit with its journals in place: whatever happens from here on, `recover` can finish it.
#[derive(Debug)]
pub struct Pending<'a> {
    /// The disks of the guest, the first one first.
    parts: Vec<Part<'a>>,
}

impl<'a> Pending<'a> {
    /// Gives the overlays their names and writes the journals, of which the first decides: until it stands the others
    /// say nothing. Nothing of the images is written yet.
    ///
    /// # Errors
    /// When an image was changed meanwhile, the disk is too full, or a file cannot be made; nothing is left then.
    pub fn begin(
        disks: &mut [(Overlay, Option<NamelessFile>)],
        images: &'a [Image],
        (record, digest): (Value, bool),
    ) -> Result<Self> {
        for image in images {
            if !image.is_untouched()? {
                let what = format!("{} was changed by another program meanwhile", image.path.display());
                return Err(Error::new(ErrorKind::Busy, what).hint("nothing of this run was written to it"));
            }
        }
        enough_room(disks, images)?;
        images.iter().try_for_each(|image| image.lock.keep_readers_out())?;
        let entries = entries(disks, images, (record, digest))?;
        let mut named = Vec::new();
        let begun = Self::name(disks, images, entries, &mut named);
        match begun {
            Ok(parts) => Ok(Self { parts }),
            Err(error) => both(Err(error), remove_all(&named)),
        }
    }

    fn name(
        disks: &mut [(Overlay, Option<NamelessFile>)],
        images: &'a [Image],
        entries: Vec<Entry>,
        named: &mut Vec<&'a Place>,
    ) -> Result<Vec<Part<'a>>> {
        for ((overlay, _), image) in disks.iter_mut().zip(images) {
            overlay.name(overlay_path(&image.place.seat).file_name().unwrap_or_default())?;
            named.push(&image.place);
            fault::point(Point::OverlayNamed)?;
        }
        let mut parts = Vec::new();
        // From the last to the first, which decides.
        for (((_, journal), image), entry) in disks.iter_mut().zip(images).zip(entries).rev() {
            let journal = journal.take().ok_or_else(|| Error::failed("a commit was begun twice"))?;
            parts.push(Part::begin(journal, image, entry)?);
        }
        parts.reverse();
        Ok(parts)
    }

    /// The commit that was interrupted on these locked images of one guest; None when there was none.
    ///
    /// # Errors
    /// When a journal is damaged, or belongs to another image, overlay or commit.
    pub fn find(images: &'a [(Place, LockedImage)]) -> Result<Option<Self>> {
        let mut parts: Vec<Part<'a>> = Vec::new();
        for (image, lock) in images {
            let found = match journal::load(&image.seat)? {
                Some(found) => found,
                None if parts.is_empty() => return Ok(None),
                None => return Err(journal::refused(&image.seat, Error::failed("it is missing"))),
            };
            if let Some(first) = parts.first() {
                group::belongs(&first.entry, &found.1.entry)
                    .map_err(|error| journal::refused(&image.seat, error))?;
            }
            parts.push(Part::found((image, lock), found)?);
        }
        Ok((!parts.is_empty()).then_some(Self { parts }))
    }

    /// Makes way for a new commit: what killed runs left under the names that it needs is removed.
    ///
    /// # Errors
    /// When something else has such a name, or it cannot be removed.
    pub fn clear(image: &Image) -> Result<()> {
        group::clear(&image.place, &image.lock)
    }

    /// The record that was planned, without the digests of the images; and whether it is to have them.
    ///
    /// # Errors
    /// When the journal is not that of a first disk.
    pub fn record(&self) -> Result<(&Value, bool)> {
        match self.parts.first().map(|part| &part.entry) {
            Some(Entry::First(entry)) => Ok((&entry.record, entry.digest)),
            _ => Err(Error::failed("the journal has no record")),
        }
    }

    /// The images and their files.
    pub fn images(&self) -> impl Iterator<Item = (&Path, &File)> {
        self.parts.iter().map(|part| (part.image.path.as_path(), part.file()))
    }

    /// What became of the bytes of the images' files that hold nothing of their disks; none when nothing was to be erased.
    ///
    /// # Errors
    /// When an image cannot be read.
    pub fn container(&self) -> Result<Option<ContainerErasure>> {
        let containers = self.parts.iter().map(Part::container).collect::<Result<Vec<_>>>()?;
        Ok(container::sum(containers.into_iter().flatten()))
    }

    /// Writes each overlay into its image. Doing it again gives the same images.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`]: an image may be half written, and the journals stay. Any other kind: this commit had
    /// just begun and not a byte of any image was written; overlays and journals are gone.
    pub fn write(mut self) -> Result<Self> {
        let Err((image, error)) = self.write_each() else { return Ok(self) };
        if self.parts.iter().all(Part::is_untouched) {
            let error = error.within(format!("cannot write the result into {}", image.path.display()));
            return both(Err(error), self.remove());
        }
        Err(interrupted(&image).caused_by(error))
    }

    fn write_each(&mut self) -> std::result::Result<(), (Place, Error)> {
        for part in &mut self.parts {
            part.write().map_err(|error| (part.image.clone(), error))?;
        }
        Ok(())
    }

    fn remove(&self) -> Result<()> {
        let images: Vec<_> = self.parts.iter().map(|part| &part.image).collect();
        remove_all(&images)
    }

    /// Ends the commit: images and record are whole, so overlays and journals go.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`] when the journal cannot be removed; failed when only what says nothing is left.
    pub fn finish(self) -> Result<()> {
        let Some(first) = self.parts.first() else { return Ok(()) };
        self.remove().map_err(|error| match refuse_interrupted(&first.image) {
            Err(interrupted) => interrupted.caused_by(error),
            Ok(()) => {
                let image = first.image.path.display();
                Error::failed(format!("{image} is sealed, but its commit was not tidied up")).caused_by(error)
            }
        })
    }
}

fn entries(
    disks: &[(Overlay, Option<NamelessFile>)],
    images: &[Image],
    (record, digest): (Value, bool),
) -> Result<Vec<Entry>> {
    let disk = |(image, (overlay, _)): (&Image, &(Overlay, _))| {
        let overlay = overlay.file();
        let of = ImageIdentity::of(image.lock.file(), image.format, (overlay, image.growing()))?;
        Ok(OtherDisk { image: of, overlay: Identity::of(overlay)? })
    };
    let mut known = images.iter().zip(disks).map(disk).collect::<Result<Vec<_>>>()?.into_iter();
    let (Some(image), Some(OtherDisk { image: identity, overlay })) = (images.first(), known.next()) else {
        return Err(Error::failed("there is no image to commit to"));
    };
    let first = FirstEntry {
        image: identity,
        format: image.format,
        overlay,
        digest,
        record,
        past: image.past,
        group: None,
    };
    group::entries(first, images[1..].iter().zip(known).collect(), &image.path)
}

/// Refuses a commit for which the disk may be too small, while the images are still whole. What the overlays hold is the
/// most that images can grow by.
fn enough_room(disks: &[(Overlay, Option<NamelessFile>)], images: &[Image]) -> Result<()> {
    let mut wanted = std::collections::BTreeMap::new();
    // A device is as large as it will be.
    for ((overlay, _), image) in disks.iter().zip(images).filter(|(_, image)| !image.place.is_apart()) {
        let failed = || format!("cannot measure the room for {}", image.path.display());
        let needed = overlay.file().metadata().context(failed)?.blocks() * 512;
        let disk = image.path.metadata().context(failed)?.dev();
        let all = wanted.entry(disk).or_insert(0u64);
        *all += needed;
        let disk = nix::sys::statvfs::statvfs(&image.path).context(failed)?;
        let free = disk.blocks_available().saturating_mul(disk.fragment_size());
        if free < *all {
            let what = format!(
                "the disk is too full to write the result into {}: {free} bytes of {all} are free",
                image.path.display()
            );
            return Err(Error::failed(what).hint("make room, or put the result elsewhere with --output NEW"));
        }
    }
    Ok(())
}

/// Takes out of an image that was written in place what it holds besides its disk: what the user wants dropped of its
/// past, and what nothing in its file refers to.
///
/// # Errors
/// When it cannot be read or written.
pub fn clean_in_place(image: &Image) -> Result<Option<ContainerErasure>> {
    if image.past.drop_snapshots {
        past::drop_from(image.lock.file(), &image.node(false))?;
    }
    fault::point(Point::SnapshotsDropped)?;
    let clean = !image.past.keep_unreferenced;
    let container = clean.then(|| container::clean(image.lock.file(), image.format)).transpose()?;
    fault::point(Point::ContainerCleaned)?;
    image.lock.file().sync_all().context(|| format!("cannot flush {}", image.path.display()))?;
    Ok(container)
}

/// Writes overlay and image together into a new file, which gets its name when it is whole.
///
/// # Errors
/// When it cannot be written; then nothing of it is left.
pub fn into_new_file(
    overlay: &Overlay,
    image: &Image,
    (output, path): (&NamelessFile, &Path),
    (format, compress): (Option<Format>, bool),
) -> Result<Option<ContainerErasure>> {
    let format = format.unwrap_or(image.format);
    let mut convert = Tool::find("qemu-img")?.spawn().args(["convert", "-q", "-O", format.driver()]);
    if compress {
        convert = convert.arg("-c");
    }
    let (exit, _) =
        convert.arg(format!("json:{}", overlay.node(image))).arg(output.path()).output(1 << 16)?;
    exit.success_without_complaint(&[])
        .map_err(|error| Error::failed(format!("cannot write {}", path.display())).caused_by(error))?;
    fault::point(Point::OutputWritten)?;
    let clean = !image.past.keep_unreferenced;
    clean.then(|| container::clean_new(output.file(), format)).transpose()
}
