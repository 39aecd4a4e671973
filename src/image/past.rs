//! What an image keeps of its guest's past besides its disk: internal snapshots, persistent bitmaps, backing files. Each
//! is refused unless the user says what is to become of it.

#![forbid(unsafe_code)]

use std::fs::File;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::qcow2::Header;
use crate::disk::number::be64;
use crate::error::{Context, Error, Result};
use crate::sys::tool::Tool;

/// What the user said about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Past {
    /// Internal snapshots and persistent bitmaps go.
    pub drop_snapshots: bool,
    /// Backing files are read, and what is in them goes into the new file.
    pub flatten: bool,
    /// Backing files stay as they are, below the sealed image.
    pub allow_backing: bool,
    /// Bytes of the file that hold nothing of its disk stay as they are.
    #[serde(default)]
    pub keep_unreferenced: bool,
}

impl Past {
    /// Whether nothing was said.
    pub fn is_refused(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses an image that holds what the user said nothing about.
    ///
    /// # Errors
    /// [`crate::ErrorKind::Unsupported`], with the options there are.
    pub(super) fn check(self, header: &Header) -> Result<()> {
        if let (Some(backing), false) = (&header.backing_file, self.flatten || self.allow_backing) {
            let what = format!("the image is a thin layer over the backing file {backing:?}");
            return Err(Error::unsupported(what).hint(
                "what is deleted from a clone stays readable in its backing file: write one whole image with --flatten \
                --output NEW, or seal the layer alone with --allow-backing; both read the files that the image names",
            ));
        }
        if header.external_data {
            return Err(Error::unsupported("the guest's data is in an external data file")
                .hint("make it one image first: qemu-img convert -O qcow2 OLD NEW.qcow2"));
        }
        if header.encrypted {
            return Err(
                Error::unsupported("the image is encrypted").hint("decrypt it first with qemu-img convert")
            );
        }
        if self.drop_snapshots {
            return Ok(());
        }
        if header.snapshots > 0 {
            let what = format!(
                "the image holds {} internal snapshots, in which everything deleted stays readable",
                header.snapshots
            );
            return Err(Error::unsupported(what)
                .hint("remove them with --drop-snapshots (qemu-img snapshot -l IMAGE lists them)"));
        }
        if header.bitmaps {
            return Err(Error::unsupported(
                "the image holds persistent bitmaps, which say where its guest wrote",
            )
            .hint("remove them with --drop-snapshots (qemu-img info IMAGE lists them)"));
        }
        Ok(())
    }
}

/// Where the header has the number of snapshots and the place of their table, 12 bytes together.
const SNAPSHOTS_AT: u64 = 60;
/// Where the autoclear features are, in their last byte the bit of the bitmaps.
const AUTOCLEAR_AT: u64 = 95;

/// Checks that snapshots and bitmaps can be taken out of an image: every table of theirs must be whole. Reads only.
///
/// # Errors
/// When they are not.
pub(super) fn check_droppable(node: &Value) -> Result<()> {
    /// qemu-img's way to say that clusters are lost and nothing else.
    const LEAKS: i32 = 3;
    let check = Tool::find("qemu-img")?.spawn().args(["check", "-q"]);
    let (exit, _) = check.arg(format!("json:{node}")).output(16 << 20)?;
    if exit.status.code() == Some(LEAKS) {
        return Ok(());
    }
    exit.success().map_err(|error| {
        Error::unsupported("the image's snapshots cannot be removed, because its tables are damaged")
            .caused_by(error)
            .hint("repair it first, on a copy: qemu-img check -r all IMAGE")
    })
}

/// Takes internal snapshots and bitmaps out of a qcow2 image. Their names go first, which leaves whole what qemu calls an
/// image with leaks; then qemu-img frees what nothing refers to any more. Done again, it goes on where it was killed.
///
/// # Errors
/// When the image cannot be written, or is damaged.
pub(super) fn drop_from(file: &File, node: &Value) -> Result<()> {
    let failed = || "cannot remove the image's snapshots";
    let mut head = [0; 104];
    file.read_exact_at(&mut head, 0).context(failed)?;
    let snapshots = usize::try_from(SNAPSHOTS_AT).unwrap_or_default();
    if head.get(snapshots..snapshots + 12).is_some_and(|bytes| bytes != [0; 12]) {
        file.write_all_at(&[0; 12], SNAPSHOTS_AT).context(failed)?;
    }
    let version3 = be64(&head, 0) & 0xffff_ffff == 3;
    let autoclear = head.get(usize::try_from(AUTOCLEAR_AT).unwrap_or_default()).copied().unwrap_or_default();
    if version3 && autoclear & 1 != 0 {
        file.write_all_at(&[autoclear & !1], AUTOCLEAR_AT).context(failed)?;
    }
    file.sync_data().context(failed)?;
    let free = Tool::find("qemu-img")?.spawn().args(["check", "-q", "-r", "leaks"]);
    free.arg(format!("json:{node}")).output(16 << 20)?.0.success()
}
