//! The guests that attacks are put into: one small system on each kind of disk, made once a run.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use tempfile::TempDir;

use crate::common::tool;
use crate::disks::{Label, make_disk, volume};
use crate::stage::copy;

const BARE: Label = Label(None, 512);
const GPT: Label = Label(Some("gpt"), 512);

/// Copies the guest of this kind: a filesystem on the whole disk, or `disk`: a root and two data volumes in a GPT.
pub(crate) fn base(kind: &str, image: &Path) {
    const KINDS: [&str; 4] = ["ext4", "xfs", "btrfs", "disk"];
    static BASES: [OnceLock<PathBuf>; 4] = [const { OnceLock::new() }; 4];
    let index = KINDS.iter().position(|known| *known == kind);
    let index = index.unwrap_or_else(|| panic!("there is no guest {kind}"));
    let kind = KINDS[index];
    let made = BASES[index].get_or_init(|| {
        let image = folder().join(format!("{kind}.raw"));
        match kind {
            "disk" => {
                let data = |source| volume(32, "ext4", "-", source);
                let volumes = [volume(128, "ext4", "/", "UUID"), data("LABEL"), data("LABEL")];
                make_disk(&image, GPT, &volumes, "");
            }
            _ => {
                let mib = if kind == "xfs" { 320 } else { 256 };
                make_disk(&image, BARE, &[volume(mib, kind, "/", "UUID")], "");
            }
        }
        image
    });
    copy(made, image);
}

/// The same in another format, made once with these options of `qemu-img convert`.
pub(crate) fn image(kind: &str, format: &str, options: &[&str], to: &Path) {
    static MADE: Mutex<Option<HashMap<String, PathBuf>>> = Mutex::new(None);
    if format == "raw" {
        return base(kind, to);
    }
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let made = made.get_or_insert_default();
    let key = format!("{kind}.{format} {}", options.join(" "));
    let number = made.len();
    let from = made.entry(key).or_insert_with(|| {
        let (raw, image) = (folder().join("to-convert.raw"), folder().join(format!("{number}.{format}")));
        base(kind, &raw);
        let words = ["convert", "-q", "-f", "raw", "-O", format];
        tool("qemu-img", words.iter().chain(options).map(PathBuf::from).chain([raw, image.clone()]));
        image
    });
    copy(from, to);
}

/// Lives as long as the test binary; removed by the next one when it was killed.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    FOLDER
        .get_or_init(|| tempfile::Builder::new().prefix("guestseal-hostile-").tempdir_in("/var/tmp").unwrap())
        .path()
}
