//! Looking changes nothing, and sees what came back.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use crate::common::{guestseal, ready};
use crate::guests::guest;
use crate::mounts::{Access, with_guest};
use crate::stage::{Stage, copy};

fn outcome(report: &serde_json::Value, name: &str) -> String {
    let operations = report["operations"].as_array().unwrap();
    let operation = operations.iter().find(|operation| operation["name"] == name).unwrap();
    operation["outcome"].as_str().unwrap().to_owned()
}

#[test]
fn inspect_and_dry_run_change_no_byte() {
    if !ready() {
        return;
    }
    let image = guest("arch").image;
    for format in ["raw", "qcow2", "vmdk", "vdi", "vhdx"] {
        let stage = Stage::convert(&image, format, &[]);
        let report = stage.unchanged_by("inspect --json", 0).result();
        assert_eq!(report["inspection"]["guest"]["os"]["id"], "arch");
        assert_eq!(outcome(&report, "bash-history"), "changed");
        let dry = stage.unchanged_by("seal --dry-run --json", 0).result();
        assert_eq!(outcome(&dry, "bash-history"), "changed");
        assert!(stage.unchanged_by("seal --dry-run", 0).stdout.contains("/root/.bash_history"));
    }
}

#[test]
fn a_folder_that_cannot_be_written_can_be_looked_at() {
    if !ready() {
        return;
    }
    let stage = Stage::copy(&guest("arch").image);
    fs::set_permissions(&stage.image, std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
    stage.unchanged_by("inspect", 0);
    stage.unchanged_by("inspect --attach fuse", 0);
}

/// A guest that was not shut down: copied while it was mounted and written.
fn with_dirty_journal(variant: &str) {
    if !ready() {
        return;
    }
    let clean = Stage::copy(&guest(variant).image);
    let report = clean.guestseal("inspect --json").expect(0).result();
    let stage = Stage::new("dirty.raw");
    with_guest(&clean.image, &report["inspection"], Access::Write, |root| {
        for number in 0..50 {
            fs::write(root.join(format!("tmp/late-{number}")), b"CANARY-late").unwrap();
        }
        File::open(root.join("tmp/late-49")).unwrap().sync_all().unwrap();
        copy(&clean.image, &stage.image);
    });
    stage.unchanged_by("inspect", 0);
    stage.unchanged_by("seal --dry-run", 0);
    let report = stage.guestseal("seal --json").expect(0).result();
    stage.guestseal("verify").expect(0);
    crate::mounts::check_filesystems(&stage.image, &report["inspection"]);
    with_guest(&stage.image, &report["inspection"], Access::Look, |root| {
        assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0, "what the journal held is sealed too");
    });
}

#[test]
fn a_dirty_ext4_is_looked_at_without_replay_and_sealed_with_it() {
    with_dirty_journal("arch");
}

#[test]
fn a_dirty_xfs_is_looked_at_without_replay_and_sealed_with_it() {
    with_dirty_journal("rhel9");
}

#[test]
fn verify_finds_what_came_back() {
    if !ready() {
        return;
    }
    let stage = Stage::copy(&guest("arch").image);
    let report = stage.guestseal("seal --json").expect(0).result();
    stage.unchanged_by("verify", 0);
    with_guest(&stage.image, &report["inspection"], Access::Write, |root| {
        fs::write(root.join("root/.bash_history"), b"mysql -u root -psecret\n").unwrap();
    });
    let ran = stage.unchanged_by("verify", 5);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(said.contains("/root/.bash_history") && said.contains("digest"), "{ran:#?}");
    let verdict = stage.unchanged_by("verify --json", 5).result();
    assert_eq!(verdict["sealed"], false);
    assert_eq!(verdict["digest-matches"], false);
    assert_eq!(verdict["found"][0]["name"], "bash-history");
    stage.guestseal("seal").expect(0);
    stage.guestseal("verify").expect(0);
}

#[test]
fn verify_finds_one_changed_byte() {
    if !ready() {
        return;
    }
    let stage = Stage::copy(&guest("alpine").image);
    stage.guestseal("seal").expect(0);
    // Behind the last partition: no operation could see it.
    let file = File::options().write(true).open(&stage.image).unwrap();
    file.write_all_at(b"!", file.metadata().unwrap().len() - 1000).unwrap();
    drop(file);
    let verdict = stage.unchanged_by("verify --json", 5).result();
    assert_eq!((&verdict["digest-matches"], &verdict["found"]), (&false.into(), &serde_json::json!([])));
}

#[test]
fn verify_needs_a_record() {
    if !ready() {
        return;
    }
    let stage = Stage::copy(&guest("arch").image);
    stage.unchanged_by("verify", 1).says(&[".seal.json", "what to do"]);
    stage.write("arch.raw.seal.json", 0o644, "{\"_type\": \"something else\"}");
    stage.unchanged_by("verify", 1).says(&[".seal.json"]);
}

#[test]
fn one_bad_image_does_not_keep_the_others_from_being_sealed() {
    if !ready() {
        return;
    }
    let stage = Stage::copy(&guest("arch").image);
    let bad = stage.write("bad.raw", 0o644, &"nothing\n".repeat(10_000));
    guestseal("seal", &[&bad, &stage.image]).expect(6).says(&["neither a partition table"]);
    stage.guestseal("verify").expect(0);
    assert!(!stage.path("bad.raw.seal.json").exists());
}
