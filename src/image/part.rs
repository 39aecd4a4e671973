//! One disk of a commit: its overlay, its journal, and how the one is written into the image.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::backing::Chain;
use super::container::{self, ContainerErasure};
use super::format::Format;
use super::identity::{Identity, ImageIdentity, Stamp};
use super::info::{self, Image};
use super::journal::{self, Entry, Journal, beside, open_own};
use super::lock::{LockedImage, lock_own};
use super::nameless::NamelessFile;
use super::overlay;
use super::place::Place;
use super::{past, qcow2, qcow2_tables};
use crate::error::{Context, Error, Result, all, both};
use crate::fault::{self, Point};
use crate::sys::tool::Tool;

/// The name under which an overlay stands while its commit runs.
pub(super) fn overlay_path(image: &Path) -> PathBuf {
    beside(image, "overlay")
}

/// qemu-img's way to say that two images differ.
const DIFFERENT: i32 = 1;

/// One disk of a commit whose journals are in place.
#[derive(Debug)]
pub(super) struct Part<'a> {
    /// The image.
    pub(super) image: Place,
    lock: &'a LockedImage,
    /// qemu's node for the image, and where this run opened them itself what is below it.
    node: Value,
    _chain: Chain,
    journal: File,
    /// What its journal says.
    pub(super) entry: Entry,
    container: Option<ContainerErasure>,
    /// The image's stamp when the journal was made, in the run that made it.
    before: Option<Stamp>,
    /// Its stamp when it was whole.
    written: Option<Stamp>,
}

impl<'a> Part<'a> {
    /// Writes a journal and gives it its name.
    ///
    /// # Errors
    /// When it cannot be written, or the name is taken.
    pub(super) fn begin(mut journal: NamelessFile, image: &'a Image, entry: Entry) -> Result<Self> {
        let path = journal::path_of(&image.place.seat);
        journal.file().write_all(&entry.print()?).context(|| "cannot write the journal")?;
        journal.name(path.file_name().unwrap_or_default())?;
        fault::point(Point::JournalNamed)?;
        Ok(Self {
            image: image.place.clone(),
            lock: &image.lock,
            node: image.node(false),
            _chain: Chain::default(),
            journal: journal.into_file()?,
            entry,
            container: None,
            before: stamp_of(&image.place, &image.lock),
            written: None,
        })
    }

    /// The commit that was interrupted on a locked image, by its journal.
    ///
    /// # Errors
    /// When the journal belongs to another image or overlay.
    pub(super) fn found(
        (image, lock): (&Place, &'a LockedImage),
        (journal, found): (File, Journal),
    ) -> Result<Self> {
        let Journal { entry, written, .. } = found;
        let (_, format, _, past) = entry.disk();
        let about = |error| journal::refused(&image.seat, error);
        let chain = match past.allow_backing {
            true => qcow2::read_header(&mut lock.file())
                .and_then(|header| Chain::open(&image.path, lock, &header)),
            false => Ok(Chain::default()),
        };
        let chain = chain.map_err(about)?;
        let node = info::over(info::node(lock.file(), &image.path, format, false, false), &chain);
        let (image, before, container) = (image.clone(), None, None);
        let part = Self { image, lock, node, _chain: chain, journal, entry, container, before, written };
        part.check().map_err(|error| journal::refused(&part.image.seat, error))?;
        Ok(part)
    }

    fn check(&self) -> Result<()> {
        let (identity, format, known, _) = self.entry.disk();
        if let Some(stamp) = self.written {
            let now = Stamp::of(self.lock.file()).context(|| "cannot examine the image")?;
            if !identity.file.is(&Identity::of(self.lock.file())?) {
                return Err(Error::failed("it was made for another image: the file differs"));
            }
            let is_whole = stamp == now && (!self.image.is_apart() || self.has_overlay_content()?);
            if !is_whole {
                return Err(Error::failed("the image was written by another program after its commit"));
            }
            return Ok(());
        }
        let path = overlay_path(&self.image.seat);
        let overlay = open_own(&path)?
            .ok_or_else(|| Error::failed(format!("the overlay {} is missing", path.display())))?;
        if !known.is(&Identity::of(&overlay)?) {
            return Err(Error::failed(format!("it was made for another overlay than {}", path.display())));
        }
        qcow2_tables::check(&mut &overlay)?;
        let now = ImageIdentity::of(self.lock.file(), format, (&overlay, identity.grows))?;
        identity.check(&now)
    }

    /// Whether the image holds what its overlay has. Of a device no time tells that it was written.
    fn has_overlay_content(&self) -> Result<bool> {
        let mut image = self.node.clone();
        image["read-only"] = true.into();
        image["file"]["read-only"] = true.into();
        let compare = Tool::find("qemu-img")?.spawn().args(["compare", "-q"]);
        let layers = self.layers_over(&image)?;
        let compare = compare.arg(format!("json:{layers}")).arg(format!("json:{image}"));
        let (exit, _) = compare.output(1 << 16)?;
        if exit.status.code() == Some(DIFFERENT) { Ok(false) } else { exit.success().map(|()| true) }
    }

    /// qemu's node for the overlay over this one of the image.
    fn layers_over(&self, image: &Value) -> Result<Value> {
        let overlay = overlay_path(&self.image.seat);
        let path = overlay.to_str().ok_or_else(|| Error::unsupported("the image's path is no UTF-8"))?;
        Ok(overlay::node(path, image))
    }

    /// The image's file, which is locked.
    pub(super) fn file(&self) -> &File {
        self.lock.file()
    }

    /// Whether this run made the journal and not a byte of the image was written since.
    pub(super) fn is_untouched(&self) -> bool {
        self.before.is_some() && self.before == stamp_of(&self.image, self.lock)
    }

    /// What became of the bytes of the image's file that hold nothing of its disk. A run that was killed when all was
    /// written has cleaned them; then they are looked at once more.
    ///
    /// # Errors
    /// When the image cannot be read.
    pub(super) fn container(&self) -> Result<Option<ContainerErasure>> {
        let (_, format, _, past) = self.entry.disk();
        match &self.container {
            _ if past.keep_unreferenced => Ok(None),
            Some(container) => Ok(Some(container.clone())),
            None => container::clean_before(self.lock.file(), format).map(Some),
        }
    }

    /// Writes the overlay into the image, takes what it holds besides its disk out of its file, flushes it, and says so
    /// in the journal; nothing when the journal says so already. Doing it again gives the same image.
    ///
    /// # Errors
    /// When it cannot be written; it may be half written then.
    pub(super) fn write(&mut self) -> Result<()> {
        if self.written.is_some() {
            return Ok(());
        }
        let (_, format, _, past) = self.entry.disk();
        if past.drop_snapshots {
            past::drop_from(self.lock.file(), &self.node)?;
        }
        fault::point(Point::SnapshotsDropped)?;
        let node = self.layers_over(&self.node)?;
        let commit = Tool::find("qemu-img")?.spawn().args(["commit", "-q", "-d", "-t", "writeback"]);
        let (exit, _) = commit.arg(format!("json:{node}")).output(1 << 16)?;
        exit.success_without_complaint(&[])?;
        if self.before.is_none() && format == Format::Qcow2 {
            // A commit that was killed may have taken clusters that nothing refers to.
            let check = Tool::find("qemu-img")?.spawn().args(["check", "-q", "-r", "leaks"]);
            check.arg(format!("json:{}", self.node)).output(1 << 20)?.0.success()?;
        }
        fault::point(Point::ImageWritten)?;
        if !past.keep_unreferenced {
            self.container = Some(container::clean(self.lock.file(), format)?);
        }
        fault::point(Point::ContainerCleaned)?;
        self.lock.file().sync_all().context(|| format!("cannot flush {}", self.image.path.display()))?;
        fault::point(Point::ImageFlushed)?;
        let stamp = Stamp::of(self.lock.file()).context(|| "cannot examine the image")?;
        journal::mark_written(&mut self.journal, stamp)?;
        self.written = Some(stamp);
        fault::point(Point::JournalMarked)
    }
}

/// By what an image is known to be untouched; none of a device, whose times say nothing.
fn stamp_of(image: &Place, lock: &LockedImage) -> Option<Stamp> {
    if image.is_apart() { None } else { Stamp::of(lock.file()).ok() }
}

/// Removes the journals and overlays of one guest's images, permanently, that of the first before all others: without it
/// these say nothing. What is left of a kill in between is for the next run to remove.
pub(super) fn remove_all(images: &[&Place]) -> Result<()> {
    let mut gone = Ok(());
    for image in images {
        remove(&journal::path_of(&image.seat))?;
        sync_folder(image.folder())?;
        gone = both(gone, fault::point(Point::JournalRemoved));
    }
    let overlay = |image: &&Place| {
        remove(&overlay_path(&image.seat))?;
        fault::point(Point::OverlayRemoved)
    };
    both(gone, all(images.iter().map(overlay)))
}

pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.context(|| format!("cannot remove {}", path.display())),
    }
}

/// Removes an overlay that a run named just before it was killed: guestseal's own by its mark, of this image, and held
/// by nobody.
pub(super) fn remove_dead_overlay(image: &Place, lock: &LockedImage) -> Result<()> {
    let path = overlay_path(&image.seat);
    let in_the_way = || {
        Error::failed(format!("{} is in the way: it is not a working overlay of this image", path.display()))
            .hint("move it away; guestseal needs this name for its commit")
    };
    let Some(file) = open_own(&path).map_err(|error| in_the_way().caused_by(error))? else { return Ok(()) };
    let header = qcow2::read_header(&mut &file).map_err(|error| in_the_way().caused_by(error))?;
    if header.mark != Some(Identity::of(lock.file())?.mark()) || !lock_own(&file)? {
        return Err(in_the_way());
    }
    remove(&path)
}

/// Makes names in a folder permanent.
///
/// # Errors
/// When the filesystem cannot.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|file| file.sync_all())
        .context(|| format!("cannot flush the folder {}", folder.display()))
}
