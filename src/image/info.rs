//! What an image file is, and whether guestseal may work on it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use super::commit;
use super::format::{Format, HEAD_BYTES, detect};
use super::identity::Stamp;
use super::lock::{LockedImage, Use};
use super::{qcow2, qcow2_tables, vmdk};
use crate::error::{Context, Error, Result};
use crate::sys::tool::Tool;

/// The most that is read of qemu-img's answer.
const ANSWER_LIMIT: u64 = 1 << 20;

/// An image that is locked for this run and may be worked on.
#[derive(Debug)]
pub struct Image {
    /// Its canonical path.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// Length of the disk in it, in bytes.
    pub virtual_bytes: u64,
    /// Length of the file in bytes.
    pub file_bytes: u64,
    /// The lock, held until this is dropped.
    pub lock: LockedImage,
    stamp: Stamp,
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
}

impl Image {
    /// Opens, locks and examines an image.
    ///
    /// # Errors
    /// When it is missing, busy (unless it is only looked at), damaged, or has what guestseal does not work on: a backing file, an external data
    /// file, internal snapshots, encryption.
    pub fn open(path: &Path, format: Option<Format>, usage: Use) -> Result<Self> {
        let path = path.canonicalize().context(|| format!("cannot find the image {}", path.display()))?;
        let lock = LockedImage::open(&path, usage)?;
        // Only now: while another run commits, the image is in use, and not interrupted.
        if lock.moving().is_none() {
            commit::refuse_interrupted(&path)?;
        }
        let read = Self::read(&path, format, usage, &lock);
        let (format, virtual_bytes, file_bytes) = read.map_err(|error| lock.blame(error))?;
        let stamp = Stamp::of(lock.file()).context(|| format!("cannot examine {}", path.display()))?;
        Ok(Self { path, format, virtual_bytes, file_bytes, lock, stamp })
    }

    /// Its format, and the lengths of the disk and of the file.
    fn read(
        path: &Path,
        format: Option<Format>,
        usage: Use,
        lock: &LockedImage,
    ) -> Result<(Format, u64, u64)> {
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
        let format = format.map_or_else(|| detect(&head), Ok).map_err(about)?;
        let virtual_bytes = match format {
            Format::Raw => Ok(file_bytes),
            Format::Qcow2 => check_qcow2(file, lock.moving().is_some()),
            Format::Vmdk => {
                let will_write = matches!(usage, Use::Commit | Use::Write);
                vmdk::check(file, &head, will_write).and_then(|()| ask_qemu(lock, format))
            }
            Format::Vdi | Format::Vhdx => ask_qemu(lock, format),
        }
        .map_err(about)?;
        Ok((format, virtual_bytes, file_bytes))
    }

    /// qemu's node for the image itself. It has no backing file, whatever its header says by the time qemu reads it.
    pub fn node(&self, read_only: bool) -> Value {
        let locking = read_only && self.lock.moving().is_none();
        node(self.lock.file(), &self.path, self.format, read_only, locking)
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
        Ok(metadata.permissions().mode() & 0o777)
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
        ImageFacts { name, format, virtual_bytes, file_bytes }
    }
}

/// qemu's node for an image. It has no backing file, whatever its header says by the time qemu reads it. qemu does not
/// lock what this process has locked for writing, and what is looked at while others write to it.
pub(super) fn node(file: &File, path: &Path, format: Format, read_only: bool, locking: bool) -> Value {
    let device = file.metadata().is_ok_and(|metadata| metadata.file_type().is_block_device());
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

/// Checks that a qcow2 image is whole and has nothing that guestseal does not work on; gives the length of its disk.
/// While somebody has the image open (`moving`), its header may say that it was not closed: it was not yet.
///
/// # Errors
/// When it cannot be read, is damaged, or is refused.
pub fn check_qcow2<R: Read + Seek>(mut file: R, moving: bool) -> Result<u64> {
    let header = qcow2::read_header(&mut file)?;
    let refuse = |what: String, hint: &str| Err(Error::unsupported(what).hint(hint));
    if let Some(backing) = header.backing_file {
        let hint = "what is deleted from a clone stays readable in its backing file; make it one whole image first: qemu-img convert -O qcow2 OLD NEW.qcow2";
        return refuse(format!("the image is a thin layer over the backing file {backing:?}"), hint);
    }
    if header.external_data {
        return refuse(
            "the guest's data is in an external data file".into(),
            "make it one image first: qemu-img convert -O qcow2 OLD NEW.qcow2",
        );
    }
    if header.encrypted {
        return refuse("the image is encrypted".into(), "decrypt it first with qemu-img convert");
    }
    if header.snapshots > 0 {
        let what = format!(
            "the image holds {} internal snapshots, in which everything deleted stays readable",
            header.snapshots
        );
        return refuse(
            what,
            "delete them first: qemu-img snapshot -l IMAGE, qemu-img snapshot -d NAME IMAGE",
        );
    }
    if header.corrupt || (header.dirty && !moving) {
        let what = if header.corrupt { "is marked as corrupt" } else { "was not closed properly" };
        return refuse(format!("the image {what}"), "repair it first: qemu-img check -r all IMAGE");
    }
    qcow2_tables::check(&mut file)?;
    Ok(header.virtual_bytes)
}

/// The length of the disk, for formats whose headers guestseal does not read itself.
fn ask_qemu(lock: &LockedImage, format: Format) -> Result<u64> {
    let path = format!("/proc/{}/fd/{}", std::process::id(), lock.file().as_raw_fd());
    let mut run = Tool::find("qemu-img")?.spawn().args(["info", "--output=json"]);
    if lock.moving().is_some() {
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
