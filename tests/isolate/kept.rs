//! Machines that go on from one that was kept.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{SystemTime, UNIX_EPOCH};

use guestseal::attach::ImageSpec;
use guestseal::vm::Machine;
use guestseal::vm::cache::Cache;
use guestseal::vm::initramfs::Contents;
use guestseal::vm::trial::Ask;

use crate::rig::{ask, disk, kernel, start_from};

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
    let [(second, second_number), (third, third_number)] = [&small, &large].map(|disk| {
        let mut machine = start(disk);
        assert!(machine.is_thawed());
        is_now(&mut machine);
        let number = ask(&mut machine, &Ask::Read("/proc/sys/kernel/random/uuid".into()));
        (machine, number)
    });
    assert_ne!(second_number, third_number);
    assert_eq!([second.disks(), third.disks()], [[1 << 20], [5 << 20]]);
    [second, third].map(Machine::close).into_iter().for_each(Result::unwrap);

    // One whose memory is damaged dies or is silent, and another is started.
    let entries = std::fs::read_dir(folder.path().join("cache")).unwrap().flatten();
    let is_kept =
        |path: &std::path::PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("frozen-");
    let kept = entries.map(|entry| entry.path()).find(is_kept).unwrap();
    let file = File::options().write(true).open(&kept).unwrap();
    file.write_all_at(&vec![0xff; 100 << 20], 16 << 20).unwrap();
    let machine = start(&small);
    assert!(!machine.is_thawed() && !kept.exists());
    machine.close().unwrap();
}

fn is_now(machine: &mut Machine) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let time: u64 = ask(machine, &Ask::Time).parse().unwrap();
    assert!(time.abs_diff(now) < 20, "{time} is not {now}");
}
