//! Machines that go on from one that was kept.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use guestseal::attach::ImageSpec;
use guestseal::vm::Machine;
use guestseal::vm::cache::Cache;
use guestseal::vm::initramfs::Contents;
use guestseal::vm::trial::Ask;

use crate::rig::{ask, disk, kernel, start_from};

/// How far a machine's clock may be behind.
const CLOCK: Duration = Duration::from_millis(1500);

#[test]
fn the_third_start_goes_on_from_a_kept_machine_with_its_own_time_numbers_and_disks() {
    let Some(kernel) = kernel() else { return };
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(&folder.path().join("cache")).unwrap();
    let (_, small) = disk(folder.path(), "small", 1 << 20, b"the small disk..");
    let (_, large) = disk(folder.path(), "large", 5 << 20, b"the large disk..");
    let start =
        |disk: &ImageSpec| start_from(&cache, &kernel, std::slice::from_ref(disk), Contents::Plain).unwrap();

    let first = start(&small);
    assert!(!first.is_thawed());
    first.close().unwrap();
    let thawed = |disk| {
        let mut machine = start(disk);
        assert!(machine.is_thawed());
        is_now(&mut machine);
        let number = ask(&mut machine, &Ask::Read("/proc/sys/kernel/random/uuid".into()));
        let disks = machine.disks().to_vec();
        machine.close().unwrap();
        (number, disks)
    };
    let (second, disks) = thawed(&small);
    assert_eq!(disks, [1 << 20]);

    // One that is damaged is put away, and another is started: that takes some seconds, by which a clock that nobody
    // sets would be behind.
    let entries = fs::read_dir(folder.path().join("cache")).unwrap().flatten();
    let is_kept = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("frozen-");
    let kept = entries.map(|entry| entry.path()).find(is_kept).unwrap();
    let aside = folder.path().join("aside");
    fs::rename(&kept, &aside).unwrap();
    File::create(&kept).unwrap().set_len(fs::metadata(&aside).unwrap().len()).unwrap();
    let started = Instant::now();
    let machine = start(&small);
    assert!(!machine.is_thawed() && !kept.exists());
    machine.close().unwrap();
    assert!(started.elapsed() > CLOCK, "this test needs a slower machine");

    fs::rename(&aside, &kept).unwrap();
    let (third, disks) = thawed(&large);
    assert_eq!(disks, [5 << 20]);
    assert_ne!(second, third);
}

fn is_now(machine: &mut Machine) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let time = Duration::from_millis(ask(machine, &Ask::Time).parse().unwrap());
    assert!(time + CLOCK > now, "{time:?} is not {now:?}");
}
