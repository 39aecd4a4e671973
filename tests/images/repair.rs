//! Guests whose filesystems have errors: refused with the tool that repairs them, and repaired with --repair.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::common::{on_path, ready, require, shell, tool};
use crate::disks::{Label, make_disk, volume};
use crate::formats::is_sealed;
use crate::guests::guest;
use crate::mounts::{check_filesystems, export};
use crate::stage::Stage;

const BARE: Label = Label(None, 512);
const MIB: u64 = 1 << 20;

fn ready_with_tools() -> bool {
    ready()
        && ["debugfs", "e2fsck", "xfs_db", "xfs_repair", "btrfs", "btrfs-map-logical"]
            .iter()
            .all(|tool| require(on_path(tool), &format!("needs {tool}")))
}

/// Changes an ext filesystem behind its own back; each line is one request of debugfs.
fn debugfs(image: &Path, requests: &[&str]) {
    for request in requests {
        tool("debugfs", [Path::new("-w"), Path::new("-R"), Path::new(request), image]);
    }
}

/// `seal` and `inspect` end with 6 and these words, and not a byte changes.
fn refused(stage: &Stage, words: &[&str]) {
    for command in ["seal", "seal --in-place --attach fuse", "inspect"] {
        // In place, the errors that show late leave the image as a guest would.
        let ran = if command.contains("in-place") {
            let copy = Stage::copy(&stage.image);
            copy.guestseal(command).expect(6)
        } else {
            stage.unchanged_by(command, 6)
        };
        ran.says(words);
        ran.says(&["what to do"]);
    }
}

/// --dry-run says what would be repaired, --repair does it, and the record tells of it.
fn repaired(stage: &Stage, format: &str, volume: &str, command: &str) -> Value {
    let dry = stage.unchanged_by("seal --repair --dry-run --json", 0);
    dry.says(&[volume, command, "repaired"]);
    let report = stage.guestseal("seal --repair --json").expect(0);
    report.says(&[volume, command, "repaired"]);
    let report = report.result();
    for repairs in [&dry.result()["repairs"], &report["repairs"]] {
        assert_eq!(repairs[0]["volume"], volume);
        assert_eq!(repairs[0]["command"], command);
        assert_eq!(repairs.as_array().unwrap().len(), 1);
    }
    let record = std::fs::read(report["record"].as_str().unwrap()).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(record["predicate"]["repairs"], report["repairs"]);
    check_filesystems(&export(&stage.image, format), &report["inspection"]);
    stage.guestseal("verify").expect(0);
    is_sealed(&stage.image, format, &report["inspection"]);
    report
}

#[test]
fn an_ext4_with_wrong_counts() {
    if !ready_with_tools() {
        return;
    }
    for format in ["raw", "qcow2"] {
        let raw = Stage::copy(&guest("arch").image);
        debugfs(
            &raw.image,
            &[
                "set_super_value state 2",
                "set_super_value free_blocks_count 7",
                "sif /etc/passwd links_count 9",
            ],
        );
        let stage = Stage::convert(&raw.image, format, &[]);
        refused(&stage, &["the ext4 on the whole disk has errors", "e2fsck -f", "--repair"]);
        repaired(&stage, format, "the whole disk", "e2fsck -f -y");
    }
}

#[test]
fn an_ext2_that_was_not_unmounted() {
    if !ready_with_tools() {
        return;
    }
    let stage = Stage::new("old.raw");
    make_disk(&stage.image, BARE, &[volume(96, "ext2", "/", "UUID")], "");
    debugfs(&stage.image, &["set_super_value state 0", "set_super_value free_inodes_count 7"]);
    refused(&stage, &["the ext2 on the whole disk", "was not unmounted", "e2fsck -f"]);
    repaired(&stage, "raw", "the whole disk", "e2fsck -f -y");
}

/// The superblock says nothing of it: it shows when the folder is read.
#[test]
fn an_ext4_with_a_damaged_folder() {
    if !ready_with_tools() {
        return;
    }
    let stage = Stage::copy(&guest("arch").image);
    let image = stage.image.display();
    let block: u64 = shell(&format!("debugfs -R 'blocks /var/log' {image}")).trim().parse().unwrap();
    let size: u64 =
        shell(&format!("dumpe2fs -h {image} | awk '/^Block size/ {{print $3}}'")).trim().parse().unwrap();
    overwrite(&stage.image, block * size, &[0xa5; 512]);
    refused(&stage, &["/var/log", "a filesystem of the guest has errors", "e2fsck -f", "--repair"]);
    repaired(&stage, "raw", "the whole disk", "e2fsck -f -y");
}

/// The second volume of two, on which only what fstab mounts below the root shows that it is needed.
#[test]
fn errors_on_a_volume_below_the_root() {
    if !ready_with_tools() {
        return;
    }
    let stage = Stage::new("two.raw");
    let volumes = [volume(64, "ext4", "/", "UUID"), volume(64, "ext4", "/home", "UUID")];
    make_disk(&stage.image, Label(Some("gpt"), 512), &volumes, "");
    let second = PathBuf::from(format!("{}?offset={}", stage.image.display(), 65 * MIB));
    debugfs(&second, &["set_super_value state 2", "set_super_value free_blocks_count 7"]);
    refused(&stage, &["the ext4 on partition 2 has errors", "e2fsck -f"]);
    repaired(&stage, "raw", "partition 2", "e2fsck -f -y");
}

#[test]
fn an_xfs_with_a_damaged_header() {
    if !ready_with_tools() {
        return;
    }
    let stage = Stage::new("xfs.raw");
    make_disk(&stage.image, BARE, &[volume(320, "xfs", "/", "UUID")], "");
    xfs_db(&stage.image, &["agf 0", "write -d freeblks 999999999"]);
    stage.unchanged_by("seal", 6).says(&["xfs", "Structure needs cleaning", "xfs_repair", "--repair"]);
    repaired(&stage, "raw", "the whole disk", "xfs_repair");
}

#[test]
fn an_xfs_that_says_that_it_needs_repair() {
    if !ready_with_tools() {
        return;
    }
    let stage = Stage::new("xfs.raw");
    make_disk(&stage.image, BARE, &[volume(320, "xfs", "/", "UUID")], "");
    xfs_db(&stage.image, &["sb 0", "write features_incompat 0x1b"]);
    refused(&stage, &["the xfs on the whole disk has errors", "xfs_repair", "--repair"]);
    repaired(&stage, "raw", "the whole disk", "xfs_repair");
}

/// Its log holds changes, and cannot be replayed: it is never thrown away.
#[test]
fn an_xfs_whose_log_is_damaged() {
    if !ready_with_tools() {
        return;
    }
    let clean = Stage::new("xfs.raw");
    make_disk(&clean.image, BARE, &[volume(320, "xfs", "/", "UUID")], "");
    let stage = Stage::new("dirty.raw");
    let report = clean.guestseal("inspect --json").expect(0).result();
    crate::mounts::with_guest(&clean.image, &report["inspection"], crate::mounts::Access::Write, |root| {
        for number in 0..2000 {
            std::fs::write(root.join(format!("tmp/late-{number}")), b"late").unwrap();
        }
        File::open(root.join("tmp/late-1999")).unwrap().sync_all().unwrap();
        crate::stage::copy(&clean.image, &stage.image);
    });
    let log = shell(&format!(
        "xfs_db -r -c 'sb 0' -c 'convert fsblock '$(xfs_db -r -c 'sb 0' -c 'p logstart' {0} | awk '{{print $3}}')' byte' {0}",
        stage.image.display()
    ));
    let start =
        u64::from_str_radix(log.split(['(', ')']).next().unwrap().trim().trim_start_matches("0x"), 16)
            .unwrap();
    // The first record that must be replayed; the last few, which a crash may tear, the kernel forgives.
    let printed = shell(&format!("xfs_logprint -t {}", stage.image.display()));
    let line = printed.lines().find(|line| line.contains("log tail:")).unwrap_or_else(|| panic!("{printed}"));
    let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [tail, head] = numbers[..] else { panic!("{line}") };
    assert!(line.contains("DIRTY") && head > tail + 1000, "{line}");
    overwrite(&stage.image, start + (tail + 2) * 512 + 100, &[0x5a; 64]);
    stage.unchanged_by("seal", 6).says(&["xfs", "Bad message", "xfs_repair"]);
    stage.unchanged_by("seal --repair", 6).says(&[
        "the log of the xfs",
        "cannot be replayed",
        "xfs_repair -L",
    ]);
}

#[test]
fn a_btrfs_with_errors_is_refused() {
    if !ready_with_tools() {
        return;
    }
    let stage = Stage::new("btrfs.raw");
    make_disk(&stage.image, BARE, &[volume(256, "btrfs", "/", "UUID")], "");
    let whole = Stage::copy(&stage.image);
    let words = ["btrfs", "btrfs check", "may make it worse"];
    // Its root tree, in both copies.
    let copies = shell(&format!(
        "root=$(btrfs inspect-internal dump-super {0} | awk '$1 == \"root\" {{print $2}}'); btrfs-map-logical -l $root {0} | awk '{{print $6}}'",
        stage.image.display()
    ));
    let copies: Vec<u64> = copies.split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert!(!copies.is_empty());
    for copy in copies {
        overwrite(&stage.image, copy, &[0xa5; 1024]);
    }
    refused(&stage, &words);
    stage.unchanged_by("seal --repair", 6).says(&words);
    // The superblock itself: a byte of the label, which its checksum covers.
    overwrite(&whole.image, (64 << 10) + 299, b"X");
    refused(&whole, &words);
    whole.unchanged_by("seal --repair", 6).says(&["--repair does not repair", "btrfs check"]);
}

#[test]
fn a_sound_guest_is_sealed_with_repair_as_without() {
    if !ready_with_tools() {
        return;
    }
    for variant in ["arch", "rhel9"] {
        let stage = Stage::copy(&guest(variant).image);
        let report = stage.guestseal("seal --repair --json").expect(0).result();
        assert_eq!(report["repairs"], serde_json::json!([]));
        stage.guestseal("verify").expect(0);
    }
}

#[test]
fn what_cannot_be_repaired_stays_as_it_was() {
    if !ready_with_tools() {
        return;
    }
    let stage = Stage::copy(&guest("arch").image);
    debugfs(&stage.image, &["set_super_value state 2", "set_super_value free_blocks_count 7"]);
    stage.unchanged_by("seal --repair --in-place", 2).says(&["--repair", "--in-place"]);
    let before = stage.print();
    crate::host::without("e2fsck", "seal --repair", &stage).expect(7).says(&["e2fsck", "install e2fsprogs"]);
    assert_eq!(stage.print(), before);
    // A feature that this e2fsck does not know.
    debugfs(&stage.image, &["set_super_value feature_incompat 0x800002c2"]);
    stage.unchanged_by("seal --repair", 1).says(&["e2fsck -f -y failed", "exit code 8"]);
}

fn xfs_db(image: &Path, requests: &[&str]) {
    let words = requests.iter().flat_map(|request| ["-c", request]);
    tool("xfs_db", ["-x"].into_iter().chain(words).chain([image.to_str().unwrap()]));
}

fn overwrite(image: &Path, at: u64, bytes: &[u8]) {
    File::options().write(true).open(image).unwrap().write_all_at(bytes, at).unwrap();
}
