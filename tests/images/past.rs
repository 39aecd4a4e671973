//! Images that hold more of their guest's past than their disk: snapshots, bitmaps, backing files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::common::{Ran, fingerprint, guestseal, ready, shell, tool};
use crate::formats::is_sealed;
use crate::guests::guest;
use crate::leftovers::nothing_left;
use crate::stage::Stage;

/// A stretch near the end of the guest's disk that no file has, and what stands there for a while.
const AT: &str = "1M";
const MARKER: &str = "DELETED-LONG-AGO";

fn qemu_img(words: &str, paths: &[&Path]) -> String {
    let words = words.split_whitespace().map(PathBuf::from);
    tool("qemu-img", words.chain(paths.iter().map(|path| path.to_path_buf())))
}

/// Writes to a free part of the disk in an image: the marker over and over, or zeros that take no room.
fn write(image: &Path, what: &str) {
    let pattern = image.with_file_name("pattern");
    std::fs::write(&pattern, MARKER.repeat(256)).unwrap();
    let size: Value = serde_json::from_str(&qemu_img("info --output=json", &[image])).unwrap();
    let at = size["virtual-size"].as_u64().unwrap() - (4 << 20);
    let command = match what {
        "marker" => format!("write -s {} {at} {AT}", pattern.display()),
        _ => format!("write -z -u {at} {AT}"),
    };
    let said = tool("qemu-io", ["-f", "qcow2", "-c", &command, image.to_str().unwrap()]);
    assert!(said.starts_with("wrote"), "{said}");
    std::fs::remove_file(pattern).unwrap();
}

fn markers(file: &Path) -> u64 {
    shell(&format!("{{ grep -ao {MARKER} {} || true; }} | wc -l", file.display())).trim().parse().unwrap()
}

/// An image with the marker in a snapshot, and with bitmaps.
fn with_snapshots(options: &[&str]) -> Stage {
    let stage = Stage::convert(&guest("arch").image, "qcow2", options);
    write(&stage.image, "marker");
    qemu_img("snapshot -c before", &[&stage.image]);
    write(&stage.image, "zeros");
    qemu_img("snapshot -c -odd", &[&stage.image]);
    if !options.contains(&"compat=0.10") {
        let image = stage.image.to_str().unwrap();
        tool("qemu-img", ["bitmap", "--add", image, "dirty"]);
        tool("qemu-img", ["bitmap", "--add", "--disable", "--", image, "-x"]);
    }
    assert!(markers(&stage.image) > 60_000);
    stage
}

fn has_no_past(image: &Path) {
    let facts: Value = serde_json::from_str(&qemu_img("info --output=json", &[image])).unwrap();
    assert!(facts["snapshots"].is_null() && facts["backing-filename"].is_null(), "{facts:#}");
    assert!(facts["format-specific"]["data"]["bitmaps"].is_null(), "{facts:#}");
    qemu_img("check -q", &[image]);
    assert_eq!(markers(image), 0);
}

fn container(ran: &Ran) -> Value {
    let container = ran.result()["container"].take();
    assert_eq!(container["bytes-nonzero"], 0, "{container:#}");
    container
}

fn drops_snapshots(options: &[&str], words: &str) {
    if !ready() {
        return;
    }
    let stage = with_snapshots(options);
    let plan = stage.unchanged_by("seal --dry-run --drop-snapshots", 0);
    assert!(plan.stdout.contains("nothing is changed"));
    let ran = stage.guestseal(&format!("seal --json --drop-snapshots {words}")).expect(0);
    container(&ran);
    has_no_past(&stage.image);
    stage.guestseal("verify").expect(0);
    is_sealed(&stage.image, "qcow2", &ran.result()["inspection"]);
    assert_eq!(stage.print().names.len(), 2, "{:?}", stage.print());
    nothing_left(stage.folder(), Duration::ZERO);
}

#[test]
fn snapshots_are_dropped_in_the_commit() {
    drops_snapshots(&[], "");
}

#[test]
fn snapshots_of_an_old_image_are_dropped() {
    drops_snapshots(&["-o", "compat=0.10"], "");
}

#[test]
fn snapshots_of_large_clusters_are_dropped() {
    drops_snapshots(&["-o", "cluster_size=2M,extended_l2=on"], "");
}

#[test]
fn snapshots_are_dropped_in_place() {
    drops_snapshots(&[], "--in-place");
}

#[test]
fn a_new_file_has_no_snapshots() {
    if !ready() {
        return;
    }
    let stage = with_snapshots(&[]);
    let before = stage.print();
    let new = stage.path("new.qcow2");
    let ran = guestseal("seal --json --drop-snapshots --output", &[&new, &stage.image]).expect(0);
    let container = container(&ran);
    assert_eq!(container["bytes-zeroed"], 0, "qemu-img writes nothing else: {container:#}");
    has_no_past(&new);
    is_sealed(&new, "qcow2", &ran.result()["inspection"]);
    let after = stage.print();
    assert_eq!(after.names.len(), 3, "{after:?}");
    for name in ["new.qcow2", "new.qcow2.seal.json"] {
        std::fs::remove_file(stage.path(name)).unwrap();
    }
    assert_eq!(stage.print(), before);
}

#[test]
fn damaged_snapshots_are_refused_before_anything_is_done() {
    if !ready() {
        return;
    }
    let stage = with_snapshots(&[]);
    let image = std::fs::File::options().write(true).open(&stage.image).unwrap();
    // Where their table is: on the table of counts.
    std::os::unix::fs::FileExt::write_all_at(&image, &(64u64 << 10).to_be_bytes(), 64).unwrap();
    stage
        .unchanged_by("seal --drop-snapshots", 6)
        .says(&["snapshots cannot be removed", "qemu-img check -r"]);
}

/// A guest's disk as a base, and thin images over it one above the other; the marker is in the base and hidden.
fn thin(options: &str, layers: usize) -> (Stage, Vec<PathBuf>) {
    let base = Stage::convert(&guest("arch").image, "qcow2", &[]);
    write(&base.image, "marker");
    let mut files = vec![base.path("base")];
    std::fs::rename(&base.image, &files[0]).unwrap();
    for layer in 0..layers {
        let below = files.last().unwrap().clone();
        let this = if layer + 1 == layers { base.image.clone() } else { base.path(&format!("layer{layer}")) };
        let name = below.file_name().unwrap().to_str().unwrap();
        let words = format!("create -q -f qcow2 {options} -F qcow2 -b {name}");
        qemu_img(&words, &[&this]);
        files.push(this);
    }
    write(&base.image, "zeros");
    files.pop();
    (base, files)
}

#[test]
fn a_thin_image_is_flattened_into_a_new_file() {
    if !ready() {
        return;
    }
    for (format, more) in [("qcow2", ""), ("raw", "--output-format raw"), ("qcow2", "--compress")] {
        let (stage, files) = thin("", 2);
        let before: Vec<_> = files.iter().chain([&stage.image]).map(|file| fingerprint(file)).collect();
        let new = stage.path("new.img");
        let words = format!("seal --json --flatten {more} --output");
        let ran = guestseal(&words, &[&new, &stage.image]).expect(0);
        container(&ran);
        assert!(ran.result()["input"]["holds"].is_null(), "nothing is held by a whole image");
        assert_eq!(markers(&new), 0);
        for file in &files {
            std::fs::rename(file, file.with_extension("away")).unwrap();
        }
        guestseal("verify", &[&new]).expect(0);
        is_sealed(&new, format, &ran.result()["inspection"]);
        if format == "qcow2" {
            has_no_past(&new);
        }
        let away = files.iter().map(|file| file.with_extension("away"));
        let after: Vec<_> = away.chain([stage.image.clone()]).map(|file| fingerprint(&file)).collect();
        assert_eq!(after, before);
        nothing_left(stage.folder(), Duration::ZERO);
    }
}

fn seals_the_layer_alone(options: &str, layers: usize, words: &str) {
    if !ready() {
        return;
    }
    let (stage, files) = thin(options, layers);
    let before: Vec<_> = files.iter().map(|file| fingerprint(file)).collect();
    stage.unchanged_by("seal --dry-run --allow-backing", 0);
    let ran = stage.guestseal(&format!("seal --json --allow-backing {words}")).expect(0);
    container(&ran);
    let report = ran.result();
    let holds = report["input"]["holds"].as_array().unwrap();
    assert_eq!(holds.len(), layers);
    assert!(holds.last().unwrap().as_str().unwrap().contains("backing file base still holds"), "{holds:?}");
    ran.says(&["backing file base still holds"]);
    let record = std::fs::read_to_string(stage.path("guest.qcow2.seal.json")).unwrap();
    assert!(record.contains("backing file base still holds"));
    let after: Vec<_> = files.iter().map(|file| fingerprint(file)).collect();
    assert_eq!(after, before);
    qemu_img("check -q", &[&stage.image]);
    stage.guestseal("verify").expect(6);
    stage.guestseal("verify --allow-backing").expect(0);
    assert_eq!(markers(&stage.image), 0);
    is_sealed(&stage.image, "qcow2", &report["inspection"]);
    nothing_left(stage.folder(), Duration::ZERO);
}

#[test]
fn a_thin_image_is_sealed_over_its_base() {
    seals_the_layer_alone("", 1, "");
}

#[test]
fn a_thin_image_with_large_clusters_is_sealed_over_its_base() {
    seals_the_layer_alone("-o cluster_size=2M", 1, "");
}

#[test]
fn a_thin_image_with_parts_of_clusters_is_sealed_over_its_bases() {
    seals_the_layer_alone("-o extended_l2=on", 3, "");
}

#[test]
fn a_thin_image_of_version_2_is_sealed_in_place() {
    seals_the_layer_alone("-o compat=0.10", 2, "--in-place");
}

/// A thin image over something that is no good.
fn over(below: &str, format: &str) -> Stage {
    let stage = Stage::new("guest.qcow2");
    let format = if format.is_empty() { String::new() } else { format!("-F {format}") };
    qemu_img(&format!("create -q -u -f qcow2 -b {below} {format}"), &[&stage.image, Path::new("64M")]);
    stage
}

#[test]
fn what_an_image_names_is_looked_at_first() {
    if !ready() {
        return;
    }
    for (below, format, word) in [
        ("base", "qcow2", "not there"),
        ("/dev/zero", "raw", "no file of a disk"),
        ("/etc", "raw", "no file of a disk"),
        ("json:{\"driver\":\"file\",\"filename\":\"/etc/shadow\"}", "raw", "no file of this host"),
        ("nbd://127.0.0.1:1/x", "raw", "no file of this host"),
        ("/etc/shadow", "qcow2", "does not begin like one"),
        ("/etc/shadow", "vpc", "of the format"),
        ("guest.qcow2", "qcow2", "below itself"),
    ] {
        let stage = over(below, format);
        for words in ["seal --allow-backing", "inspect --allow-backing"] {
            let ran = stage.guestseal(words);
            assert!([1, 6].contains(&ran.code), "{below}: {ran:?}");
            ran.says(&["backing file", word]);
        }
    }
    // Without a format qemu would guess it from what a guest wrote.
    let stage = over("base", "raw");
    stage.write("base", 0o600, "x");
    let text = std::fs::read(&stage.image).unwrap();
    let at = text.windows(8).position(|bytes| bytes == b"\xe2\x79\x2a\xca\0\0\0\x03").unwrap();
    let image = std::fs::File::options().write(true).open(&stage.image).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&image, b"ABCD", at as u64).unwrap();
    stage.unchanged_by("seal --allow-backing", 6).says(&["does not say what format", "qemu-img rebase"]);
}

#[test]
fn a_tower_of_layers_is_refused() {
    if !ready() {
        return;
    }
    let stage = Stage::new("guest.qcow2");
    let name = |layer: u32| if layer == 0 { "guest.qcow2".to_owned() } else { format!("layer{layer}") };
    for layer in 0..18 {
        let words = format!("create -q -u -f qcow2 -F qcow2 -b {}", name(layer + 1));
        qemu_img(&words, &[&stage.path(&name(layer)), Path::new("64M")]);
    }
    stage.unchanged_by("seal --allow-backing", 6).says(&["more than 16"]);
}

#[test]
fn a_base_in_use_is_busy() {
    if !ready() {
        return;
    }
    let (stage, files) = thin("", 1);
    let lock =
        guestseal::image::lock::LockedImage::open(&files[0], guestseal::image::lock::Use::Commit).unwrap();
    stage.unchanged_by("seal --allow-backing", 3).says(&["base", "in use"]);
    drop(lock);
    // Other clones of it may run.
    let _lock =
        guestseal::image::lock::LockedImage::open(&files[0], guestseal::image::lock::Use::Read).unwrap();
    stage.guestseal("seal --digest none --allow-backing").expect(0);
}
