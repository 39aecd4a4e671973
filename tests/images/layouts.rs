//! Partition tables, filesystems and where guests mount them.

use std::path::Path;

use serde_json::Value;

use crate::common::{Ran, ready};
use crate::disks::{Label, Volume, make_disk, volume};
use crate::formats::is_sealed;
use crate::stage::Stage;
use crate::variants::BTRFS;

const GPT: Label = Label(Some("gpt"), 512);
const MBR: Label = Label(Some("dos"), 512);
const BARE: Label = Label(None, 512);

fn stage(label: Label, volumes: &[Volume], fstab: &str) -> Stage {
    let stage = Stage::new("disk.raw");
    make_disk(&stage.image, label, volumes, fstab);
    stage
}

/// Seals the disk and checks that exactly these places were mounted.
fn seals(label: Label, volumes: &[Volume], fstab: &str, points: &[&str]) -> Option<(Stage, Ran)> {
    if !ready() {
        return None;
    }
    let btrfs = volumes.iter().any(|volume| volume.fs == "btrfs");
    let _one = btrfs.then(|| BTRFS.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    let stage = stage(label, volumes, fstab);
    let ran = stage.guestseal("seal --json").expect(0);
    let report = ran.result();
    assert_eq!(mounted(&report["inspection"]), points, "{:#}", report["inspection"]["layout"]);
    is_sealed(&stage.image, "raw", &report["inspection"]);
    stage.guestseal("verify").expect(0);
    Some((stage, ran))
}

fn mounted(inspection: &Value) -> Vec<String> {
    let layout = &inspection["layout"];
    let places = std::iter::once(&layout["root"]).chain(layout["others"].as_array().unwrap());
    let mut points: Vec<_> = places
        .map(|place| match place["subvolume"].as_str() {
            Some(name) => format!("{} from {name}", place["point"].as_str().unwrap()),
            None => place["point"].as_str().unwrap().to_owned(),
        })
        .collect();
    points.sort();
    points
}

#[test]
fn whole_disk_filesystems() {
    for (fs, mib) in [("ext2", 64), ("ext3", 64), ("ext4", 64), ("xfs", 320), ("btrfs", 128)] {
        seals(BARE, &[volume(mib, fs, "/", "UUID")], "", &["/"]);
    }
}

#[test]
fn mbr_with_logical_partitions() {
    let volumes = [
        volume(64, "ext4", "/boot", "/dev/sda1"),
        volume(260, "extended", "-", "-"),
        volume(96, "ext4", "/", "UUID"),
        volume(64, "ext3", "/home", "/dev/vda6"),
        volume(32, "swap", "-", "-"),
    ];
    seals(MBR, &volumes, "", &["/", "/boot", "/home"]);
}

#[test]
fn every_way_to_name_a_volume() {
    let volumes = [
        volume(96, "ext4", "/", "UUID"),
        volume(64, "ext4", "/usr", "PARTUUID"),
        volume(64, "ext4", "/var", "LABEL"),
        volume(64, "ext4", "/home", "PARTLABEL"),
        volume(64, "ext4", "/boot", "/dev/vda5"),
        volume(64, "ext4", "/srv", "/dev/nvme0n1p6"),
        volume(32, "swap", "-", "-"),
    ];
    seals(GPT, &volumes, "/dev/vda7 none swap sw 0 0\n", &["/", "/boot", "/home", "/srv", "/usr", "/var"]);
}

#[test]
fn sectors_of_4096_bytes() {
    let volumes = [volume(96, "ext4", "/", "UUID"), volume(320, "xfs", "/var", "LABEL")];
    let sealed = seals(Label(Some("gpt"), 4096), &volumes, "", &["/", "/var"]);
    let Some((stage, ran)) = sealed else { return };
    assert_eq!(ran.result()["inspection"]["storage"]["disks"][0]["table"]["sector-size"], 4096);
    drop(stage);
    let volumes = [
        volume(64, "ext4", "/boot", "UUID"),
        volume(128, "extended", "-", "-"),
        volume(96, "ext4", "/", "UUID"),
    ];
    seals(Label(Some("dos"), 4096), &volumes, "", &["/", "/boot"]);
}

#[test]
fn btrfs_as_ubuntu_has_it() {
    let volumes = [volume(128, "btrfs", "@ /,@home /home", "UUID")];
    seals(GPT, &volumes, "", &["/ from @", "/home from @home"]);
}

#[test]
fn btrfs_as_fedora_has_it() {
    let volumes = [volume(64, "ext4", "/boot", "UUID"), volume(128, "btrfs", "root /,home /home", "LABEL")];
    seals(GPT, &volumes, "", &["/ from root", "/boot", "/home from home"]);
}

#[test]
fn a_volume_that_is_not_there() {
    if !ready() {
        return;
    }
    let volumes = [volume(96, "ext4", "/", "UUID")];
    let gone = "UUID=0b8ef3a5-3b6f-4f3f-9d2f-5b3f1f1d9b10 /var ext4 defaults 0 2\n";
    stage(GPT, &volumes, gone).unchanged_by("seal", 6).says(&["/var", "what to do"]);
    let spared = gone.replace("defaults", "defaults,nofail");
    let (_, ran) = seals(GPT, &volumes, &spared, &["/"]).unwrap();
    ran.says(&["warning", "/var"]);
}

#[test]
fn an_efi_partition_without_vfat_is_said_and_no_harm() {
    let volumes = [volume(64, "vfat", "/boot/efi", "UUID"), volume(96, "ext4", "/", "UUID")];
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap();
    let vfat = filesystems.split_whitespace().any(|word| word == "vfat");
    let points: &[&str] = if vfat { &["/", "/boot/efi"] } else { &["/"] };
    let Some((_, ran)) = seals(GPT, &volumes, "", points) else { return };
    if !vfat {
        ran.says(&["/boot/efi", "vfat"]);
    }
}

#[test]
fn a_mount_point_that_is_a_link_stays_in_the_guest() {
    if !ready() {
        return;
    }
    let volumes = [volume(96, "ext4", "/", "UUID"), volume(64, "ext4", "/data", "LABEL")];
    let stage = stage(GPT, &volumes, "");
    let report = stage.guestseal("inspect --json").expect(0).result();
    crate::mounts::with_guest(&stage.image, &report["inspection"], crate::mounts::Access::Write, |root| {
        let fstab = std::fs::read_to_string(root.join("etc/fstab")).unwrap();
        std::fs::write(root.join("etc/fstab"), fstab.replace(" /data ", " /escape ")).unwrap();
        std::os::unix::fs::symlink("/../../../../var/tmp", root.join("escape")).unwrap();
    });
    let report = stage.guestseal("inspect --json").expect(0).result();
    let point = report["inspection"]["layout"]["others"][0]["point"].as_str().unwrap();
    assert!(Path::new(point).is_absolute(), "{point}");
    stage.guestseal("seal").expect(0);
    crate::leftovers::nothing_left(stage.folder(), std::time::Duration::ZERO);
}
