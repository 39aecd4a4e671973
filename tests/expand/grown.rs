//! Guests of every kind get more room, by every way of writing the result.

use serde_json::Value;

use crate::common::{guestseal, on_path, require, tool};
use crate::disks::{Label, Volume, volume};
use crate::kernel::kernel;
use crate::rig::{BARE, GPT, Image, MBR, MIB, USUAL, can_run, virtual_bytes};

/// Grows by 192 MiB; the filesystem that is named then fills its volume, which reaches to the end of the disk.
#[track_caller]
fn grows(label: Label, volumes: &[Volume], format: &'static str, words: &str) -> Option<Value> {
    if !can_run() {
        return None;
    }
    let image = Image::new(label, volumes, format);
    let before = image.bytes();
    let report = image.guestseal(&format!("seal --json --expand +192M {words}")).expect(0).result();
    let expanded = &report["expanded"];
    assert_eq!((&expanded["from"], &expanded["to"]), (&before.into(), &(before + 192 * MIB).into()));
    assert_eq!(image.bytes(), before + 192 * MIB);
    let (was, is) = (&expanded["filesystem-bytes-before"], &expanded["filesystem-bytes-after"]);
    let gained = is.as_u64().unwrap() - was.as_u64().unwrap();
    assert!((185 * MIB..197 * MIB).contains(&gained), "{expanded:#}");
    let record = std::fs::read_to_string(image.path.with_extension(format!("{format}.seal.json"))).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(&record["predicate"]["expanded"], expanded);
    for volume in report["erasure"]["volumes"].as_array().unwrap() {
        assert_eq!(volume["bytes-nonzero"], 0, "{volume:#}");
    }
    image.is_whole(label, &report["inspection"]);
    Some(report)
}

#[test]
fn ext4_in_a_gpt() {
    let Some(report) = grows(GPT, &USUAL, "qcow2", "") else { return };
    assert_eq!(report["expanded"]["volume"], "partition 2");
    assert_eq!(report["expanded"]["filesystem"], "ext4");
    let table = &report["inspection"]["storage"]["disks"][0]["table"];
    let end = table["partitions"][1]["start"].as_u64().unwrap()
        + table["partitions"][1]["length"].as_u64().unwrap();
    assert_eq!(end, report["expanded"]["to"].as_u64().unwrap() - MIB);
}

#[test]
fn xfs_in_a_gpt() {
    grows(GPT, &[volume(32, "ext4", "/boot", "UUID"), volume(320, "xfs", "/", "UUID")], "raw", "");
}

#[test]
fn btrfs_with_subvolumes() {
    grows(GPT, &[volume(160, "btrfs", "@ /,@home /home", "UUID")], "qcow2", "");
}

#[test]
fn a_logical_partition_of_an_mbr() {
    let volumes = [
        volume(32, "ext4", "/boot", "UUID"),
        volume(83, "extended", "-", "-"),
        volume(16, "swap", "-", "-"),
        volume(64, "ext3", "/", "UUID"),
    ];
    let Some(report) = grows(MBR, &volumes, "raw", "") else { return };
    assert_eq!(report["expanded"]["volume"], "partition 6");
}

#[test]
fn a_primary_partition_of_an_mbr() {
    grows(MBR, &[volume(64, "ext4", "/", "UUID")], "qcow2", "");
}

#[test]
fn a_filesystem_without_a_table() {
    for (fs, mib) in [("ext2", 64), ("xfs", 320)] {
        grows(BARE, &[volume(mib, fs, "/", "UUID")], "raw", "");
    }
}

#[test]
fn sectors_of_4096_bytes() {
    grows(Label(Some("gpt"), 4096), &USUAL, "raw", "");
}

/// There the kernel has a device for the partition, which it has to be told of.
#[test]
fn a_partition_in_a_machine() {
    let machine = require(on_path("qemu-system-x86_64"), "needs qemu-system-x86_64")
        && require(kernel().exists(), "no kernel for virtual machines: run scripts/setup");
    let words = format!("--isolate vm --kernel {}", kernel().display());
    let Some(report) = machine.then(|| grows(GPT, &USUAL, "qcow2", &words)).flatten() else { return };
    assert_eq!(report["attached"]["way"], "vm");
}

#[test]
fn another_volume_by_its_mount_point() {
    let volumes = [volume(64, "ext4", "/", "UUID"), volume(32, "ext4", "/srv", "UUID")];
    let Some(report) = grows(GPT, &volumes, "qcow2", "--expand-volume /srv") else { return };
    assert_eq!(report["expanded"]["volume"], "partition 2");
}

/// The image was made longer before, by other means.
#[test]
fn a_disk_that_is_longer_already() {
    if !can_run() {
        return;
    }
    let image = Image::new(GPT, &USUAL, "qcow2");
    tool("qemu-img", ["resize", "-q", image.path.to_str().unwrap(), "+64M"]);
    let bytes = image.bytes();
    let looked = image.guestseal(&format!("seal --dry-run --expand {bytes}")).expect(0);
    assert!(looked.stdout.contains("would be expanded: the disk stays at"), "{looked:#?}");
    let ran = image.guestseal("seal --json --expand +0").expect(0);
    let report = ran.result();
    let expanded = &report["expanded"];
    assert_eq!((&expanded["from"], &expanded["to"]), (&bytes.into(), &bytes.into()));
    assert!(expanded["filesystem-bytes-after"].as_u64() > expanded["filesystem-bytes-before"].as_u64());
    image.is_whole(GPT, &report["inspection"]);
    let again = image.guestseal("seal --expand +0").expect(0);
    assert!(again.stdout.contains("fills it already"), "{again:#?}");
}

/// What cannot grow itself can be written to something that is larger.
#[test]
fn into_a_new_file() {
    if !can_run() {
        return;
    }
    let image = Image::new(GPT, &USUAL, "vmdk");
    let (before, new) = (image.print(), image.folder.path().join("new.qcow2"));
    let report = guestseal("seal --json --expand 400M --output-format qcow2 --output", &[&new, &image.path]);
    let report = report.expect(0).result();
    assert_eq!((virtual_bytes(&new), &report["expanded"]["to"]), (400 * MIB, &(400 * MIB).into()));
    guestseal("verify", &[&new]).expect(0);
    assert_eq!(image.print().0, before.0);
    let grown = Image { path: new, format: "qcow2", folder: image.folder };
    grown.is_whole(GPT, &report["inspection"]);
}

#[test]
fn a_thin_layer_grows_and_what_is_below_stays() {
    if !can_run() {
        return;
    }
    let base = Image::new(GPT, &USUAL, "qcow2");
    let thin = base.folder.path().join("thin.qcow2");
    let words = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "guest.qcow2", thin.to_str().unwrap()];
    tool("qemu-img", words);
    let (before, bytes) = (crate::common::fingerprint(&base.path), base.bytes());
    let words = "seal --json --allow-backing --allow-unproven --expand +128M";
    let report = guestseal(words, &[&thin]).expect(0).result();
    assert_eq!((virtual_bytes(&thin), base.bytes()), (bytes + 128 * MIB, bytes));
    assert_eq!(crate::common::fingerprint(&base.path), before);
    guestseal("verify --allow-backing", &[&thin]).expect(0);
    let whole = base.folder.path().join("whole.raw");
    let words = ["convert", "-q", "-O", "raw", thin.to_str().unwrap(), whole.to_str().unwrap()];
    tool("qemu-img", words);
    crate::mounts::check_filesystems(&whole, &report["inspection"]);
}

/// It is told what would grow, and done on what is thrown away.
#[test]
fn looking_and_rehearsing_change_nothing() {
    if !can_run() {
        return;
    }
    let image = Image::new(GPT, &USUAL, "qcow2");
    let before = image.print();
    let seen = image.guestseal("seal --dry-run --json --expand +64M").expect(0).result();
    assert_eq!(seen["expanded"]["volume"], "partition 2");
    assert_eq!(seen["expanded"].get("filesystem-bytes-after"), None);
    let rehearsed = image.guestseal("seal --rehearse --json --expand +64M").expect(0).result();
    let expanded = &rehearsed["expanded"];
    assert!(expanded["filesystem-bytes-after"].as_u64() > expanded["filesystem-bytes-before"].as_u64());
    assert_eq!(image.print(), before);
}
