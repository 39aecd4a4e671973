//! Hosts that are full, read-only, or lack something: the image stays as it was.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::common::{GUESTSEAL, fingerprint, guestseal, on_path, ready, require, run, shell, tool};
use crate::guests::guest;
use crate::leftovers::nothing_left;
use crate::mounts::in_private_mounts;
use crate::stage::{Stage, copy};

/// Runs guestseal where this program of the host is hidden.
pub(crate) fn without(program: &str, words: &str, stage: &Stage) -> crate::common::Ran {
    in_private_mounts(|| {
        for folder in ["/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/bin"] {
            let path = Path::new(folder).join(program);
            if path.is_file() {
                tool("mount", [Path::new("--bind"), Path::new("/dev/null"), &path]);
            }
        }
        stage.guestseal(words)
    })
}

#[test]
fn a_host_without_the_tools_of_qemu() {
    if !ready() {
        return;
    }
    let stage = Stage::convert(&guest("arch").image, "qcow2", &[]);
    let before = stage.print();
    let without_daemon = without("qemu-storage-daemon", "seal --attach fuse", &stage);
    without_daemon.expect(7).says(&["qemu-storage-daemon", "what to do", "install qemu-"]);
    without("qemu-img", "seal", &stage).expect(7).says(&["qemu-img", "what to do", "install qemu-"]);
    assert_eq!(stage.print(), before);
    nothing_left(stage.folder(), Duration::ZERO);
}

#[test]
fn without_root() {
    if !ready() || !require(on_path("setpriv"), "needs setpriv") {
        return;
    }
    let stage = Stage::copy(&guest("arch").image);
    let program = stage.path("guestseal");
    fs::copy(GUESTSEAL, &program).unwrap();
    shell(&format!(
        "chmod 777 {0}; chmod 666 {1}; chmod 755 {0}/guestseal",
        stage.folder().display(),
        stage.image.display()
    ));
    let before = stage.print();
    for words in ["seal", "inspect"] {
        let args = ["--reuid=65534", "--regid=65534", "--clear-groups"].map(Path::new);
        let ran = run("setpriv", args.into_iter().chain([program.as_path(), Path::new(words), &stage.image]));
        ran.expect(7).says(&["root", "what to do"]);
    }
    assert_eq!(stage.print(), before);
    nothing_left(stage.folder(), Duration::ZERO);
}

/// Works in a small filesystem in memory that holds a copy of the image and `spare` KiB more.
fn on_a_small_disk<T: Send>(image: &Path, spare: u64, work: impl FnOnce(&Path) -> T + Send) -> T {
    use std::os::unix::fs::MetadataExt;
    in_private_mounts(|| {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let kib = image.metadata().unwrap().blocks() / 2 + spare;
        tool(
            "mount",
            ["-t", "tmpfs", "-o", &format!("size={kib}k"), "small", folder.path().to_str().unwrap()],
        );
        let small = folder.path().join("guest.qcow2");
        copy(image, &small);
        let result = work(&small);
        tool("umount", [folder.path()]);
        result
    })
}

#[test]
fn a_full_disk() {
    if !ready() {
        return;
    }
    let stage = Stage::convert(&guest("arch").image, "qcow2", &[]);
    let sealed = |spare: u64| {
        on_a_small_disk(&stage.image, spare, |image| {
            let before = fingerprint(image);
            let ran = guestseal("seal", &[image]);
            if ran.code != 0 {
                ran.expect(1).says(&["error: "]);
                assert_eq!(fingerprint(image), before, "{spare} KiB to spare");
                let names =
                    fs::read_dir(image.parent().unwrap()).unwrap().map(|name| name.unwrap().file_name());
                assert_eq!(names.collect::<Vec<_>>(), ["guest.qcow2"], "{spare} KiB to spare");
                return false;
            }
            true
        })
    };
    let results: Vec<bool> = (0..10).map(|step| sealed(step * 200)).collect();
    assert!(!results[0] && results[9], "{results:?}");
    nothing_left(stage.folder(), Duration::ZERO);
}

#[test]
fn a_full_disk_for_the_new_file() {
    if !ready() {
        return;
    }
    let stage = Stage::convert(&guest("arch").image, "qcow2", &[]);
    let before = stage.print();
    on_a_small_disk(Path::new("/etc/hostname"), 1500, |small| {
        let new = small.with_file_name("new.qcow2");
        guestseal("seal --output", &[&new, &stage.image]).expect(1).says(&["new.qcow2", "No space"]);
        let names: Vec<_> =
            fs::read_dir(new.parent().unwrap()).unwrap().map(|name| name.unwrap().file_name()).collect();
        assert_eq!(names, ["guest.qcow2"], "only what was there");
    });
    assert_eq!(stage.print(), before);
}

#[test]
fn a_folder_that_cannot_be_written() {
    if !ready() {
        return;
    }
    let stage = Stage::convert(&guest("arch").image, "qcow2", &[]);
    let before = stage.print();
    let elsewhere = Stage::new("new.qcow2");
    in_private_mounts(|| {
        let folder = stage.folder();
        tool("mount", [Path::new("--bind"), folder, folder]);
        tool("mount", [Path::new("-o"), Path::new("remount,ro,bind"), folder]);
        stage.guestseal("seal").expect(1).says(&["guest.qcow2", "Read-only", "what to do", "--output"]);
        stage.guestseal("inspect").expect(0);
        guestseal("seal --output", &[&elsewhere.image, &stage.image]).expect(0);
        tool("umount", [folder]);
    });
    assert_eq!(stage.print(), before);
    elsewhere.guestseal("verify").expect(0);
    nothing_left(stage.folder(), Duration::ZERO);
}

#[test]
fn a_new_file_where_none_can_be() {
    if !ready() {
        return;
    }
    let stage = Stage::convert(&guest("arch").image, "qcow2", &[]);
    stage.unchanged_by("seal --output /nowhere/new.qcow2", 1).says(&["/nowhere"]);
    stage.unchanged_by("seal --output /var/tmp", 2).says(&["/var/tmp", "folder"]);
    stage.unchanged_by(&format!("seal --output {}", stage.image.display()), 2).says(&["--output"]);
    stage.unchanged_by("seal --attach loop", 2).says(&["loop", "raw"]);
}
