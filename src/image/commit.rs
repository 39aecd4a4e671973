//! Making the work of a run permanent: the overlay is written into the image, or into a new file.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::backing::Chain;
use super::container::{self, ContainerErasure};
use super::format::Format;
use super::identity::{Identity, ImageIdentity, Stamp};
use super::info::{self, Image};
use super::journal::{self, Entry, Journal, beside, open_own};
use super::lock::{LockedImage, lock_own};
use super::nameless::{NamelessFile, folder_of};
use super::overlay::{self, Overlay};
use super::{past, qcow2, qcow2_tables};
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

/// The name under which an overlay stands while its commit runs.
fn overlay_path(image: &Path) -> PathBuf {
    beside(image, "overlay")
}

/// Refuses to work on an image whose last commit was interrupted. Call with the image locked: the journal of a run
/// that goes on is no interruption.
///
/// # Errors
/// [`ErrorKind::Interrupted`] when it has a journal.
pub fn refuse_interrupted(image: &Path) -> Result<()> {
    let journal = journal::path_of(image);
    match journal.symlink_metadata() {
        Ok(_) => Err(interrupted(image)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::failed(format!("cannot look for {}", journal.display())).caused_by(error)),
    }
}

/// What to say when a commit stands half done.
pub fn interrupted(image: &Path) -> Error {
    let hint = format!(
        "all that is needed is beside it, in {}: finish it with `guestseal recover {}`",
        journal::path_of(image).display(),
        image.display()
    );
    Error::new(ErrorKind::Interrupted, format!("a commit into {} was interrupted", image.display()))
        .hint(hint)
}

/// A commit with its journal in place: whatever happens from here on, `recover` can finish it.
#[derive(Debug)]
pub struct Pending {
    image: PathBuf,
    /// qemu's node for the image, and where this run opened them itself what is below it.
    node: Value,
    _chain: Chain,
    journal: File,
    entry: Entry,
    container: Option<ContainerErasure>,
    /// The image's stamp when the journal was made, in the run that made it.
    before: Option<Stamp>,
    /// Its stamp when it was whole.
    written: Option<Stamp>,
}

impl Pending {
    /// Gives the overlay its name and writes the journal. Nothing of the image is written yet.
    ///
    /// # Errors
    /// When the image was changed meanwhile, the disk is too full, or a file cannot be made; nothing is left then.
    pub fn begin(
        overlay: &mut Overlay,
        mut journal: NamelessFile,
        image: &Image,
        (record, digest): (Value, bool),
    ) -> Result<Self> {
        if !image.is_untouched()? {
            let what = format!("{} was changed by another program meanwhile", image.path.display());
            return Err(Error::new(ErrorKind::Busy, what).hint("nothing of this run was written to it"));
        }
        enough_room(overlay.file(), &image.path)?;
        image.lock.keep_readers_out()?;
        let entry = Entry {
            image: ImageIdentity::of(image.lock.file(), image.format, overlay.file())?,
            format: image.format,
            overlay: Identity::of(overlay.file())?,
            digest,
            record,
            past: image.past,
        };
        let name = |path: PathBuf| path.file_name().unwrap_or_default().to_os_string();
        overlay.name(&name(overlay_path(&image.path)))?;
        let named = fault::point(Point::OverlayNamed)
            .and_then(|()| journal.file().write_all(&entry.print()?).context(|| "cannot write the journal"))
            .and_then(|()| journal.name(&name(journal::path_of(&image.path))))
            .and_then(|()| fault::point(Point::JournalNamed));
        if let Err(error) = named {
            return both(Err(error), remove_both(&image.path));
        }
        let before = Stamp::of(image.lock.file()).ok();
        Ok(Self {
            image: image.path.clone(),
            node: image.node(false),
            _chain: Chain::default(),
            journal: journal.into_file()?,
            entry,
            container: None,
            before,
            written: None,
        })
    }

    /// The commit that was interrupted on a locked image; None when there was none. Without a journal, what a killed
    /// run left under the overlay's name is removed.
    ///
    /// # Errors
    /// When the journal is damaged, or belongs to another image or overlay.
    pub fn find(image: &Path, lock: &LockedImage) -> Result<Option<Self>> {
        let Some((journal, found)) = journal::load(image)? else {
            remove_dead_overlay(image, lock)?;
            return Ok(None);
        };
        let Journal { entry, written, .. } = found;
        let about = |error| journal::refused(image, error);
        let chain = match entry.past.allow_backing {
            true => qcow2::read_header(&mut lock.file()).and_then(|header| Chain::open(image, lock, &header)),
            false => Ok(Chain::default()),
        };
        let chain = chain.map_err(about)?;
        let node = info::over(info::node(lock.file(), image, entry.format, false, false), &chain);
        let (image, before, container) = (image.to_path_buf(), None, None);
        let pending = Self { image, node, _chain: chain, journal, entry, container, before, written };
        pending.check(lock).map_err(|error| journal::refused(&pending.image, error))?;
        Ok(Some(pending))
    }

    /// Makes way for a new commit: what a killed run left under the overlay's name is removed.
    ///
    /// # Errors
    /// When something else has that name, or it cannot be removed.
    pub fn clear(image: &Image) -> Result<()> {
        remove_dead_overlay(&image.path, &image.lock)
    }

    fn check(&self, lock: &LockedImage) -> Result<()> {
        if let Some(stamp) = self.written {
            let now = Stamp::of(lock.file()).context(|| "cannot examine the image")?;
            if !self.entry.image.file.is(&Identity::of(lock.file())?) {
                return Err(Error::failed("it was made for another image: the file differs"));
            }
            if stamp != now {
                return Err(Error::failed("the image was written by another program after its commit"));
            }
            return Ok(());
        }
        let path = overlay_path(&self.image);
        let overlay = open_own(&path)?
            .ok_or_else(|| Error::failed(format!("the overlay {} is missing", path.display())))?;
        if !self.entry.overlay.is(&Identity::of(&overlay)?) {
            return Err(Error::failed(format!("it was made for another overlay than {}", path.display())));
        }
        qcow2_tables::check(&mut &overlay)?;
        let now = ImageIdentity::of(lock.file(), self.entry.format, &overlay)?;
        self.entry.image.check(&now)
    }

    /// The record that was planned, without the digest of the image; and whether it is to have one.
    pub fn record(&self) -> (&Value, bool) {
        (&self.entry.record, self.entry.digest)
    }

    /// What became of the bytes of the image's file that hold nothing of its disk. A run that was killed when all was
    /// written has cleaned them; then they are looked at once more.
    ///
    /// # Errors
    /// When the image cannot be read.
    pub fn container(&self, lock: &LockedImage) -> Result<Option<ContainerErasure>> {
        match &self.container {
            _ if self.entry.past.keep_unreferenced => Ok(None),
            Some(container) => Ok(Some(container.clone())),
            None => container::clean_before(lock.file(), self.entry.format).map(Some),
        }
    }

    /// Writes the overlay into the image, takes what it holds besides its disk out of its file, flushes it, and says so in
    /// the journal. Doing it again gives the same image.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`]: the image may be half written, and the journal stays. Any other kind: this commit had
    /// just begun and not a byte of the image was written; overlay and journal are gone.
    pub fn write(mut self, lock: &LockedImage) -> Result<Self> {
        if self.written.is_some() {
            return Ok(self);
        }
        let Err(error) = self.write_once(lock) else { return Ok(self) };
        let now = Stamp::of(lock.file()).ok();
        if self.before.is_some() && self.before == now {
            let error = error.within(format!("cannot write the result into {}", self.image.display()));
            return both(Err(error), remove_both(&self.image));
        }
        Err(interrupted(&self.image).caused_by(error))
    }

    fn write_once(&mut self, lock: &LockedImage) -> Result<()> {
        let overlay = overlay_path(&self.image);
        let path = overlay.to_str().ok_or_else(|| Error::unsupported("the image's path is no UTF-8"))?;
        if self.entry.past.drop_snapshots {
            past::drop_from(lock.file(), &self.node)?;
        }
        fault::point(Point::SnapshotsDropped)?;
        let node = overlay::node(path, &self.node);
        let commit = Tool::find("qemu-img")?.spawn().args(["commit", "-q", "-d", "-t", "writeback"]);
        let (exit, _) = commit.arg(format!("json:{node}")).output(1 << 16)?;
        exit.success_without_complaint(&[])?;
        if self.before.is_none() && self.entry.format == Format::Qcow2 {
            // A commit that was killed may have taken clusters that nothing refers to.
            let check = Tool::find("qemu-img")?.spawn().args(["check", "-q", "-r", "leaks"]);
            check.arg(format!("json:{}", self.node)).output(1 << 20)?.0.success()?;
        }
        fault::point(Point::ImageWritten)?;
        if !self.entry.past.keep_unreferenced {
            self.container = Some(container::clean(lock.file(), self.entry.format)?);
        }
        fault::point(Point::ContainerCleaned)?;
        lock.file().sync_all().context(|| format!("cannot flush {}", self.image.display()))?;
        fault::point(Point::ImageFlushed)?;
        let stamp = Stamp::of(lock.file()).context(|| "cannot examine the image")?;
        journal::mark_written(&mut self.journal, stamp)?;
        self.written = Some(stamp);
        fault::point(Point::JournalMarked)
    }

    /// Ends the commit: image and record are whole, so overlay and journal go.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`] when the journal cannot be removed; failed when only the overlay is left.
    pub fn finish(self) -> Result<()> {
        remove_both(&self.image).map_err(|error| match refuse_interrupted(&self.image) {
            Err(interrupted) => interrupted.caused_by(error),
            Ok(()) => {
                let image = self.image.display();
                Error::failed(format!("{image} is sealed, but its commit was not tidied up")).caused_by(error)
            }
        })
    }
}

/// Removes journal and overlay, permanently. The journal first: what is left of a kill in between is an overlay that
/// nobody needs, which the next run removes.
fn remove_both(image: &Path) -> Result<()> {
    remove(&journal::path_of(image))?;
    sync_folder(folder_of(image))?;
    let gone = fault::point(Point::JournalRemoved);
    both(gone, remove(&overlay_path(image)))?;
    fault::point(Point::OverlayRemoved)
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.context(|| format!("cannot remove {}", path.display())),
    }
}

/// Removes an overlay that a run named just before it was killed: guestseal's own by its mark, of this image, and held
/// by nobody.
fn remove_dead_overlay(image: &Path, lock: &LockedImage) -> Result<()> {
    let path = overlay_path(image);
    let in_the_way = || {
        Error::failed(format!("{} is in the way: it is not a working overlay of this image", path.display()))
            .hint("move it away; guestseal needs this name for its commit")
    };
    let Some(file) = open_own(&path).map_err(|error| in_the_way().caused_by(error))? else { return Ok(()) };
    let header = qcow2::read_header(&mut &file).map_err(|error| in_the_way().caused_by(error))?;
    if header.mark != Some(Identity::of(lock.file())?.inode) || !lock_own(&file)? {
        return Err(in_the_way());
    }
    remove(&path)
}

/// Refuses a commit for which the disk may be too small, while the image is still whole. What the overlay holds is the
/// most that the image can grow by.
fn enough_room(overlay: &File, image: &Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let failed = || format!("cannot measure the room for {}", image.display());
    let needed = overlay.metadata().context(failed)?.blocks() * 512;
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
    output: &NamelessFile,
    plan: &CommitMode,
) -> Result<Option<ContainerErasure>> {
    let CommitMode::Output { path, format, compress } = plan else {
        return Err(Error::failed("no new file is planned"));
    };
    let format = format.unwrap_or(image.format);
    let mut convert = Tool::find("qemu-img")?.spawn().args(["convert", "-q", "-O", format.driver()]);
    if *compress {
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
