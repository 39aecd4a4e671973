//! Guests on several disks: `-a` repeated.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::common::{GUESTSEAL, Ran, fingerprint, guestseal, ready, run, tool};
use crate::leftovers::nothing_left;
use crate::mounts::export;
use crate::pair::{home_is_sealed, lines_left, make_pair};
use crate::stage::Stage;

/// Runs guestseal on the disks of one guest.
#[track_caller]
fn on(words: &str, disks: &[&Path]) -> Ran {
    let words = words.split_whitespace().map(PathBuf::from);
    run(GUESTSEAL, words.chain(disks.iter().flat_map(|disk| ["-a".into(), disk.to_path_buf()])))
}

fn record_of(image: &Path) -> PathBuf {
    let mut path = image.as_os_str().to_owned();
    path.push(".seal.json");
    path.into()
}

fn pair(formats: [&str; 2]) -> (Stage, [PathBuf; 2]) {
    let mut stage = Stage::new("root");
    let disks = make_pair(stage.folder(), formats);
    stage.image.clone_from(&disks[0]);
    assert!(lines_left(&disks).iter().all(|lines| *lines > 400), "{:?}", lines_left(&disks));
    (stage, disks)
}

fn names(stage: &Stage) -> Vec<String> {
    stage.print().names.into_iter().map(|name| name.into_string().unwrap()).collect()
}

/// Both disks are sealed, by their own bytes and by what guestseal says of them.
#[track_caller]
fn is_sealed(stage: &Stage, disks: &[PathBuf; 2], formats: [&str; 2]) {
    let [root, home] = disks;
    assert_eq!(lines_left(disks), [0; 3], "deleted lines can be read back");
    let raw = export(home, formats[1]);
    home_is_sealed(&raw);
    if raw != *home {
        fs::remove_file(raw).unwrap();
    }
    for (image, format) in disks.iter().zip(formats).filter(|(_, format)| *format != "raw") {
        tool("qemu-img", ["check", "-q", "-f", format, image.to_str().unwrap()]);
    }
    on("verify", &[root, home]).expect(0);
    guestseal("verify --residue", &[root, home]).expect(0);
    nothing_left(stage.folder(), Duration::ZERO);
}

fn seals(formats: [&str; 2], words: &str) {
    if !ready() {
        return;
    }
    let (stage, disks) = pair(formats);
    let [root, home] = &disks;
    let before = names(&stage);
    let looked = on("seal --dry-run --json", &[root, home]).expect(0).result();
    assert_eq!(looked["image"][1]["format"], formats[1], "{:#}", looked["image"]);
    assert_eq!(names(&stage), before);
    let report = on(&format!("seal --json {words}"), &[root, home]).expect(0).result();
    let points: Vec<_> = report["inspection"]["layout"]["others"]
        .as_array()
        .unwrap()
        .iter()
        .map(|place| &place["point"])
        .collect();
    assert_eq!(points, ["/home"], "{:#}", report["inspection"]["layout"]);
    assert_eq!(report["disks"][1]["image"], home.to_str().unwrap());
    is_sealed(&stage, &disks, formats);
    let record: Value = serde_json::from_slice(&fs::read(record_of(root)).unwrap()).unwrap();
    for (index, disk) in disks.iter().enumerate() {
        let name = disk.file_name().unwrap().to_str().unwrap();
        let digest = tool("sha256sum", [disk]);
        let subject = &record["subject"][index];
        assert_eq!(subject["name"], name);
        assert_eq!(subject["digest"]["sha256"], digest.split(' ').next().unwrap());
        assert_eq!(report["disks"][index]["sha256"], subject["digest"]["sha256"]);
        assert_eq!(record["predicate"]["input"][index]["name"], name);
        assert_eq!(record["predicate"]["input"][index]["format"], formats[index]);
    }
    let record = record_of(root).file_name().unwrap().to_str().unwrap().to_owned();
    let mut wanted = [before, vec![record]].concat();
    wanted.sort();
    assert_eq!(names(&stage), wanted, "more than the images and one record");
    // The second time nothing is left to do.
    let again = on("inspect --json", &[home, root]).expect(0).result();
    for operation in again["operations"].as_array().unwrap() {
        assert_ne!(operation["outcome"], "changed", "{operation:#}");
    }
}

#[test]
fn raw_and_qcow2() {
    seals(["raw", "qcow2"], "");
}

#[test]
fn qcow2_and_raw_in_place() {
    seals(["qcow2", "raw"], "--in-place");
}

#[test]
fn raw_and_raw_in_place_by_loop() {
    seals(["raw", "raw"], "--in-place --attach loop");
}

#[test]
fn the_order_does_not_matter() {
    if !ready() {
        return;
    }
    let (stage, disks) = pair(["qcow2", "raw"]);
    let [root, home] = &disks;
    on("seal", &[home, root]).expect(0);
    assert!(record_of(home).exists() && !record_of(root).exists(), "the record is beside the first");
    is_sealed(&stage, &disks, ["qcow2", "raw"]);
    on("verify", &[home, root]).expect(0);
}

#[test]
fn a_disk_that_is_missing_or_another() {
    if !ready() {
        return;
    }
    let (stage, [root, home]) = pair(["raw", "qcow2"]);
    let alone = stage.unchanged_by("seal", 6);
    alone.says(&["/home", "what to do"]);
    let prints = || (fingerprint(&root), fingerprint(&home), names(&stage));
    let before = prints();
    on("seal", &[&root, &root]).expect(2).says(&["named twice"]);
    on("inspect", &[&root, &root]).expect(2).says(&["named twice"]);
    on("verify", &[&home, &home]).expect(2).says(&["named twice"]);
    let link = stage.path("link.raw");
    std::os::unix::fs::symlink(&root, &link).unwrap();
    on("seal", &[&root, &link]).expect(2).says(&["are one image"]);
    fs::remove_file(&link).unwrap();
    let new = stage.path("new.raw");
    let output = format!("seal --output {}", new.display());
    on(&output, &[&root, &home]).expect(2).says(&["one image at a time", "what to do"]);
    on("seal --attach loop --in-place", &[&root, &home]).expect(2).says(&["--attach loop"]);
    on("seal", &[&root, &stage.path("nobody.raw")]).expect(1).says(&["nobody.raw"]);
    assert_eq!(prints(), before);
    on("seal", &[&root, &home]).expect(0);
    let before = prints();
    guestseal("verify", &[&root]).expect(2).says(&["2 disks, root.raw, home.qcow2", "home.qcow2 is missing"]);
    guestseal("verify", &[&home]).expect(1).says(&["cannot read the record", "beside the first"]);
    // Another disk in place of the second: an old copy, an empty one.
    let other = stage.path("other.raw");
    fs::File::create(&other).unwrap().set_len(64 << 20).unwrap();
    on("verify", &[&root, &other]).expect(6).says(&["other.raw is not the disk home.qcow2 that was sealed"]);
    let copy = stage.path("copy.qcow2");
    fs::copy(&home, &copy).unwrap();
    on("verify", &[&root, &copy]).expect(0);
    fs::rename(&copy, &home).unwrap();
    fs::remove_file(&other).unwrap();
    assert_eq!(prints(), before);
    // One of its files is back.
    let raw = export(&home, "qcow2");
    tool("debugfs", [Path::new("-wR"), Path::new("write /etc/hostname alice/.bash_history"), &raw]);
    let words = ["convert", "-q", "-f", "raw", "-O", "qcow2"].map(Path::new);
    tool("qemu-img", words.into_iter().chain([raw.as_path(), &home]));
    on("verify", &[&root, &home]).expect(5).says(&["home.qcow2 is not the file that was sealed"]);
}
