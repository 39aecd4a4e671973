//! Volumes of which nothing can be said: refused, or sealed with the reason in the record.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::cells::{Sealed, Way};
use crate::common::{on_path, require, shell};
use crate::disk::Planted;
use crate::scan::{Counts, lines};
use crate::stage::Stage;
use crate::variants::{EXT4, planted, possible};

/// Where the fourth partition is, in MiB, and the size of the disk then.
const FOURTH: (u64, u64) = (384, 136);
const END: u64 = 524;

#[test]
fn what_cannot_be_mapped() {
    let tools = ["mkfs.f2fs", "mkfs.nilfs2", "mkfs.jfs"];
    if !possible() || !tools.iter().all(|tool| require(on_path(tool), &format!("needs {tool}"))) {
        return;
    }
    let planted = planted(EXT4, &[]);
    for (make, content) in [
        ("mkfs.f2fs -q -f", "f2fs"),
        ("mkfs.nilfs2 -q -f", "nilfs2"),
        ("mkfs.jfs -q -f", "jfs"),
        ("", "LVM2_member"),
    ] {
        let stage = with_fourth(&planted, make);
        let ran = stage.unchanged_by("seal --isolate never --digest none", 5);
        ran.says(&["partition 4", content, "--allow-unproven"]);
        if make.is_empty() || content == "f2fs" {
            sealed_all_the_same(stage, content);
        }
    }
}

fn sealed_all_the_same(stage: Stage, content: &str) {
    let sealed = Sealed::of(stage, "raw", Way::Overlay, "--isolate never --allow-unproven");
    let volumes = sealed.erasure()["volumes"].as_array().unwrap();
    for volume in volumes {
        let reason = volume["unproven"].as_str();
        assert_eq!(reason.is_some(), volume["volume"] == "partition 4", "{volumes:#?}");
        assert!(reason.is_none_or(|reason| reason.contains(content)), "{volume:#}");
    }
    let (disk, _) = sealed.left(&["boot"]);
    // Not touched, and all the rest is clean.
    assert_eq!(disk, Counts::from([("unproven".to_owned(), 100)]));
}

/// The planted disk, larger, with a fourth partition; an LVM physical volume when nothing makes it.
fn with_fourth(planted: &Planted, make: &str) -> Stage {
    let stage = Stage::convert(&planted.disk, "raw", &[]);
    let (disk, part) = (stage.image.display(), stage.path("fourth"));
    shell(&format!(
        "truncate -s {END}M {disk}; sfdisk -q --no-reread --no-tell-kernel --relocate gpt-bak-std {disk}
         echo 'start={}, size={}, type=L' | sfdisk -q --no-reread --no-tell-kernel --append {disk}
         truncate -s {}M {part}; {} {}",
        FOURTH.0 * 2048,
        FOURTH.1 * 2048,
        FOURTH.1,
        if make.is_empty() { "true" } else { make },
        if make.is_empty() { PathBuf::new() } else { part.clone() }.display(),
        part = part.display(),
    ));
    fill(&part, make.is_empty());
    shell(&format!(
        "dd if={} of={disk} bs=1M seek={} conv=notrunc,sparse status=none",
        part.display(),
        FOURTH.0
    ));
    fs::remove_file(part).unwrap();
    stage
}

fn fill(part: &Path, lvm: bool) {
    let file = File::options().write(true).open(part).unwrap();
    file.write_all_at(lines("unproven", 100).as_bytes(), 100 << 20).unwrap();
    if lvm {
        // struct label_header of lib/label/label.h, in the second sector.
        file.write_all_at(b"LABELONE\x01\0\0\0\0\0\0\0\0\0\0\0\x20\0\0\0LVM2 001", 512).unwrap();
    }
}
