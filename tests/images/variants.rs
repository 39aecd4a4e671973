//! Every guest that scripts/make-guest makes: sealed, verified, sealed again, and held against what it was before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;

use crate::common::{ready, tool};
use crate::guests::{Canary, Guest, guest};
use crate::leftovers::nothing_left;
use crate::mounts::{Access, check_filesystems, export, holds, with_guest};
use crate::stage::Stage;

/// Secrets that stay without being asked for: users' crontabs are part of many templates, and an initiator name goes only
/// where something in the guest makes a new one.
const STAYS: [&str; 2] = ["cron-spool", "iscsi"];

/// The kernel does not like two mounted btrfs with one identity, which copies of one guest are.
pub(crate) static BTRFS: Mutex<()> = Mutex::new(());

/// What is known of a file without reading it: mode with its kind, owner, group, length, time of change.
type Facts = (u32, u32, u32, u64, (i64, i64));
type Tree = BTreeMap<PathBuf, Facts>;

fn tree(root: &Path) -> Tree {
    let files = walkdir::WalkDir::new(root).min_depth(1).into_iter();
    // openSUSE's root is itself a snapshot: below .snapshots it is seen a second time.
    let once = files.filter_entry(|file| file.file_name() != ".snapshots").map(Result::unwrap);
    let entries = once.map(|file| {
        let meta = file.path().symlink_metadata().unwrap();
        // A folder's length and time change with its entries.
        let content =
            if meta.is_dir() { (0, (0, 0)) } else { (meta.len(), (meta.mtime(), meta.mtime_nsec())) };
        let path = Path::new("/").join(file.path().strip_prefix(root).unwrap());
        (path, (meta.mode(), meta.uid(), meta.gid(), content.0, content.1))
    });
    entries.collect()
}

/// What the report of a run says it did, by path.
fn reported(report: &Value) -> BTreeMap<PathBuf, BTreeSet<String>> {
    let mut all: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for operation in report["operations"].as_array().unwrap() {
        for file in operation["files"].as_array().into_iter().flatten() {
            let action = file["action"].as_str().unwrap().to_owned();
            all.entry(PathBuf::from(file["path"].as_str().unwrap())).or_default().insert(action);
        }
    }
    all
}

/// Nothing may change that the report does not name; modes and owners never change.
fn only_the_reported_changed(before: &Tree, after: &Tree, report: &Value) {
    let reported = reported(report);
    let mut wrong = Vec::new();
    for (path, old) in before {
        match after.get(path) {
            None if path
                .ancestors()
                .any(|path| reported.get(path).is_some_and(|did| did.contains("remove"))) => {}
            None => wrong.push(format!("{} is gone, which the report does not say", path.display())),
            Some(new) if (new.0, new.1, new.2) != (old.0, old.1, old.2) => {
                wrong.push(format!("{}: mode or owner {old:?} became {new:?}", path.display()));
            }
            Some(new) if new != old && !reported.contains_key(path) => {
                wrong.push(format!("{} changed, which the report does not say", path.display()));
            }
            Some(_) => {}
        }
    }
    let added = after.keys().filter(|path| !before.contains_key(*path) && !reported.contains_key(*path));
    wrong.extend(added.map(|path| format!("{} is new, which the report does not say", path.display())));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// No secret that goes by default may stand where it was planted.
fn secrets_are_gone(root: &Path, canaries: &[Canary]) {
    let mut by_path: BTreeMap<&str, Vec<&Canary>> = BTreeMap::new();
    let by_default = |canary: &&Canary| canary.by_default && !STAYS.contains(&canary.kind.as_str());
    for canary in canaries.iter().filter(by_default) {
        by_path.entry(canary.path.as_deref().unwrap_or_default()).or_default().push(canary);
    }
    by_path.remove("");
    assert!(by_path.len() > 50, "hardly any secret was planted in a file");
    let mut left = Vec::new();
    for (path, canaries) in by_path {
        let file = root.join(path.trim_start_matches('/'));
        left.extend(
            canaries
                .iter()
                .filter(|canary| holds(&file, canary.marker.as_bytes()))
                .map(|canary| (path, &canary.kind)),
        );
        if canaries.iter().any(|canary| path.contains(&canary.marker)) && file.exists() {
            left.push((path, &canaries[0].kind));
        }
    }
    left.dedup();
    assert!(left.is_empty(), "secrets are left: {left:#?}");
}

/// Files that nobody asked to remove stay, with what is in them.
fn the_rest_is_kept(root: &Path, canaries: &[Canary]) {
    for canary in canaries.iter().filter(|canary| !canary.by_default) {
        let path = canary.path.as_deref().unwrap();
        let file = root.join(path.trim_start_matches('/'));
        assert!(holds(&file, canary.marker.as_bytes()), "{path} ({}) is lost", canary.kind);
    }
}

/// Files that services do not make again are emptied, never removed.
fn services_find_their_files(before: &Tree, after: &Tree, variant: &str) {
    for record in ["/var/log/wtmp", "/var/log/btmp", "/var/log/lastlog"].map(Path::new) {
        let Some(old) = before.get(record) else { continue };
        let new = after.get(record).unwrap_or_else(|| panic!("{} is gone", record.display()));
        assert_eq!((new.0, new.1, new.2, new.3), (old.0, old.1, old.2, 0), "{}", record.display());
    }
    for folder in
        ["/var/log", "/var/log/nginx", "/var/log/journal", "/tmp", "/var/tmp", "/etc/ssh"].map(Path::new)
    {
        assert_eq!(after.get(folder), before.get(folder), "{}", folder.display());
    }
    assert_ne!(
        after[Path::new("/var/log/journal")].0 & 0o2000,
        0,
        "the journal's folder lost its setgid bit"
    );
    assert_ne!(after[Path::new("/tmp")].0 & 0o1000, 0, "/tmp lost its sticky bit");
    let (shadow, old) = (after[Path::new("/etc/shadow")], before[Path::new("/etc/shadow")]);
    assert_eq!((shadow.0, shadow.1, shadow.2), (old.0, old.1, old.2), "/etc/shadow");
    assert!(shadow.3 > 0, "/etc/shadow is empty");
    if ["fedora", "rhel6", "rhel9"].contains(&variant) {
        assert_eq!(shadow.0 & 0o7777, 0, "/etc/shadow");
    }
}

fn the_machine_id_is_unset(root: &Path, report: &Value, canaries: &[Canary]) {
    let id = fs::read(root.join("etc/machine-id"));
    if report["inspection"]["guest"]["init"] == "systemd" {
        assert_eq!(id.unwrap(), b"", "systemd fills an empty /etc/machine-id, and only that");
    } else {
        assert!(id.is_err(), "without systemd nothing fills an empty /etc/machine-id");
    }
    let old = canaries.iter().find(|canary| canary.kind == "machine-id").unwrap();
    for file in
        walkdir::WalkDir::new(root.join("etc")).into_iter().chain(walkdir::WalkDir::new(root.join("var/lib")))
    {
        let file = file.unwrap();
        let known = file.file_type().is_file() && holds(file.path(), old.marker.as_bytes());
        assert!(!known, "{} still holds the machine id", file.path().display());
    }
}

fn second_run_changes_nothing(stage: &Stage) {
    let report = stage.guestseal("seal --json --digest none").expect(0).result();
    for operation in report["operations"].as_array().unwrap() {
        assert_ne!(operation["outcome"], "changed", "{operation:#}");
    }
}

fn files_of(image: &Path, inspection: &Value) -> Tree {
    let format = if image.extension().is_some_and(|end| end == "qcow2") { "qcow2" } else { "raw" };
    let scratch = tempfile::tempdir_in("/var/tmp").unwrap();
    let link = scratch.path().join("guest.img");
    std::os::unix::fs::symlink(image, &link).unwrap();
    with_guest(&export(&link, format), inspection, Access::Look, tree)
}

fn seals(variant: &str) {
    if !ready() {
        return;
    }
    let Guest { image, canaries } = guest(variant);
    let _one =
        variant_uses_btrfs(variant).then(|| BTRFS.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    let stage = Stage::copy(&image);
    let report = stage.guestseal("seal --json").expect(0).result();
    let before = files_of(&image, &report["inspection"]);
    stage.guestseal("verify").expect(0);
    let format = report["input"]["format"].as_str().unwrap();
    if format == "qcow2" {
        tool("qemu-img", ["check", "-q", "-f", format, stage.image.to_str().unwrap()]);
    }
    let raw = export(&stage.image, format);
    check_filesystems(&raw, &report["inspection"]);
    with_guest(&raw, &report["inspection"], Access::Look, |root| {
        let after = tree(root);
        assert!(after.len() > 100, "{variant} has hardly any files");
        secrets_are_gone(root, &canaries);
        the_rest_is_kept(root, &canaries);
        services_find_their_files(&before, &after, variant);
        the_machine_id_is_unset(root, &report, &canaries);
        only_the_reported_changed(&before, &after, &report);
    });
    second_run_changes_nothing(&stage);
    nothing_left(stage.folder(), Duration::ZERO);
}

fn variant_uses_btrfs(variant: &str) -> bool {
    ["debian12-btrfs", "fedora", "opensuse"].contains(&variant)
}

macro_rules! variants {
    ($($name:ident: $variant:literal;)*) => { $(#[test] fn $name() { seals($variant); })* };
}

variants! {
    seals_alpine: "alpine";
    seals_arch: "arch";
    seals_debian12: "debian12";
    seals_debian12_btrfs: "debian12-btrfs";
    seals_debian12_cloud: "debian12-cloud";
    seals_debian12_sysvinit: "debian12-sysvinit";
    seals_debian12_xfs: "debian12-xfs";
    seals_debian13: "debian13";
    seals_debian13_split: "debian13-split";
    seals_fedora: "fedora";
    seals_opensuse: "opensuse";
    seals_rhel6: "rhel6";
    seals_rhel9: "rhel9";
}
