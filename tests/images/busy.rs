//! Images that others use: guests of a real qemu, shared and exclusive, other runs of guestseal, this host itself.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::common::{GUESTSEAL, Ran, command, fingerprint, finish, guestseal, on_path, ready, require, tool};
use crate::guests::guest;
use crate::holders::{Holder, Stopped};
use crate::leftovers::nothing_left;
use crate::mounts::in_private_mounts;
use crate::stage::Stage;

fn ready_with_guests() -> bool {
    ready()
        && ["qemu-system-x86_64", "qemu-nbd", "qemu-io"]
            .iter()
            .all(|program| require(on_path(program), &format!("needs {program}")))
}

/// A sealed image with its record.
fn sealed(format: &str) -> Stage {
    let stage = Stage::convert(&guest("arch").image, format, &[]);
    stage.guestseal("seal").expect(0);
    stage
}

/// Whatever changes the image is refused, and not a byte changes.
fn refuses_to_seal(stage: &Stage, words: &[&str]) {
    for seal in ["seal", "seal --in-place"] {
        let ran = stage.unchanged_but_for_the_holder(seal, 3);
        ran.says(&["in use", "what to do"]);
        ran.says(words);
    }
}

/// Looking goes on, and says whether what it saw may have moved.
fn looks(stage: &Stage, moving: bool, verified: i32) {
    for (look, code) in [("inspect --json", 0), ("seal --dry-run --json", 0), ("verify --json", verified)] {
        let ran = stage.unchanged_but_for_the_holder(look, code);
        assert_eq!(ran.result()["moving"], moving, "{ran:#?}");
        let said = ran.stderr.contains("is in use") && ran.stderr.contains("may be moving");
        assert_eq!(said, moving, "{ran:#?}");
    }
}

/// The new file of --output is made only from an image that nobody writes.
fn makes_a_new_file(stage: &Stage, code: i32) {
    let new = Stage::new("new.qcow2");
    let ran = guestseal("seal --output", &[&new.image, &stage.image]).expect(code);
    if code == 0 {
        new.guestseal("verify").expect(0);
    } else {
        ran.says(&["in use", "what to do"]);
        assert_eq!(fs::read_dir(new.folder()).unwrap().count(), 0);
    }
}

impl Stage {
    #[track_caller]
    fn unchanged_but_for_the_holder(&self, words: &str, code: i32) -> Ran {
        let before = self.print();
        let ran = self.guestseal(words).expect(code);
        assert_eq!(self.print(), before, "{ran:#?}");
        ran
    }
}

#[test]
fn guests_of_qemu() {
    if !ready_with_guests() {
        return;
    }
    let cases = [
        ("", "", true),
        ("", ",share-rw=on", true),
        (",readonly=on", "", false),
        (",readonly=on", ",share-rw=on", false),
    ];
    for format in ["qcow2", "raw", "vmdk"] {
        let stage = sealed(format);
        for (drive, device, writes) in cases {
            let running = Holder::guest(&stage, format, drive, device).unwrap();
            let name = if writes { "writes to it" } else { "reads it" };
            refuses_to_seal(&stage, &["qemu-system", name]);
            looks(&stage, writes, 0);
            makes_a_new_file(&stage, if writes { 3 } else { 0 });
            drop(running);
        }
        nothing_left(stage.folder(), Duration::ZERO);
        stage.guestseal("seal").expect(0);
    }
}

#[test]
fn other_programs_of_qemu() {
    if !ready_with_guests() {
        return;
    }
    for format in ["qcow2", "raw"] {
        let stage = sealed(format);
        let holders: [(&str, bool, &dyn Fn() -> Holder); 6] = [
            ("qemu-storage", true, &|| Holder::daemon(&stage, format, true)),
            ("qemu-storage", false, &|| Holder::daemon(&stage, format, false)),
            ("qemu-nbd", true, &|| Holder::nbd(&stage, format, &[])),
            ("qemu-nbd", false, &|| Holder::nbd(&stage, format, &["--read-only"])),
            ("qemu-io", true, &|| Holder::io(&stage, format, &[], "read 0 512")),
            ("qemu-io", false, &|| Holder::io(&stage, format, &["-r"], "read 0 512")),
        ];
        for (name, writes, hold) in holders {
            let holder = hold();
            stage.guestseal("seal").expect(3).says(&["in use", name, "what to do"]);
            let looked = stage.guestseal("verify --json").expect(0);
            assert_eq!(looked.result()["moving"], writes, "{looked:#?}");
            drop(holder);
        }
        nothing_left(stage.folder(), Duration::ZERO);
    }
}

#[test]
fn what_a_running_guest_changed_is_found_and_called_moving() {
    if !ready_with_guests() {
        return;
    }
    let stage = sealed("qcow2");
    let guest = Holder::io(&stage, "qcow2", &[], "write -P 7 1024000 512");
    looks(&stage, true, 5);
    drop(guest);
    stage.guestseal("verify").expect(5);
}

/// While somebody writes, an error may be one of the moment, and says so.
#[test]
fn an_error_in_a_moving_image_says_that_it_moves() {
    if !ready_with_guests() {
        return;
    }
    let stage = Stage::new("empty.raw");
    fs::File::create(&stage.image).unwrap().set_len(64 << 20).unwrap();
    let guest = Holder::guest(&stage, "raw", "", "").unwrap();
    stage.guestseal("inspect").expect(6).says(&["neither a partition table", "try again when it is not"]);
    drop(guest);
    let ran = stage.guestseal("inspect").expect(6);
    assert!(!ran.stderr.contains("try again"), "{ran:#?}");
}

/// A script of the first run says that it works, and waits until it may end.
fn while_one_works<T>(stage: &Stage, words: &str, work: impl FnOnce() -> T) -> T {
    let (here, go) = (stage.path("here"), stage.path("go"));
    tool("mkfifo", [&here, &go]);
    let script = format!("#!/bin/sh\necho here >'{}'\nread word <'{}'\n", here.display(), go.display());
    let script = stage.write("wait.sh", 0o755, &script);
    let mut first = command("timeout");
    first.args(["--kill-after=5", "240", GUESTSEAL]).args(words.split_whitespace());
    first.args(["--operations", "defaults,script", "--script"]).arg(&script).arg(&stage.image);
    let first = std::thread::spawn(move || finish(first));
    assert_eq!(fs::read_to_string(&here).unwrap(), "here\n");
    let result = work();
    fs::write(&go, "go\n").unwrap();
    first.join().unwrap().expect(0);
    for name in [here, go, script] {
        fs::remove_file(name).unwrap();
    }
    result
}

#[test]
fn two_runs_on_one_image() {
    if !ready() {
        return;
    }
    for (format, words) in [("qcow2", "seal"), ("qcow2", "seal --in-place"), ("raw", "seal --in-place")] {
        let stage = Stage::convert(&guest("arch").image, format, &[]);
        let before = fingerprint(&stage.image);
        let new = Stage::new("new.qcow2");
        let runs = while_one_works(&stage, words, || {
            let output = guestseal("seal --output", &[&new.image, &stage.image]);
            let looked = stage.guestseal("inspect --json");
            [stage.guestseal("seal"), stage.guestseal("seal --in-place"), output, looked]
        });
        let [seal, in_place, output, looked] = runs;
        for ran in [seal, in_place, output] {
            ran.expect(3).says(&[&format!("guest.{format}"), "another guestseal", "(process ", "what to do"]);
        }
        assert_eq!(looked.expect(0).result()["moving"], true);
        assert_ne!(fingerprint(&stage.image), before, "the first one sealed it");
        assert_eq!(fs::read_dir(new.folder()).unwrap().count(), 0);
        stage.guestseal("verify").expect(0);
        nothing_left(stage.folder(), Duration::ZERO);
    }
}

#[test]
fn no_guest_starts_on_an_image_that_is_worked_on() {
    if !ready_with_guests() {
        return;
    }
    for (format, words) in
        [("qcow2", "seal"), ("raw", "seal"), ("qcow2", "seal --in-place"), ("raw", "seal --in-place")]
    {
        let stage = Stage::convert(&guest("arch").image, format, &[]);
        let refused = while_one_works(&stage, words, || {
            ["", ",share-rw=on"].map(|device| Holder::guest(&stage, format, "", device).err())
        });
        for error in refused {
            let error = error.expect("a guest started while its image was worked on");
            assert!(error.contains("Failed to get") && error.contains("lock"), "{error}");
        }
        stage.guestseal("verify").expect(0);
        drop(Holder::guest(&stage, format, "", "").unwrap());
    }
}

/// Also while the result is written, hashed and recorded. Needs the points at which a run can be held: cargo test
/// --features fault-points.
#[test]
fn no_guest_starts_at_any_stage() {
    if !ready_with_guests() || !require(cfg!(feature = "fault-points"), "needs the feature fault-points") {
        return;
    }
    let working = [
        "locked",
        "files-made",
        "attached",
        "mounted",
        "first-operation",
        "applied",
        "unmounted",
        "detached",
    ];
    let committing = [
        "overlay-named",
        "journal-named",
        "image-written",
        "image-flushed",
        "journal-marked",
        "record-written",
        "record-named",
    ];
    let original = Stage::convert(&guest("arch").image, "qcow2", &[]);
    for point in working.iter().chain(&committing) {
        let stage = Stage::copy(&original.image);
        let run = Stopped::at(&stage, point, "seal");
        let started = Holder::guest(&stage, "qcow2", "", "").is_ok();
        let (second, looked) = (stage.guestseal("seal"), stage.guestseal("inspect --json"));
        let ended = run.go_on();
        assert!(!started && ended.0 == 0, "{point}: {ended:?}");
        second.expect(3).says(&["another guestseal"]);
        assert!(looked.stderr.contains("may be moving"), "{point}: {looked:#?}");
    }
}

/// An image into which another run writes its result is busy and not interrupted.
#[test]
fn looking_while_another_run_commits() {
    if !ready() {
        return;
    }
    let stage = Stage::convert(&guest("arch").image, "qcow2", &[]);
    let journal = stage.path(".guest.qcow2.guestseal-journal");
    let looked = while_one_works(&stage, "seal", || {
        // As it stands there while the other one commits.
        fs::write(&journal, "").unwrap();
        let looked = stage.guestseal("inspect --json");
        fs::remove_file(&journal).unwrap();
        looked
    });
    assert_eq!(looked.expect(0).result()["moving"], true);
    fs::write(&journal, "").unwrap();
    stage.guestseal("inspect").expect(4);
}

/// The new file of --output would replace an image that a guest runs on.
#[test]
fn a_new_file_over_the_image_of_a_running_guest() {
    if !ready_with_guests() {
        return;
    }
    let stage = Stage::convert(&guest("arch").image, "qcow2", &[]);
    let other = Stage::copy(&stage.image);
    let before = other.print();
    for drive in ["", ",readonly=on"] {
        let running = Holder::guest(&other, "qcow2", drive, "").unwrap();
        let ran = guestseal("seal --output", &[&other.image, &stage.image]).expect(3);
        ran.says(&[other.image.to_str().unwrap(), "in use"]);
        drop(running);
        assert_eq!(other.print(), before);
    }
    guestseal("seal --output", &[&other.image, &stage.image]).expect(0);
}

#[test]
fn ten_runs_on_ten_images() {
    if !ready() {
        return;
    }
    let stages: Vec<Stage> = (0..10).map(|_| Stage::convert(&guest("arch").image, "qcow2", &[])).collect();
    std::thread::scope(|scope| {
        let runs: Vec<_> =
            stages.iter().map(|stage| scope.spawn(|| stage.guestseal("seal --digest none"))).collect();
        for run in runs {
            run.join().unwrap().expect(0);
        }
    });
    for stage in &stages {
        stage.guestseal("verify").expect(0);
        nothing_left(stage.folder(), Duration::ZERO);
    }
}

#[test]
fn one_image_named_twice() {
    if !ready() {
        return;
    }
    let stage = Stage::copy(&guest("arch").image);
    let (link, hard) = (stage.path("link.raw"), stage.path("hard.raw"));
    std::os::unix::fs::symlink("arch.raw", &link).unwrap();
    fs::hard_link(&stage.image, &hard).unwrap();
    let dotted = stage.folder().join("./arch.raw");
    let before = stage.print();
    for other in [&stage.image, &link, &hard, &dotted] {
        for words in ["seal", "seal --in-place", "seal --dry-run"] {
            guestseal(words, &[&stage.image, other]).expect(2).says(&["arch.raw", "what to do"]);
        }
    }
    assert_eq!(stage.print(), before);
    guestseal("inspect", &[&stage.image, &hard]).expect(0);
    // The other name is the same image to the lock as well.
    let busy = while_one_works(&stage, "seal", || guestseal("seal", &[&hard]));
    busy.expect(3);
}

/// A raw image that the host itself has attached.
#[test]
fn a_loop_device_of_this_host() {
    if !ready() {
        return;
    }
    let stage = sealed("raw");
    let attach = |options: &str| {
        let args = ["--show", options].into_iter().map(Path::new).chain([stage.image.as_path()]);
        tool("losetup", args).trim().to_owned()
    };
    let device = attach("-f");
    refuses_to_seal(&stage, &[&device, "losetup -d"]);
    looks(&stage, true, 0);
    makes_a_new_file(&stage, 3);
    tool("losetup", ["-d", &device]);
    let device = attach("-rf");
    refuses_to_seal(&stage, &[&device]);
    looks(&stage, false, 0);
    makes_a_new_file(&stage, 0);
    tool("losetup", ["-d", &device]);
    nothing_left(stage.folder(), Duration::ZERO);
    stage.guestseal("seal").expect(0);
}

/// umount(8) and losetup(8) let a loop device go, and it goes with its last opener, who may only look at it.
#[test]
fn a_loop_device_that_is_about_to_go() {
    if !ready() {
        return;
    }
    let stage = Stage::copy(&guest("arch").image);
    for (seconds, code) in [(0.5, 0), (30.0, 3)] {
        let device = tool("losetup", [Path::new("--show"), Path::new("-f"), &stage.image]).trim().to_owned();
        let opened = std::fs::File::open(&device).unwrap();
        tool("losetup", ["-d", &device]);
        let (held, end) = std::sync::mpsc::channel::<()>();
        let holder = std::thread::spawn(move || {
            let _ = end.recv_timeout(Duration::from_secs_f64(seconds));
            drop(opened);
        });
        let ran = stage.guestseal("seal").expect(code);
        assert!(code == 0 || ran.stderr.contains(&device), "{ran:#?}");
        drop(held);
        holder.join().unwrap();
    }
    nothing_left(stage.folder(), Duration::ZERO);
}

/// The path that the kernel tells of is one of another mount namespace.
#[test]
fn a_loop_device_made_elsewhere() {
    if !ready() {
        return;
    }
    let stage = Stage::copy(&guest("arch").image);
    let elsewhere = Stage::new("nothing");
    let device = in_private_mounts(|| {
        tool("mount", [Path::new("--bind"), stage.folder(), elsewhere.folder()]);
        let image = elsewhere.path("arch.raw");
        tool("losetup", [Path::new("--show"), Path::new("-f"), &image]).trim().to_owned()
    });
    let ran = stage.guestseal("seal");
    tool("losetup", ["-d", &device]);
    ran.expect(3).says(&[&device]);
    stage.guestseal("seal").expect(0);
}

/// A block device as the image.
#[test]
fn a_block_device_that_the_host_has_mounted() {
    if !ready() {
        return;
    }
    let stage = Stage::copy(&guest("arch").image);
    let device = tool("losetup", [Path::new("--show"), Path::new("-f"), &stage.image]).trim().to_owned();
    let device = Path::new(&device);
    let idle = guestseal("inspect --json", &[device]);
    let through_qemu = guestseal("inspect --json --attach fuse", &[device]);
    let before = fingerprint(&stage.image);
    let (sealing, looking) = in_private_mounts(|| {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        tool("mount", [Path::new("-o"), Path::new("ro,noload"), device, folder.path()]);
        let new = Stage::new("new.raw");
        let output = guestseal("seal --output", &[&new.image, device]);
        let sealing = [guestseal("seal", &[device]), guestseal("seal --in-place", &[device]), output];
        let looking = guestseal("inspect --json", &[device]);
        tool("umount", [folder.path()]);
        (sealing, looking)
    });
    tool("losetup", [Path::new("-d"), device]);
    assert_eq!(fingerprint(&stage.image), before);
    for ran in [idle, through_qemu] {
        assert_eq!(ran.expect(0).result()["moving"], false);
    }
    for ran in sealing {
        ran.expect(3).says(&["in use", "mounted", "what to do"]);
    }
    assert_eq!(looking.expect(0).result()["moving"], true);
}
