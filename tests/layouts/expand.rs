//! `--expand` where the root lies on volume groups and encryption: both take the room, or are refused by name.

use serde_json::Value;

use crate::common::tool;
use crate::{Layout, ready};

const MORE: u64 = 64 << 20;

fn virtual_bytes(disk: &std::path::Path) -> u64 {
    let info = tool("qemu-img", ["info".as_ref(), "--output=json".as_ref(), disk]);
    serde_json::from_str::<Value>(&info).unwrap()["virtual-size"].as_u64().unwrap()
}

/// The root takes what the first disk got, nothing deleted can be read, and the filesystem's own checker finds nothing.
#[track_caller]
fn grows(name: &str, volume: &str) {
    if !ready() {
        return;
    }
    let layout = Layout::new(name);
    let sizes: Vec<u64> = layout.disks.iter().map(|disk| virtual_bytes(disk)).collect();
    let report = layout.guestseal("seal --json --expand +64M").expect(0).result();
    let expanded = &report["expanded"];
    assert_eq!(expanded["volume"], volume, "{expanded:#}");
    let bytes = |name: &str| expanded[name].as_u64().unwrap();
    let gained = bytes("filesystem-bytes-after") - bytes("filesystem-bytes-before");
    // Groups give whole extents, also those that were free before.
    assert!((MORE - (9 << 20)..=MORE + (40 << 20)).contains(&gained), "{expanded:#}");
    assert_eq!((bytes("from"), bytes("to")), (sizes[0], sizes[0] + MORE));
    let now: Vec<u64> = layout.disks.iter().map(|disk| virtual_bytes(disk)).collect();
    assert_eq!(now[0], sizes[0] + MORE);
    assert_eq!(now[1..], sizes[1..]);
    for volume in report["erasure"]["volumes"].as_array().unwrap() {
        assert_eq!(volume["bytes-nonzero"], 0, "{volume:#}");
    }
    assert!(layout.left().is_empty(), "{:?}", layout.left());
    let checked = layout.guestseal("seal --dry-run --repair --json").expect(0);
    assert_eq!(checked.result().get("repairs"), None, "growing left errors behind");
}

#[test]
fn a_logical_volume_takes_more_room() {
    grows("lvm", "/dev/mapper/vg0-root");
}

#[test]
fn a_volume_group_in_encryption_takes_more_room() {
    grows("lvm-on-luks", "/dev/mapper/debian--vg-root");
}

#[test]
fn what_is_not_linear_is_refused_by_name() {
    if !ready() {
        return;
    }
    for (name, says) in [("lvm-stripe", "it is striped, not linear"), ("md-raid1", "linux_raid_member")] {
        let layout = Layout::new(name);
        let before: Vec<_> = layout.disks.iter().map(|disk| crate::common::fingerprint(disk)).collect();
        layout.guestseal("seal --expand +64M").expect(6).says(&["cannot grow", says]);
        let after: Vec<_> = layout.disks.iter().map(|disk| crate::common::fingerprint(disk)).collect();
        assert_eq!(after, before);
    }
}
