//! New UUIDs for what lies below filesystems, and for these: the guest's names for them are mended, and it is found again.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{Layout, ready};

const ALL: &str = "fs-uuids,lvm-uuids,luks-uuids,md-uuids";

/// All UUIDs of an inspected guest, and the names by which its files may know its devices.
fn uuids(inspection: &Value) -> BTreeSet<String> {
    let volumes = inspection["storage"]["volumes"].as_array().unwrap().iter();
    let own = volumes.filter_map(|volume| volume["superblock"]["uuid"].as_str());
    let disks = inspection["storage"]["disks"].as_array().unwrap().iter();
    let names = disks.filter_map(|disk| disk["made"]["names"].as_array()).flatten().filter_map(Value::as_str);
    let by_uuid = names.filter(|name| name.contains("dm-uuid-LVM-") || name.contains("md-uuid-"));
    own.chain(by_uuid).map(str::to_owned).collect()
}

/// Seals with new UUIDs; `kinds` are the words that notes have for what got one.
#[track_caller]
fn renewed(name: &str, kinds: &[&str]) {
    if !ready() {
        return;
    }
    let layout = Layout::new(name);
    let seen = layout.guestseal(&format!("seal --dry-run --json --operations {ALL}")).expect(0).result();
    let before = uuids(&seen["inspection"]);
    let report = layout.guestseal(&format!("seal --json --operations defaults,{ALL}")).expect(0).result();
    let operations = report["operations"].as_array().unwrap();
    let notes = |report: &Value| report["notes"].to_string();
    let said: String = operations.iter().map(notes).collect();
    for kind in kinds {
        assert!(said.contains(kind), "no {kind} in {said}");
    }
    assert!(layout.left().is_empty());
    for volume in report["erasure"]["volumes"].as_array().unwrap() {
        assert_eq!(volume["bytes-nonzero"], 0, "{volume:#}");
    }
    // Mounted by what its fstab says now, with all below.
    let after = layout.guestseal("verify --json").expect(0).result();
    assert_eq!(after["sealed"], true, "{after:#}");
    let now = layout.guestseal("inspect --json").expect(0).result();
    let both: Vec<_> = before.intersection(&uuids(&now["inspection"])).cloned().collect();
    assert!(both.is_empty(), "these have not changed: {both:?}");
    let points = |of: &Value| of["inspection"]["layout"]["others"].as_array().map(Vec::len);
    assert_eq!(points(&now), points(&seen), "{now:#}");
}

#[test]
fn lvm_on_luks() {
    renewed("lvm-on-luks", &["ext4 on", "crypto_LUKS on", "physical volume on", "the volume group"]);
}

#[test]
fn raid_with_lvm() {
    renewed("md-lvm", &["ext4 on", "the array on", "physical volume on", "the volume group"]);
}

#[test]
fn raid5_by_its_id() {
    renewed("md-raid5", &["the array on"]);
}

#[test]
fn btrfs_on_two_devices() {
    renewed("btrfs-two-devices", &["btrfs on"]);
}
