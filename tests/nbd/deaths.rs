//! Servers and runs that are killed.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use guestseal::ErrorKind;
use guestseal::sys::nbd_device::left_behind;
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::{Image, MIB, assert_nothing_left, host, in_use, index, run, servers, until};

/// The variable that makes `a_run_to_be_killed` hold this image.
const HELD: &str = "GUESTSEAL_TEST_HELD_IMAGE";
/// What that run has written, and the kernel has not yet, when it is killed; in MiB.
const WRITTEN: usize = 48;
/// The variable that says how the run uses it.
const STAGE: &str = "GUESTSEAL_TEST_STAGE";

#[test]
fn a_server_killed_in_the_middle_of_writes_fails_them_at_once() {
    let Some(_host) = host() else { return };
    for direct in [true, false] {
        let image = Image::new("1G");
        let disk = image.attach();
        let (number, server) = (index(&disk), servers(&image.path)[0]);
        let mut options = OpenOptions::new();
        let flags = if direct { nix::libc::O_DIRECT } else { nix::libc::O_SYNC };
        let mut device = options.write(true).custom_flags(flags).open(disk.device()).unwrap();
        let (under_way, told) = std::sync::mpsc::channel();
        let writer = std::thread::spawn(move || {
            let block = Aligned::new();
            loop {
                if let Err(error) = device.write_all(&block.0[..]) {
                    return error;
                }
                let _ = under_way.send(());
            }
        });
        (0..3).for_each(|_| told.recv().unwrap());
        kill(Pid::from_raw(server), Signal::SIGKILL).unwrap();
        let started = Instant::now();
        let error = writer.join().unwrap();
        let took = started.elapsed();
        println!("writes failed {took:?} after the kill: {error}");
        assert_eq!(error.raw_os_error(), Some(nix::libc::EIO));
        assert!(took < Duration::from_secs(5), "{took:?}");
        until("the server is known to be dead", || disk.check().is_err());
        let started = Instant::now();
        let error = disk.close().unwrap_err();
        println!("closed in {:?}: {error:?}", started.elapsed());
        assert_eq!(error.kind(), ErrorKind::Failed);
        assert!(error.chain().contains("qemu-nbd ended while the image was attached"), "{error:?}");
        assert!(error.chain().contains("signal: 9"), "{error:?}");
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_nothing_left(number, &image.path);
    }
}

/// A block that O_DIRECT takes.
#[repr(align(4096))]
struct Aligned([u8; 256 << 10]);

impl Aligned {
    fn new() -> Box<Self> {
        Box::new(Self([1; 256 << 10]))
    }
}

#[test]
fn a_server_that_hangs_is_given_up_by_drop() {
    let Some(_host) = host() else { return };
    let image = Image::new("64M");
    let disk = image.attach();
    let (number, server) = (index(&disk), servers(&image.path)[0]);
    kill(Pid::from_raw(server), Signal::SIGSTOP).unwrap();
    let device = disk.device().to_path_buf();
    let writer = std::thread::spawn(move || {
        let mut device = OpenOptions::new().write(true).custom_flags(nix::libc::O_SYNC).open(device).unwrap();
        device.write_all(&[1; 4096]).unwrap_err()
    });
    std::thread::sleep(Duration::from_millis(200));
    let started = Instant::now();
    drop(disk);
    assert_eq!(writer.join().unwrap().raw_os_error(), Some(nix::libc::EIO));
    println!("dropped in {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_nothing_left(number, &image.path);
}

/// A run of its own that holds the image; ready to be killed, with the index of its device.
fn start_run(image: &Image, stage: &str) -> (Child, u32) {
    let mut run = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "deaths::a_run_to_be_killed", "--nocapture"])
        .env(HELD, &image.path)
        .env(STAGE, stage)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(run.stdout.take().unwrap()).lines();
    let number = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("ready ")?.parse().ok());
    (run, number.expect("the run is ready"))
}

#[test]
fn a_run_killed_at_any_moment_leaves_nothing() {
    let Some(_host) = host() else { return };
    for (round, stage) in ["attached", "mounted", "mounted", "looped", "looped"].into_iter().enumerate() {
        let image = Image::new("1G");
        let (mut run, number) = start_run(&image, stage);
        assert_eq!(servers(&image.path).len(), 1);
        assert!(in_use(number));
        run.kill().unwrap();
        let started = Instant::now();
        run.wait().unwrap();
        let reaped = started.elapsed();
        until("the server is gone", || servers(&image.path).is_empty());
        println!(
            "round {round} ({stage}): reaped {reaped:?} after the kill, nothing left after {:?}",
            started.elapsed()
        );
        assert_nothing_left(number, &image.path);
        assert_eq!(crate::host::run("losetup -l -n -O BACK-FILE"), "");
        // The image's lock is free again, and the server has answered all that the kernel wrote on the way out.
        crate::host::run(&format!("qemu-img check -q {}", image.path.display()));
        let disk = image.attach();
        if stage != "attached" {
            let (device, folder) = (disk.device().display(), image.folder.path().join("mnt"));
            crate::host::run(&format!("mount -t ext4 {device} {}", folder.display()));
            let file = fs::read(folder.join("file")).unwrap();
            crate::host::run(&format!("umount {}", folder.display()));
            assert!(file.len() >= WRITTEN * MIB && file.iter().all(|byte| *byte == 1), "{}", file.len());
        }
        disk.close().unwrap();
    }
}

#[test]
fn what_a_run_and_its_server_leave_when_killed_together_is_cleared_by_the_next() {
    let Some(_host) = host() else { return };
    let image = Image::new("1G");
    let (mut run, number) = start_run(&image, "mounted");
    let server = Pid::from_raw(servers(&image.path)[0]);
    // What the run has to write on its way out gets no answer any more.
    kill(server, Signal::SIGSTOP).unwrap();
    run.kill().unwrap();
    until("the run is dying", || left_behind().contains(&number));
    kill(server, Signal::SIGKILL).unwrap();
    until("the server is gone", || servers(&image.path).is_empty());
    assert!(in_use(number));
    let started = Instant::now();
    Image::new("16M").attach().close().unwrap();
    run.wait().unwrap();
    println!("cleared in {:?}", started.elapsed());
    assert_nothing_left(number, &image.path);
}

/// Not a test of its own: the run that the test above kills. It mounts in a namespace of its own, has much to write
/// and goes on writing.
#[test]
fn a_run_to_be_killed() {
    let Some(path) = std::env::var_os(HELD) else { return };
    let stage = std::env::var(STAGE).unwrap();
    let layers = serde_json::json!({
        "driver": "qcow2", "file": {"driver": "file", "filename": path.to_str().unwrap()}, "backing": null,
    });
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    nix::mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    let disk = crate::host::attach(&crate::host::spec(layers)).unwrap();
    let mountpoint = std::path::Path::new(&path).with_file_name("mnt");
    fs::create_dir(&mountpoint).unwrap();
    let file = match stage.as_str() {
        "attached" => disk.device().to_path_buf(),
        _ => {
            let options = if stage == "looped" { "-o loop" } else { "" };
            let (device, folder) = (disk.device().display(), mountpoint.display());
            run(&format!("mkfs.ext4 -q -F {device} && mount -t ext4 {options} {device} {folder}"));
            mountpoint.join("file")
        }
    };
    let mut file = OpenOptions::new().write(true).create(stage != "attached").open(file).unwrap();
    let block = vec![1; MIB];
    (0..WRITTEN).for_each(|_| file.write_all(&block).unwrap());
    println!("\nready {}", index(&disk));
    loop {
        file.write_all(&block).unwrap();
    }
}
