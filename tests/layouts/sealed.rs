//! Each layout: sealed, verified, and nothing that was planted can be read in its files.

use serde_json::Value;

use crate::common::{GUESTSEAL, shell};
use crate::{Layout, ready};

/// Seals and verifies.
#[track_caller]
fn sealed(name: &str, options: &str) {
    if !ready() {
        return;
    }
    let layout = Layout::new(name);
    assert!(!layout.canaries().is_empty());
    let sealed = layout.guestseal(&format!("seal --json {options}")).expect(0);
    let report = sealed.result();
    let machine = !["second-disk-home", "two-systems", "btrfs-two-devices"].contains(&name);
    assert_eq!(report["attached"]["way"] == "vm", machine, "{}", report["attached"]);
    assert!(layout.left().is_empty(), "{:?}: {report:#}", layout.left());
    for volume in report["erasure"]["volumes"].as_array().unwrap() {
        assert_eq!(volume["bytes-nonzero"], 0, "{volume:#}");
        assert!(volume.get("unproven").is_none_or(serde_json::Value::is_null), "{volume:#}");
    }
    phases_are_told(&report, machine);
    let volumes = report["erasure"]["volumes"].as_array().unwrap();
    let pool = volumes.iter().find(|volume| volume["volume"] == "the thin pool vg0/pool");
    assert_eq!(pool.is_some(), name == "lvm-thin", "{}", report["erasure"]);
    // A volume was removed there, of which nothing but the pool knows.
    assert!(pool.is_none_or(|pool| pool["bytes-zeroed"].as_u64() > Some(0)), "{pool:?}");
    if VERIFIED.contains(&name) {
        layout.guestseal(&format!("verify {options}")).expect(0);
    }
    if CHECKED.contains(&name) {
        let checked = layout.guestseal(&format!("seal --dry-run --repair --json {options}")).expect(0);
        assert_eq!(checked.result().get("repairs"), None, "sealing left errors behind");
    }
}

/// The stages of a run are told with their times, those inside a machine too.
fn phases_are_told(report: &Value, machine: bool) {
    let phases = report["phases"].as_array().unwrap();
    let names: Vec<_> = phases.iter().map(|phase| phase["name"].as_str().unwrap()).collect();
    let (before, after): (&[&str], &[&str]) = if machine {
        // Attached to this host first, to see whether a machine is needed.
        (
            &["opening-images", "attaching", "preparing-machine", "starting-machine", "opening-volumes"],
            &["proving", "ending-machine", "searching-copies"],
        )
    } else {
        (&["opening-images", "attaching"], &["searching-copies", "proving"])
    };
    let middle = ["looking-for-guest", "mounting", "applying", "unmounting", "erasing"];
    assert_eq!(names, [before, &middle, after, &["writing", "hashing"]].concat());
    let seconds = |phase: &Value| phase["seconds"].as_f64().unwrap();
    assert!(phases.iter().all(|phase| seconds(phase) >= 0.0), "{phases:?}");
    let longest = phases.iter().find(|phase| phase["name"] == "starting-machine");
    assert!(longest.is_none_or(|phase| seconds(phase) > 0.05), "{phases:?}");
}

/// Of the others one of each family is checked by e2fsck or xfs_repair in a machine, on an overlay that is thrown away.
const CHECKED: [&str; 4] = ["lvm-stripe", "luks2", "md-raid10", "md-lvm"];

/// One of each family: verifying is another machine, and does not differ between those.
const VERIFIED: [&str; 5] = ["lvm-xfs-two-disks", "luks-on-lvm", "md-raid5", "btrfs-two-devices", "lvm-thin"];

macro_rules! layouts {
    ($($test:ident: $name:literal $(, $options:literal)?;)*) => {
        $(#[test]
        fn $test() {
            sealed($name, concat!($($options)?));
        })*
    };
}

layouts! {
    lvm_with_a_boot_partition: "lvm";
    lvm_over_two_disks_with_xfs: "lvm-xfs-two-disks";
    lvm_striped: "lvm-stripe";
    lvm_with_a_name_that_hosts_have: "lvm-host-name";
    luks1: "luks1";
    luks2: "luks2";
    lvm_on_luks: "lvm-on-luks";
    luks_on_lvm_with_a_binary_key: "luks-on-lvm";
    raid0: "md-raid0";
    raid1: "md-raid1";
    raid5: "md-raid5";
    raid10: "md-raid10";
    raid_with_lvm: "md-lvm";
    a_degraded_mirror: "md-raid1-degraded", "--degraded";
    btrfs_on_two_devices: "btrfs-two-devices";
    home_on_a_second_disk: "second-disk-home";
}

/// Chunks of the pool that were given back belong to no volume.
#[test]
fn lvm_thin() {
    sealed("lvm-thin", "");
}

#[test]
fn one_of_two_systems() {
    if !ready() {
        return;
    }
    let layout = Layout::new("two-systems");
    layout.guestseal("seal").expect(6).says(&["there are 2 operating systems", "--root"]);
    layout.guestseal("seal --root /dev/sda7").expect(2).says(&["--root /dev/sda7 names no volume"]);
    let before = layout.left();
    layout.guestseal("seal --root /dev/sda2").expect(0);
    let after = layout.left();
    assert!(after.len() < before.len() && after.iter().all(|kind| before.contains(kind)), "{after:?}");
    layout.guestseal("verify --root /dev/sda2").expect(0);
}

/// Also by a run that only looks, and for the second of two guests: standard input is read once.
#[test]
fn keys_from_standard_input() {
    if !ready() {
        return;
    }
    let mut layout = Layout::new("luks2");
    let key = layout.keys.pop().unwrap();
    let file = key.split_once(":file:").unwrap().1;
    for words in ["seal --dry-run --keys-from-stdin", "seal --keys-from-stdin", "verify --keys-from-stdin"] {
        shell(&format!("'{GUESTSEAL}' {} <'{file}'", layout.arguments(words).join(" ")));
    }
    let disk = layout.disks[0].display().to_string();
    let line = layout.arguments("inspect --keys-from-stdin").join(" ");
    let twice = line.replace(&format!("-a {disk}"), &format!("{disk} {disk}"));
    shell(&format!("'{GUESTSEAL}' {twice} <'{file}'"));
}

/// What can be mounted here, and is put into a machine all the same.
#[test]
fn a_plain_guest_in_a_machine() {
    if !ready() {
        return;
    }
    let layout = Layout::new("second-disk-home");
    let sealed = layout.guestseal("seal --json --isolate vm").expect(0).result();
    assert_eq!(
        (&sealed["attached"]["way"], &sealed["attached"]["reason"]),
        (&"vm".into(), &"as asked".into())
    );
    assert_eq!(layout.left(), Vec::<String>::new());
    layout.guestseal("verify --isolate vm").expect(0);
    layout.guestseal("verify").expect(0);
}
