//! Sealing, looking at and verifying block devices, and those that are refused.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc::O_EXCL;

use crate::common::{command, fingerprint, on_path, ready, require, run, shell, tool};
use crate::device::{Loop, Rig, dev, sha256};

#[test]
fn a_device_is_sealed_in_place_and_known_again() {
    if !ready() {
        return;
    }
    let rig = Rig::new();
    rig.delete_much();
    let before = rig.allocated();
    let (device, names) = (Loop::over(&rig.file), dev());
    let sealed = rig.guestseal("seal --json", &[&device.0]).expect(0).result();
    assert_eq!(sealed["sha256"], sha256(&device.0).as_str());
    assert_eq!(sealed["input"]["format"], "raw");
    assert_eq!(rig.kept(), ["disk.seal.json"]);
    assert_eq!(dev(), names);
    // What was erased was given back to the disk below.
    assert!(rig.allocated() + (30 << 20) < before, "{before} bytes, then {}", rig.allocated());
    drop(device);
    // Under another name it is the same device.
    let (other, device) = (Loop::over(&rig.path("work").join("..").join("content")), Loop::over(&rig.file));
    drop(device);
    let verified = rig.guestseal("verify --json", &[&other.0]).expect(0).result();
    assert_eq!((&verified["sealed"], &verified["digest-matches"]), (&true.into(), &true.into()));
    assert_eq!(rig.guestseal("recover --json", &[&other.0]).expect(0).result()["recovered"], false);
    rig.guestseal("seal", &[&other.0]).expect(0);
    drop(other);
    // Another file in its place is another device.
    let copy = rig.path("copy");
    tool("cp", [Path::new("--sparse=always"), &rig.file, &copy]);
    let device = Loop::over(&copy);
    rig.guestseal("verify", &[&device.0]).expect(1).says(&["cannot read the record"]);
}

#[test]
fn a_device_is_only_read_for_a_new_file() {
    if !ready() {
        return;
    }
    let rig = Rig::new();
    let before = fingerprint(&rig.file);
    let device = Loop::over(&rig.file);
    let new = rig.path("new.qcow2");
    rig.guestseal("seal --output-format qcow2 --output", &[]).expect(2);
    let words = format!("seal --output-format qcow2 --output {}", new.display());
    rig.guestseal(&words, &[&device.0]).expect(0);
    rig.guestseal("verify", &[&new]).expect(0);
    for words in ["inspect", "seal --rehearse", "seal --dry-run"] {
        rig.guestseal(words, &[&device.0]).expect(0);
    }
    rig.guestseal("seal --expand +64M", &[&device.0]).expect(6).says(&["does not grow"]);
    assert_eq!(fingerprint(&rig.file), before);
    assert!(rig.kept().is_empty());
    // The other way round it would take the place of the device's node.
    let words = format!("seal --output {}", device.0.display());
    rig.guestseal(&words, &[&new]).expect(2).says(&["is no regular file"]);
    // Written all the time, and still recorded.
    rig.guestseal("seal --in-place", &[&device.0]).expect(0);
    rig.guestseal("verify", &[&device.0]).expect(0);
    assert_eq!(rig.kept(), ["disk.seal.json"]);
}

/// What a guest wrote to its disk does not say what the disk is.
#[test]
fn the_format_of_a_device_is_not_guessed() {
    if !ready() {
        return;
    }
    let rig = Rig::new();
    let qcow2 = rig.path("content.qcow2");
    tool("qemu-img", [Path::new("convert"), Path::new("-fraw"), Path::new("-Oqcow2"), &rig.file, &qcow2]);
    fs::File::options().write(true).open(&qcow2).unwrap().set_len(64 << 20).unwrap();
    let before = fingerprint(&qcow2);
    let device = Loop::over(&qcow2);
    rig.guestseal("inspect", &[&device.0]).expect(6);
    rig.guestseal("inspect --format qcow2", &[&device.0]).expect(0);
    rig.guestseal("seal --format qcow2", &[&device.0]).expect(6).says(&["cannot grow", "--output NEW"]);
    assert_eq!(fingerprint(&qcow2), before);
}

#[test]
fn a_device_that_somebody_uses_is_left_alone() {
    if !ready() || !require(on_path("mkswap"), "needs mkswap") {
        return;
    }
    let rig = Rig::new();
    let before = fingerprint(&rig.file);
    let device = Loop::over(&rig.file);
    let node = device.0.display();
    // Exclusively, as the device mapper, md and swapon(8) have it.
    let held = fs::File::options().read(true).custom_flags(O_EXCL).open(&device.0).unwrap();
    for words in ["seal", "seal --in-place", "seal --rehearse"] {
        rig.guestseal(words, &[&device.0]).expect(3).says(&["in use", "what to do"]);
    }
    assert_eq!(rig.guestseal("inspect --json", &[&device.0]).expect(0).result()["moving"], true);
    drop(held);
    let point = rig.path("point");
    let at = point.display();
    // In a mount namespace that no other run makes a copy of.
    let mounted = shell(&format!(
        "mkdir {at}; unshare -m bash -c 'mount -o ro,noload {node} {at}; timeout 60 {} seal {node} 2>&1; echo code $?'",
        crate::common::GUESTSEAL
    ));
    assert!(mounted.contains("code 3") && mounted.contains("is mounted at"), "{mounted}");
    // A running guest: qemu's own locks.
    let socket = rig.path("socket");
    let mut nbd = command("qemu-nbd");
    nbd.args(["-f", "raw", "-t", "-k"]).arg(&socket).arg(&device.0);
    let mut guest = nbd.spawn().unwrap();
    shell(&format!(
        "for i in {{1..200}}; do [ ! -S {} ] || exit 0; sleep 0.05; done; exit 1",
        socket.display()
    ));
    rig.guestseal("seal", &[&device.0]).expect(3).says(&["qemu-nbd", "writes to it"]);
    guest.kill().unwrap();
    guest.wait().unwrap();
    drop(device);
    assert_eq!(fingerprint(&rig.file), before);
    // And the run has it to itself.
    let device = Loop::over(&rig.file);
    let stopped = run(
        "bash",
        [
            "-c",
            &format!(
                "{}=attached=stop setsid {} seal --work-dir {} {} >/dev/null 2>&1 & run=$!; \
             for i in {{1..400}}; do grep -q 'State:.T' /proc/$run/status && break; sleep 0.05; done; \
             unshare -m mount -o ro,noload {2} {} 2>&1; echo mounted $?; kill -CONT $run; wait $run; echo ended $?",
                guestseal::fault::VARIABLE,
                crate::common::GUESTSEAL,
                rig.path("work").display(),
                device.0.display(),
                point.display(),
            ),
        ],
    );
    assert!(!stopped.stdout.contains("mounted 0") && stopped.stdout.contains("ended 0"), "{stopped:?}");
}

#[test]
fn what_finishes_a_commit_is_not_kept_in_memory() {
    if !ready() || !require(Path::new("/dev/shm").is_dir(), "needs /dev/shm") {
        return;
    }
    let rig = Rig::new();
    let device = Loop::over(&rig.file);
    let memory = tempfile::tempdir_in("/dev/shm").unwrap();
    let words = format!("seal --work-dir {} {}", memory.path().display(), device.0.display());
    run(crate::common::GUESTSEAL, words.split(' ')).expect(6).says(&["is memory", "--work-dir"]);
}

/// A domain of libvirt whose disk is a block device.
#[test]
fn the_disk_of_a_domain() {
    if !ready() || !require(on_path("virsh"), "needs virsh") {
        return;
    }
    let rig = Rig::new();
    let device = Loop::over(&rig.file);
    let node = rig.path("node.xml");
    let definition = format!(
        "<node><domain type='test' xmlns:t='http://libvirt.org/schemas/domain/test/1.0'><name>web</name>\
         <uuid>6695eb01-f6a4-8304-79aa-97f2502e1931</uuid>\
         <memory>8192</memory><os><type>hvm</type></os><devices><disk type='block' device='disk'>\
         <driver name='qemu' type='raw'/><source dev='{}'/><target dev='vda'/></disk></devices>\
         <t:runstate>5</t:runstate></domain></node>",
        device.0.display()
    );
    fs::write(&node, definition).unwrap();
    let words = format!("seal -c test://{} -d web", node.display());
    rig.guestseal(&words, &[]).expect(0);
    rig.guestseal("verify", &[&device.0]).expect(0);
}
