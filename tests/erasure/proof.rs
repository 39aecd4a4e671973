//! The proof looks: one byte that comes back is found and named, and images that others cleaned do not pass.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde_json::Value;

use crate::cells::{Sealed, Way};
use crate::common::{guestseal, shell, tool};
use crate::disk::{Planted, ROOT, SWAP};
use crate::mounts::in_private_mounts;
use crate::stage::Stage;
use crate::variants::{EXT4, planted, possible};

const MIB: u64 = 1 << 20;

#[test]
fn the_proof() {
    if possible() {
        let planted = planted(EXT4, &[]);
        finds_one_byte(&planted);
        finds_what_a_script_leaves(&planted);
    }
}

/// What `verify --residue` says, which must end with this code.
fn residue(image: &Path, code: i32) -> Vec<Value> {
    let verdict = guestseal("verify --residue --json", &[image]).expect(code).result();
    assert_eq!(verdict["sealed"], code == 0, "{verdict:#}");
    verdict["erasure"]["volumes"].as_array().unwrap().clone()
}

fn finds_one_byte(planted: &Planted) {
    let sealed = Sealed::make(planted, "raw", Way::Overlay, "");
    residue(&sealed.image, 0);
    let disk = File::options().read(true).write(true).open(&sealed.image).unwrap();
    let root = ROOT.0 * MIB + free_block(&sealed.image) * 4096 + 2001;
    let swap = SWAP.0 * MIB + 5 * MIB + 7;
    let gap = (ROOT.0 + ROOT.1) * MIB + MIB + 333;
    for (place, volume) in [(root, "partition 2"), (swap, "partition 3"), (gap, "gaps")] {
        disk.write_all_at(b"!", place).unwrap();
        let volumes = residue(&sealed.image, 5);
        for found in &volumes {
            let expected = u64::from(found["volume"] == volume);
            assert_eq!(found["bytes-nonzero"], expected, "{volume}: {volumes:#?}");
        }
        let found = volumes.iter().find(|found| found["volume"] == volume).unwrap();
        let named = &found["places"][0];
        let (start, length) = (named["start"].as_u64().unwrap(), named["length"].as_u64().unwrap());
        assert!(start <= place && place < start + length, "{place} is not in {found:#}");
        // In words for people, as well.
        let told = guestseal("verify --residue", &[&sealed.image]).expect(5).stdout;
        assert!(told.contains(volume) && told.contains("can be read back"), "{told}");
        disk.write_all_at(b"\0", place).unwrap();
        residue(&sealed.image, 0);
    }
}

/// A block of the root filesystem that is free, by its own tools.
fn free_block(disk: &Path) -> u64 {
    let volume = format!("{}?offset={}", disk.display(), ROOT.0 * MIB);
    let told = tool("dumpe2fs", [&volume]);
    let ranges = told.lines().filter_map(|line| line.trim().strip_prefix("Free blocks: "));
    ranges.filter_map(|ranges| ranges.rsplit(['-', ' ']).next()?.parse().ok()).next_back().unwrap()
}

/// The same files removed by a shell: the image is as clean to look at, and everything is still in it.
fn finds_what_a_script_leaves(planted: &Planted) {
    let stage = Stage::convert(&planted.disk, "raw", &[]);
    removed_by_a_script(&stage.image, planted);
    let before = stage.print();
    let volumes = residue(&stage.image, 5);
    for name in ["partition 1", "partition 2", "partition 3", "gaps"] {
        let found = volumes.iter().find(|found| found["volume"] == name).unwrap();
        assert!(found["bytes-nonzero"].as_u64().unwrap() > 1000, "{found:#}");
    }
    let told = guestseal("verify --residue", &[&stage.image]).expect(5);
    for name in ["partition 2", "partition 3", "gaps"] {
        assert!(told.stdout.contains(name), "{told:#?}");
    }
    assert_eq!(stage.print(), before, "looking changed the image");
}

/// What a bare script does to a raw disk.
pub(crate) fn removed_by_a_script(disk: &Path, planted: &Planted) {
    in_private_mounts(|| {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let nodiscard = if planted.filesystem.kind == "btrfs" { ",nodiscard" } else { "" };
        let window = format!("loop,offset={},sizelimit={}{nodiscard}", ROOT.0 * MIB, ROOT.1 * MIB);
        let args = ["-t", planted.filesystem.kind, "-o", &window].map(Path::new);
        tool("mount", args.into_iter().chain([disk, folder.path()]));
        shell(&format!(
            "cd {}; rm -rf tmp/* var/tmp/* var/log/*.1; : >var/log/app.log",
            folder.path().display()
        ));
        tool("umount", [folder.path()]);
    });
}
