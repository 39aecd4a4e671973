//! Every format of image and every way of writing the result.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::common::{guestseal, ready, run, tool};
use crate::guests::guest;
use crate::leftovers::nothing_left;
use crate::mounts::{Access, check_filesystems, export, with_guest};
use crate::stage::Stage;

/// Fails unless the guest in the image has lost its secrets and is whole.
pub(crate) fn is_sealed(image: &Path, format: &str, inspection: &Value) {
    let raw = export(image, format);
    check_filesystems(&raw, inspection);
    with_guest(&raw, inspection, Access::Look, |root| {
        for gone in ["root/.bash_history", "etc/ssh/ssh_host_ed25519_key", "tmp/session-alice.txt"] {
            assert!(!root.join(gone).exists(), "{gone} is still there");
        }
        for kept in ["etc/app.conf", "etc/shadow", "root/.ssh/authorized_keys"] {
            assert!(root.join(kept).is_file(), "{kept} is lost");
        }
        assert_eq!(root.join("etc/machine-id").metadata().unwrap().len(), 0);
    });
    if raw != image {
        std::fs::remove_file(raw).unwrap();
    }
}

fn check_image(image: &Path, format: &str) {
    // qemu has no check for raw images.
    if format != "raw" {
        tool("qemu-img", ["check", "-q", "-f", format, image.to_str().unwrap()]);
    }
}

fn seals_over(format: &str, options: &[&str], words: &str) {
    if !ready() {
        return;
    }
    let stage = Stage::convert(&guest("arch").image, format, options);
    let size = stage.image.metadata().unwrap().len();
    let report = stage.guestseal(&format!("seal --json {words}")).expect(0).result();
    assert_eq!(report["input"]["format"], format);
    assert_eq!(report["input"]["file-bytes"], size);
    check_image(&stage.image, format);
    stage.guestseal("verify").expect(0);
    is_sealed(&stage.image, format, &report["inspection"]);
    assert_eq!(stage.print().names.len(), 2, "more than image and record: {:?}", stage.print());
    nothing_left(stage.folder(), Duration::ZERO);
}

/// The result goes to a new file; the old one is not even touched.
fn seals_beside(format: &str, options: &[&str], words: &str, new_format: &str) {
    if !ready() {
        return;
    }
    let stage = Stage::convert(&guest("arch").image, format, options);
    let before = stage.print();
    let (new, record) = (stage.path("new.img"), stage.path("new.img.seal.json"));
    let ran = guestseal(&format!("seal --json {words} --output"), &[&new, &stage.image]).expect(0);
    assert!(record.is_file(), "the record stands beside the new image");
    is_sealed(&new, new_format, &ran.result()["inspection"]);
    check_image(&new, new_format);
    guestseal("verify", &[&new]).expect(0);
    let described: Value =
        serde_json::from_str(&tool("qemu-img", [Path::new("info"), Path::new("--output=json"), &new]))
            .unwrap();
    assert_eq!(described["format"], new_format);
    assert!(described["backing-filename"].is_null(), "{described:#}");
    std::fs::remove_file(new).unwrap();
    std::fs::remove_file(record).unwrap();
    assert_eq!(stage.print(), before);
    nothing_left(stage.folder(), Duration::ZERO);
}

#[test]
fn qcow2_over_an_overlay() {
    seals_over("qcow2", &[], "");
}

#[test]
fn qcow2_with_clusters_of_4_kib() {
    seals_over("qcow2", &["-o", "cluster_size=4096"], "");
}

#[test]
fn raw_over_an_overlay() {
    seals_over("raw", &[], "");
}

#[test]
fn vmdk_over_an_overlay() {
    seals_over("vmdk", &[], "");
}

#[test]
fn vdi_over_an_overlay() {
    seals_over("vdi", &[], "");
}

#[test]
fn vhdx_over_an_overlay() {
    seals_over("vhdx", &[], "");
}

#[test]
fn raw_in_place_by_loop() {
    seals_over("raw", &[], "--in-place --attach loop");
}

#[test]
fn raw_in_place_by_fuse() {
    seals_over("raw", &[], "--in-place --attach fuse");
}

#[test]
fn qcow2_in_place() {
    seals_over("qcow2", &[], "--in-place");
}

#[test]
fn qcow2_to_a_new_file() {
    seals_beside("qcow2", &[], "", "qcow2");
}

#[test]
fn raw_to_a_new_compressed_qcow2() {
    seals_beside("raw", &[], "--output-format qcow2 --compress", "qcow2");
}

#[test]
fn qcow2_to_a_new_raw() {
    seals_beside("qcow2", &[], "--output-format raw", "raw");
}

#[test]
fn stream_optimised_vmdk_to_a_new_file_only() {
    if !ready() {
        return;
    }
    let stream = ["-o", "subformat=streamOptimized"];
    let stage = Stage::convert(&guest("arch").image, "vmdk", &stream);
    stage.unchanged_by("seal", 6).says(&["stream", "--output"]);
    seals_beside("vmdk", &stream, "--output-format qcow2", "qcow2");
}

#[test]
fn compression_makes_the_file_smaller() {
    if !ready() {
        return;
    }
    let stage = Stage::convert(&guest("arch").image, "qcow2", &[]);
    let (plain, small) = (stage.path("plain.qcow2"), stage.path("small.qcow2"));
    guestseal("seal --digest none --output", &[&plain, &stage.image]).expect(0);
    guestseal("seal --digest none --compress --output", &[&small, &stage.image]).expect(0);
    let bytes = |path: &Path| path.metadata().unwrap().len();
    assert!(bytes(&small) * 2 < bytes(&plain), "{} and {}", bytes(&small), bytes(&plain));
    assert_eq!(
        run("qemu-img", [Path::new("compare"), &plain, &small]).code,
        1,
        "two runs, two times of change"
    );
}
