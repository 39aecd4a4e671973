//! What an image file is, and whether guestseal may work on it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use super::backing::Chain;
use super::commit;
use super::format::{Format, HEAD_BYTES, detect};
use super::identity::{Growing, Identity, Stamp};
use super::lock::{LockedImage, Use};
use super::past::{self, Past};
use super::place::{Named, Place};
use super::qcow2::{self, Header};
use super::uri::{self, Name, Remote};
use super::{qcow2_tables, vmdk};
use crate::attach::remote::Shown;
use crate::error::{Context, Error, Result};
use crate::sys::own;
use crate::sys::tool::Tool;

/// The most that is read of qemu-img's answer.
const ANSWER_LIMIT: u64 = 1 << 20;

/// An image that is locked for this run and may be worked on.
#[derive(Debug)]
pub struct Image {
    /// Its canonical path.
    pub path: PathBuf,
    /// Where it is, and where its journal, overlay and record are.
    pub place: Place,
    /// Its format.
    pub format: Format,
    /// Length of the disk in it, in bytes.
    pub virtual_bytes: u64,
    /// The length that the disk is to get, where it grows.
    grows_to: Option<u64>,
    /// Length of the file in bytes.
    pub file_bytes: u64,
    /// The lock, held until this is dropped.
    pub lock: LockedImage,
    /// What is below it, held as long.
    pub(super) chain: Chain,
    /// What of its past it has, and the user said of it.
    pub(super) past: Past,
    stamp: Stamp,
    /// Who shows it as a file, when it is not on this host; the last to go.
    remote: Option<Shown>,
}

/// The part of [`Image`] that is reported and recorded.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImageFacts {
    /// Its name, without the folders of this host.
    pub name: String,
    /// Its format.
    pub format: Format,
    /// Length of the disk in it, in bytes.
    pub virtual_bytes: u64,
    /// Length of the file in bytes.
    pub file_bytes: u64,
    /// What sealing leaves of the guest's past, a sentence each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<String>,
}

impl Image {
    /// Opens, locks and examines an image; `past` says what is to become of what it has besides its disk.
    ///
    /// # Errors
    /// When it is missing, busy (unless it is only looked at), damaged, or has what guestseal does not work on: an
    /// external data file, encryption, and what `past` says nothing about.
    pub fn open<'a>(
        named: impl Into<Named<'a>>,
        format: Option<Format>,
        usage: Use,
        past: Past,
    ) -> Result<Self> {
        let named = named.into();
        match uri::named(named.path)? {
            Name::Path(path) => {
                let place = Place::find(Named { path: &path, ..named })?;
                let lock = LockedImage::open(&place.path, usage)?;
                Self::examine((place, lock, None), format, usage, past)
            }
            Name::Remote(remote) => {
                must_only_be_read(&remote, usage)?;
                let known = named.surroundings;
                let place = Place::remote(&remote.shown, known);
                let environment = known.map_or(&[][..], |known| &known.environment);
                let (shown, file) = Shown::open(&remote, environment)?;
                let lock = LockedImage::open(Path::new(&own::path_of(&file)), usage)?;
                // What is a device there is taken as one is here.
                let format = format.or_else(|| remote.is_device().then_some(Format::Raw));
                Self::examine((place, lock, Some(shown)), format, usage, past)
            }
        }
    }

    fn examine(
        (place, lock, remote): (Place, LockedImage, Option<Shown>),
        format: Option<Format>,
        usage: Use,
        past: Past,
    ) -> Result<Self> {
        // Only now: while another run commits, the image is in use, and not interrupted.
        if lock.moving().is_none() {
            commit::refuse_interrupted(&place)?;
        }
        let read = Self::read(place.path.clone(), format, usage, &lock, past);
        let Parts { path, format, virtual_bytes, file_bytes, chain, past } =
            read.map_err(|error| lock.blame(error)).map_err(|error| blamed(remote.as_ref(), error))?;
        if remote.is_some() && !chain.is_empty() {
            let what = format!("{} names a backing file of this host", place.path.display());
            return Err(Error::unsupported(what).hint("copy the image here with all that it names"));
        }
        let stamp = Stamp::of(lock.file()).context(|| format!("cannot examine {}", path.display()))?;
        let grows_to = None;
        let image = Self {
            path,
            place,
            format,
            virtual_bytes,
            grows_to,
            file_bytes,
            lock,
            chain,
            past,
            stamp,
            remote,
        };
        if past.drop_snapshots && matches!(usage, Use::Commit | Use::Write) {
            // The lock that this run has may be one that qemu would not go with.
            past::check_droppable(&over(
                node(image.lock.file(), &image.path, format, true, false),
                &image.chain,
            ))?;
        }
        Ok(image)
    }

    fn read(
        path: PathBuf,
        format: Option<Format>,
        usage: Use,
        lock: &LockedImage,
        mut past: Past,
    ) -> Result<Parts> {
        let mut file = lock.file();
        let mut head = Vec::new();
        file.take(HEAD_BYTES as u64)
            .read_to_end(&mut head)
            .context(|| format!("cannot read {}", path.display()))?;
        let file_bytes =
            file.seek(SeekFrom::End(0)).context(|| format!("cannot measure {}", path.display()))?;
        if file_bytes == 0 {
            return Err(Error::unsupported(format!("{} is empty", path.display()))
                .hint("take the image from where it is whole"));
        }
        let about = |error: Error| error.within(format!("cannot work on {}", path.display()));
        let is_device = is_device(file);
        // A disk without a file around it is what its guest wrote: nothing there says how to read it.
        let stated = format.or(is_device.then_some(Format::Raw));
        let format = stated.map_or_else(|| detect(&head), Ok).map_err(about)?;
        if is_device && matches!(usage, Use::Commit | Use::Write) {
            must_be_writable(file, format).map_err(about)?;
        }
        let mut header = Header::default();
        let virtual_bytes = match format {
            Format::Raw => Ok(file_bytes),
            Format::Qcow2 => check_qcow2(file, lock.moving().is_some(), past).map(|read| {
                header = read;
                header.virtual_bytes
            }),
            Format::Vmdk => {
                let will_write = matches!(usage, Use::Commit | Use::Write);
                vmdk::check(file, &head, will_write).and_then(|()| ask_qemu(lock, format))
            }
            Format::Vdi | Format::Vhdx => ask_qemu(lock, format),
        }
        .map_err(about)?;
        let chain = Chain::open(&path, lock, &header).map_err(about)?;
        past.drop_snapshots &= header.snapshots > 0 || header.bitmaps;
        past.allow_backing &= !chain.is_empty();
        past.flatten &= !chain.is_empty();
        Ok(Parts { path, format, virtual_bytes, file_bytes, chain, past })
    }

    /// Says that the disk is to have so many bytes, a multiple of 512: those of the overlays that are made from now on.
    pub fn grow_to(&mut self, bytes: u64) {
        self.grows_to = Some(bytes).filter(|bytes| *bytes > self.virtual_bytes);
    }

    /// The length of the disk of what lies over it, in bytes: whole sectors, and what it grows to.
    pub fn bytes_after(&self) -> u64 {
        self.grows_to.unwrap_or(self.virtual_bytes.next_multiple_of(512))
    }

    /// The length of the disk in it, and the one that it gets, where it grows.
    pub(super) fn growing(&self) -> Option<Growing> {
        self.grows_to.map(|to| Growing { from: self.virtual_bytes, to })
    }

    /// qemu's node for the image itself. Below it is what was checked, whatever its header says by the time qemu reads it.
    pub fn node(&self, read_only: bool) -> Value {
        let locking = read_only && self.lock.lets_qemu_lock();
        // What is not here is only to be seen where it is open.
        let open = self.remote.as_ref().map(|_| PathBuf::from(own::path_of(self.lock.file())));
        let path = open.as_ref().unwrap_or(&self.path);
        over(node(self.lock.file(), path, self.format, read_only, locking), &self.chain)
    }

    /// The same failure of what used the image; when it is not on this host and nobody serves it any more, as one of that.
    #[must_use]
    pub fn blame(&self, error: Error) -> Error {
        blamed(self.remote.as_ref(), self.lock.blame(error))
    }

    /// What sealing leaves of the guest's past, a sentence each.
    pub fn holds(&self) -> Vec<String> {
        let still =
            |name| format!("the backing file {name} still holds what was deleted from the image above it");
        let names = self.past.allow_backing.then(|| self.chain.names().map(still));
        names.into_iter().flatten().collect()
    }

    /// Whether nobody wrote to the file since it was opened.
    ///
    /// # Errors
    /// When it cannot be examined.
    pub fn is_untouched(&self) -> Result<bool> {
        let now =
            Stamp::of(self.lock.file()).context(|| format!("cannot examine {}", self.path.display()))?;
        Ok(now == self.stamp)
    }

    /// Its file's permission bits.
    ///
    /// # Errors
    /// When it cannot be examined.
    pub fn mode(&self) -> Result<u32> {
        use std::os::unix::fs::PermissionsExt;
        let metadata =
            self.lock.file().metadata().context(|| format!("cannot examine {}", self.path.display()))?;
        // Those of a device are for all that is ever on it.
        let apart = self.place.is_apart();
        Ok(if apart { 0o600 } else { metadata.permissions().mode() & 0o777 })
    }

    /// The unit in which it keeps data, in bytes: what is erased in whole units is gone from the file as well.
    ///
    /// # Errors
    /// When its header cannot be read any more.
    pub fn cluster_bytes(&self) -> Result<u64> {
        match self.format {
            Format::Qcow2 => Ok(qcow2::read_header(&mut self.lock.file())?.cluster_bytes),
            Format::Raw => Ok(4096),
            Format::Vmdk | Format::Vdi | Format::Vhdx => Ok(1 << 20),
        }
    }

    /// What is reported of it.
    pub fn facts(&self) -> ImageFacts {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Self { format, virtual_bytes, file_bytes, .. } = *self;
        ImageFacts { name, format, virtual_bytes, file_bytes, holds: self.holds() }
    }
}

/// What is read of an image that is being opened.
struct Parts {
    path: PathBuf,
    format: Format,
    virtual_bytes: u64,
    file_bytes: u64,
    chain: Chain,
    past: Past,
}

/// The node of an image, over what is below it.
pub(super) fn over(mut node: Value, chain: &Chain) -> Value {
    if !chain.is_empty() {
        node["backing"] = chain.node();
    }
    node
}

/// qemu's node for an image. It has no backing file, whatever its header says by the time qemu reads it. qemu does not
/// lock what this process has locked for writing, and what is looked at while others write to it.
pub(super) fn node(file: &File, path: &Path, format: Format, read_only: bool, locking: bool) -> Value {
    let device = is_device(file);
    let mut node = json!({
        "driver": format.driver(), "read-only": read_only, "discard": "unmap",
        "file": {
            "driver": if device { "host_device" } else { "file" },
            "filename": path, "read-only": read_only, "discard": "unmap",
        },
    });
    if !locking {
        node["file"]["locking"] = "off".into();
    }
    if format.may_have_backing() {
        node["backing"] = Value::Null;
    }
    node
}

fn blamed(remote: Option<&Shown>, error: Error) -> Error {
    match remote {
        Some(remote) => remote.blame(error),
        None => error,
    }
}

/// Whether a guest works on a disk that is not on this host cannot be told: no lock gets there.
fn must_only_be_read(remote: &Remote, usage: Use) -> Result<()> {
    if matches!(usage, Use::Read | Use::Look) {
        return Ok(());
    }
    let what =
        format!("{} is not on this host, where nothing tells whether a guest works on it", remote.shown);
    Err(Error::unsupported(what).hint("it is only read: write the result to a new file with --output NEW"))
}

fn is_device(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device())
}

/// Checks that an image that is a block device can be written to and, after a power cut, known again.
fn must_be_writable(file: &File, format: Format) -> Result<()> {
    let refuse = |what: &str, hint: &str| Err(Error::unsupported(what).hint(hint));
    if format != Format::Raw {
        let what = format!(
            "it is {} on a block device, where it cannot grow as writing to it may need",
            format.driver()
        );
        return refuse(&what, "write the result to a new file: --output NEW");
    }
    if Identity::of(file)?.unit.is_none() {
        let what = "nothing tells this block device from others when the host was started anew, so that an interrupted \
            commit could not be finished safely";
        return refuse(what, "write the result to a new file: --output NEW");
    }
    Ok(())
}

/// Checks that a qcow2 image is whole and has nothing that guestseal does not work on, or that `past` says nothing about.
/// While somebody has the image open (`moving`), its header may say that it was not closed: it was not yet.
///
/// # Errors
/// When it cannot be read, is damaged, or is refused.
pub fn check_qcow2<R: Read + Seek>(mut file: R, moving: bool, past: Past) -> Result<Header> {
    let header = qcow2::read_header(&mut file)?;
    past.check(&header)?;
    let refuse = |what: String, hint: &str| Err(Error::unsupported(what).hint(hint));
    if header.corrupt || (header.dirty && !moving) {
        let what = if header.corrupt { "is marked as corrupt" } else { "was not closed properly" };
        return refuse(format!("the image {what}"), "repair it first: qemu-img check -r all IMAGE");
    }
    qcow2_tables::check(&mut file)?;
    Ok(header)
}

/// The length of the disk, for formats whose headers guestseal does not read itself.
fn ask_qemu(lock: &LockedImage, format: Format) -> Result<u64> {
    let path = own::path_of(lock.file());
    let mut run = Tool::find("qemu-img")?.spawn().args(["info", "--output=json"]);
    if !lock.lets_qemu_lock() {
        run = run.arg("--force-share");
    }
    let run = run.args(["-f", format.driver(), &path]);
    let (exit, answer) = run.output(ANSWER_LIMIT)?;
    exit.success()
        .map_err(|error| error.hint(format!("qemu-img check -f {} tells more", format.driver())))?;
    parse_answer(&answer)
}

/// The length of the disk, by the JSON that `qemu-img info` prints.
///
/// # Errors
/// When it is no such JSON, and when the image has a backing file.
pub fn parse_answer(answer: &[u8]) -> Result<u64> {
    let answer: Value = serde_json::from_slice(answer).context(|| "cannot understand qemu-img info")?;
    if let Some(backing) = answer["backing-filename"].as_str() {
        // qemu itself takes no longer name than this.
        let backing: String = backing.chars().take(1023).collect();
        return Err(Error::unsupported(format!("the image has the backing file {backing:?}"))
            .hint("make it one whole image first: qemu-img convert -O qcow2 OLD NEW.qcow2"));
    }
    answer["virtual-size"]
        .as_u64()
        .ok_or_else(|| Error::failed("qemu-img info does not say how large the disk is"))
}
