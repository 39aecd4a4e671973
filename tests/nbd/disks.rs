//! Disks that live and end well.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use guestseal::ErrorKind;
use guestseal::attach::ImageSpec;
use guestseal::sys::nbd_device::Owner;
use guestseal::sys::nbd_netlink::{Connection, NbdDriver};
use serde_json::json;

use crate::host::{Image, MIB, assert_nothing_left, host, in_use, index, partitions, run, servers, spec};

/// The variable that makes `a_run_without_privilege` attach this image.
const UNPRIVILEGED: &str = "GUESTSEAL_TEST_UNPRIVILEGED_IMAGE";

fn write(device: &Path, byte: u8, offset: usize, length: usize) {
    let file = OpenOptions::new().write(true).open(device).unwrap();
    file.write_all_at(&vec![byte; length], u64::try_from(offset).unwrap()).unwrap();
}

#[test]
fn three_servers_are_three_devices_picked_by_the_kernel() {
    let Some(_host) = host() else { return };
    let images = ["8M", "9M", "10M"].map(Image::new);
    let disks = images.each_ref().map(|image| {
        let started = Instant::now();
        let disk = image.attach();
        let (device, took) = (disk.device().display(), started.elapsed());
        println!(
            "attached {device} in {took:?}, {}",
            run(&format!("flock -n {device} echo unlocked || echo locked"))
        );
        disk
    });
    let mut indexes = disks.each_ref().map(index);
    for (number, disk) in disks.iter().enumerate() {
        assert_eq!(disk.size_bytes(), u64::try_from((8 + number) * MIB).unwrap());
        assert_eq!(run(&format!("blockdev --getss {}", disk.device().display())), "512");
        write(disk.device(), u8::try_from(number + 1).unwrap(), MIB, MIB);
        disk.check().unwrap();
    }
    for disk in disks {
        let started = Instant::now();
        disk.close().unwrap();
        println!("closed in {:?}", started.elapsed());
    }
    for ((number, image), index) in images.iter().enumerate().zip(indexes) {
        assert!(image.has(u8::try_from(number + 1).unwrap(), MIB, MIB), "image {number}");
        assert!(!image.has(9, MIB, MIB));
        assert_nothing_left(index, &image.path);
    }
    indexes.sort_unstable();
    assert!(indexes[0] != indexes[1] && indexes[1] != indexes[2]);
}

#[test]
fn a_filesystem_on_an_overlay_is_there_after_close_and_the_base_is_untouched() {
    let Some(_host) = host() else { return };
    let base = Image::new("64M");
    let before = fs::read(&base.path).unwrap();
    let overlay = Image::new("64M");
    let layers = json!({"driver": "qcow2", "file": overlay.file(), "backing": base.spec().layers});
    let disk = crate::host::attach(&spec(layers.clone())).unwrap();
    let (number, device) = (index(&disk), disk.device().display().to_string());
    let mountpoint = overlay.folder.path().join("mnt");
    fs::create_dir(&mountpoint).unwrap();
    run(&format!("mkfs.ext4 -q -F {device} && mount -t ext4 {device} {}", mountpoint.display()));
    fs::write(mountpoint.join("note"), "kept").unwrap();
    run(&format!("umount {}", mountpoint.display()));
    disk.close().unwrap();
    assert_nothing_left(number, &overlay.path);
    assert_eq!(fs::read(&base.path).unwrap(), before);
    run(&format!("qemu-img check -q {}", overlay.path.display()));

    let disk = crate::host::attach(&ImageSpec { layers, read_only: true, files: None }).unwrap();
    let (number, device) = (index(&disk), disk.device().display().to_string());
    assert_eq!(run(&format!("blockdev --getro {device}")), "1");
    run(&format!("mount -t ext4 -o ro,noload {device} {}", mountpoint.display()));
    assert_eq!(fs::read_to_string(mountpoint.join("note")).unwrap(), "kept");
    run(&format!("umount {}", mountpoint.display()));
    disk.close().unwrap();
    assert_nothing_left(number, &overlay.path);
}

#[test]
fn ten_at_once_never_meet() {
    let Some(_host) = host() else { return };
    let images: Vec<_> = (0..10).map(|_| Image::new("16M")).collect();
    let work = |number: usize, image: &Image| {
        let disk = image.attach();
        let byte = u8::try_from(number + 1).unwrap();
        write(disk.device(), byte, 0, 8 * MIB);
        let mut back = vec![0; 8 * MIB];
        File::open(disk.device()).unwrap().read_exact(&mut back).unwrap();
        assert!(back.iter().all(|got| *got == byte));
        let index = index(&disk);
        disk.close().unwrap();
        index
    };
    let indexes: Vec<u32> = std::thread::scope(|scope| {
        let threads: Vec<_> = images
            .iter()
            .enumerate()
            .map(|(number, image)| scope.spawn(move || work(number, image)))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (number, image) in images.iter().enumerate() {
        assert!(image.has(u8::try_from(number + 1).unwrap(), 0, 8 * MIB), "image {number}");
        assert_nothing_left(indexes[number], &image.path);
    }
}

#[test]
fn discards_and_zeros_make_the_image_smaller() {
    let Some(_host) = host() else { return };
    let image = Image::new("64M");
    let disk = image.attach();
    write(disk.device(), 1, 0, 32 * MIB);
    disk.close().unwrap();
    let full = image.allocated();
    assert!(full >= 32 << 20, "{full}");
    let disk = image.attach();
    run(&format!("blkdiscard -o 0 -l {} {}", 16 * MIB, disk.device().display()));
    disk.close().unwrap();
    let half = image.allocated();
    assert!(half <= full - (15 << 20), "{full} to {half}");
    let disk = image.attach();
    write(disk.device(), 0, 16 * MIB, 16 * MIB);
    disk.close().unwrap();
    let empty = image.allocated();
    assert!(empty <= half - (15 << 20), "{half} to {empty}");
    assert!(image.has(0, 0, 32 * MIB));
}

#[test]
fn the_host_never_keeps_the_guests_partitions() {
    let Some(_host) = host() else { return };
    let image = Image::new("64M");
    let disk = image.attach();
    run(&format!("printf 'label: gpt\\n,16M\\n,\\n' | sfdisk -q --no-reread {}", disk.device().display()));
    disk.close().unwrap();
    let disk = image.attach();
    let number = index(&disk);
    let shown = partitions(number);
    disk.close().unwrap();
    assert_eq!(shown, Vec::<std::path::PathBuf>::new());
    assert_nothing_left(number, &image.path);
}

#[test]
fn images_that_cannot_be_opened_are_told_apart() {
    let Some(_host) = host() else { return };
    let image = Image::new("16M");
    let disk = image.attach();
    let error = crate::host::attach(&image.spec()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
    disk.close().unwrap();

    let error = crate::host::attach(&spec(json!({"driver": "vmdk", "file": image.file(), "backing": null})))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed, "{error:?}");
    assert!(error.chain().contains("ended with exit status: 1"), "{error:?}");
    let missing = json!({"driver": "raw", "file": {"driver": "file", "filename": "/no/such/image"}});
    let error = crate::host::attach(&spec(missing)).unwrap_err();
    assert!(error.chain().contains("No such file"), "{error:?}");
    assert_eq!(servers(&image.path), Vec::<i32>::new());
}

#[test]
fn a_disk_that_is_only_dropped_leaves_nothing() {
    let Some(_host) = host() else { return };
    let image = Image::new("16M");
    let disk = image.attach();
    let number = index(&disk);
    write(disk.device(), 1, 0, MIB);
    let started = Instant::now();
    drop(disk);
    println!("dropped in {:?}", started.elapsed());
    assert_nothing_left(number, &image.path);
    assert!(guestseal::sys::trouble::take().is_empty());
}

#[test]
fn a_device_without_a_node_gets_a_private_one() {
    let Some(_host) = host() else { return };
    let image = Image::new("16M");
    let disk = image.attach();
    let (number, path) = (index(&disk), disk.device().to_path_buf());
    disk.close().unwrap();
    let hidden = path.with_extension("hidden");
    fs::rename(&path, &hidden).unwrap();
    // The free device of the lowest number is taken, which is the same one.
    let disk = image.attach();
    let private = disk.device().to_path_buf();
    write(&private, 7, 0, MIB);
    let used = index(&disk);
    let closed = disk.close();
    fs::rename(&hidden, &path).unwrap();
    closed.unwrap();
    assert_eq!(used, number);
    assert!(
        private != path && !private.exists() && !private.parent().unwrap().exists(),
        "{}",
        private.display()
    );
    assert!(image.has(7, 0, MIB));
}

#[test]
fn what_a_dead_run_left_is_cleared_and_what_lives_is_not() {
    let Some(_host) = host() else { return };
    let ours = Owner::ourselves().unwrap().mark();
    let dead = ours.rsplit_once(' ').unwrap().0.to_owned() + " 1";
    let [left, lives] = [dead, ours].map(|mark| {
        let (socket, server) = std::os::unix::net::UnixStream::pair().unwrap();
        let connection = Connection {
            socket: std::os::fd::AsFd::as_fd(&socket),
            timeout: std::time::Duration::from_secs(2),
            server_flags: 1,
            backend: &mark,
        };
        (NbdDriver::open().unwrap().connect(&connection).unwrap(), server)
    });
    assert!(in_use(left.0) && in_use(lives.0));
    let image = Image::new("16M");
    let disk = image.attach();
    assert!(Path::new(&format!("/sys/block/nbd{}/pid", lives.0)).exists());
    assert!(!Path::new(&format!("/sys/block/nbd{}/pid", left.0)).exists() || index(&disk) == left.0);
    disk.close().unwrap();
    NbdDriver::open().unwrap().disconnect(lives.0).unwrap();
}

#[test]
fn a_run_without_the_privilege_is_told_so() {
    let Some(_host) = host() else { return };
    let image = Image::new("16M");
    let output = std::process::Command::new("setpriv")
        .args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "disks::a_run_without_privilege", "--nocapture"])
        .env(UNPRIVILEGED, &image.path)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("HostLacks: attaching by nbd needs root (CAP_SYS_ADMIN)"), "{output:?}");
    assert_eq!(servers(&image.path), Vec::<i32>::new());
}

/// Not a test of its own: the run that the test above takes the privilege from.
#[test]
fn a_run_without_privilege() {
    let Some(path) = std::env::var_os(UNPRIVILEGED) else { return };
    let file = json!({"driver": "file", "filename": path.to_str().unwrap()});
    println!("{:?}", crate::host::attach(&spec(json!({"driver": "qcow2", "file": file, "backing": null}))));
}
