//! One way of sealing a planted disk, and all that must be true afterwards.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::beside::{SWAP_LABEL, SWAP_UUID, boot_loader};
use crate::common::{guestseal, run, shell, tool};
use crate::disk::{Planted, ROOT, SWAP, describe};
use crate::leftovers::nothing_left;
use crate::mounts::{check_filesystems, export, in_private_mounts};
use crate::scan::{Counts, count, count_bytes};
use crate::stage::Stage;

const MIB: u64 = 1 << 20;

/// How the sealed image is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Overlay,
    Output,
    InPlace,
}

/// A sealed image: what its disk and its file still hold, and what was recorded.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) stage: Stage,
    pub(crate) image: PathBuf,
    pub(crate) format: &'static str,
    /// As a raw disk.
    pub(crate) raw: PathBuf,
    pub(crate) report: Value,
    pub(crate) record: Value,
    /// Whether the file had clusters that nothing refers to, and stays that file.
    had_leaks: bool,
}

impl Sealed {
    /// Seals a copy of the planted disk, in this format and way, with these further words.
    pub(crate) fn make(planted: &Planted, format: &'static str, way: Way, words: &str) -> Self {
        Self::of(Stage::convert(&planted.disk, format, &[]), format, way, words)
    }

    /// Seals this image.
    pub(crate) fn of(stage: Stage, format: &'static str, way: Way, words: &str) -> Self {
        let words = format!("seal --json --digest none {words}");
        let check = ["check", "-q", "-f", format, stage.image.to_str().unwrap()];
        let had_leaks = format == "qcow2" && way != Way::Output && run("qemu-img", check).code == 3;
        let (image, ran) = match way {
            Way::Overlay => (stage.image.clone(), stage.guestseal(&words)),
            Way::InPlace => (stage.image.clone(), stage.guestseal(&format!("{words} --in-place"))),
            Way::Output => {
                let new = stage.path("new.img");
                let ran = guestseal(&format!("{words} --output"), &[&new, &stage.image]);
                (new, ran)
            }
        };
        let report = ran.expect(0).result();
        let name = format!("{}.seal.json", image.display());
        let record = serde_json::from_str(&std::fs::read_to_string(name).unwrap()).unwrap();
        let raw = export(&image, format);
        Self { stage, image, format, raw, report, record, had_leaks }
    }

    /// The record of the erasure.
    pub(crate) fn erasure(&self) -> &Value {
        &self.record["predicate"]["erasure"]
    }

    /// Markers in the guest's disk and in the image file, but for those that are to stay.
    pub(crate) fn left(&self, stay: &[&str]) -> (Counts, Counts) {
        let but =
            |counts: Counts| counts.into_iter().filter(|(kind, _)| !stay.contains(&kind.as_str())).collect();
        let disk = count(&self.raw);
        let file = if self.raw == self.image { disk.clone() } else { count(&self.image) };
        (but(disk), but(file))
    }

    /// The filesystems are whole, what stays is as it was, and guestseal's own verdict agrees.
    pub(crate) fn is_whole(&self, planted: &Planted) {
        check_filesystems(&self.raw, &self.report["inspection"]);
        check_esp(&self.raw);
        assert_eq!(boot_loader(&self.raw, MIB), boot_loader(&planted.disk, MIB), "the boot loader");
        check_swap(&self.raw);
        assert!(kept(&self.raw, planted) == planted.kept, "files that stay have changed");
        if self.format != "raw" {
            let check = run("qemu-img", ["check", "-q", "-f", self.format, self.image.to_str().unwrap()]);
            // Three: clusters that are counted as in use, by nothing. Where they are, they were before.
            assert!(check.code == 0 || check.code == 3 && self.had_leaks, "{check:#?}");
        }
        let paths: &[&Path] = &[&self.image];
        guestseal("verify", paths).expect(0);
        guestseal("verify --residue", paths).expect(0);
    }
}

/// Seals and looks at everything.
pub(crate) fn sealed_without_a_trace(planted: &Planted, format: &'static str, way: Way) {
    let cell = format!("{}, {format}, {way:?}", planted.filesystem.name);
    println!("{cell}");
    let sealed = Sealed::make(planted, format, way, "");
    // In front of the first partition is the boot loader's area.
    let snapshot = planted.filesystem.kind == "btrfs";
    let stay: &[&str] = if snapshot { &["boot", "snapshot"] } else { &["boot"] };
    let left = sealed.left(stay);
    assert_eq!(left, (Counts::new(), Counts::new()), "{cell}: left in disk and file\n{:#}", sealed.erasure());
    if let Some(compressed) = &planted.compressed {
        assert_eq!(count_bytes(&sealed.raw, compressed), 0, "{cell}: compressed bytes");
    }
    let holds = sealed.erasure()["volumes"].as_array().unwrap().iter();
    let holds = holds
        .filter_map(|volume| volume["holds"].as_array())
        .flatten()
        .any(|held| held.to_string().contains("srv/then"));
    assert_eq!(holds, snapshot, "{cell}: the record says what holds copies\n{:#}", sealed.erasure());
    sealed.is_whole(planted);
    nothing_left(sealed.stage.folder(), Duration::ZERO);
}

/// The files that stay, in a raw disk.
fn kept(raw: &Path, planted: &Planted) -> String {
    in_private_mounts(|| {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let nouuid = if planted.filesystem.kind == "xfs" { ",nouuid" } else { "" };
        let window = format!("ro,loop,offset={},sizelimit={}{nouuid}", ROOT.0 * MIB, ROOT.1 * MIB);
        let args = ["-t", planted.filesystem.kind, "-o", &window].map(Path::new);
        tool("mount", args.into_iter().chain([raw, folder.path()]));
        let told = describe(folder.path());
        tool("umount", [folder.path()]);
        told
    })
}

fn check_esp(raw: &Path) {
    let copy = raw.with_extension("esp");
    shell(&format!(
        "dd if={} of={} bs=1M skip=1 count=17 conv=sparse status=none",
        raw.display(),
        copy.display()
    ));
    let ran = run("fsck.vfat", [Path::new("-n"), &copy]);
    std::fs::remove_file(copy).unwrap();
    assert_eq!(ran.code, 0, "{ran:#?}");
}

fn check_swap(raw: &Path) {
    let (offset, size) = ((SWAP.0 * MIB).to_string(), (SWAP.1 * MIB).to_string());
    let args = ["-p", "-O", &offset, "-S", &size].map(Path::new);
    let told = tool("blkid", args.into_iter().chain([raw]));
    for wanted in [SWAP_LABEL, SWAP_UUID] {
        assert!(told.contains(wanted), "swap has lost its {wanted}: {told}");
    }
}
