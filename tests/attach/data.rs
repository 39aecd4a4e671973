//! Where an attached disk has data, in each way of attaching: all data is named, and holes are neither named nor read.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use guestseal::attach::{AttachedDisk, ImageSpec, Way};
use guestseal::erase::extent::{Extent, Extents};
use guestseal::sys::namespace::{RunFolder, enter_private_mounts};
use serde_json::{Value, json};

use super::{alone, shown, ways};

const GIB: u64 = 1 << 30;
const SIZE: u64 = 100 * GIB;

/// Attaches in a mount namespace of its own.
fn attached<T: Send + 'static>(
    (layers, way): (Value, Way),
    test: impl FnOnce(&AttachedDisk) -> T + Send + 'static,
) -> T {
    let run = move || {
        enter_private_mounts().unwrap();
        let run = RunFolder::mount().unwrap();
        let disk =
            AttachedDisk::attach(&ImageSpec { layers, read_only: false, files: None }, way, run.path())
                .unwrap();
        let result = test(&disk);
        disk.close().unwrap();
        run.close().unwrap();
        result
    };
    thread::spawn(run).join().unwrap()
}

fn file(folder: &Path, name: &str) -> Value {
    json!({"driver": "file", "filename": folder.join(name), "discard": "unmap"})
}

fn raw(folder: &Path, name: &str) -> Value {
    // qemu-img would write a block of zeros.
    File::create(folder.join(name)).unwrap().set_len(SIZE).unwrap();
    json!({"driver": "raw", "file": file(folder, name)})
}

fn qcow2(folder: &Path, name: &str, backing: &Value) -> Value {
    let path = folder.join(name);
    let made = Command::new("qemu-img").args(["create", "-q", "-f", "qcow2"]).arg(path).arg("100G").output();
    assert!(made.as_ref().unwrap().status.success(), "{}", shown(&made.unwrap()));
    json!({"driver": "qcow2", "file": file(folder, name), "backing": backing, "discard": "unmap"})
}

/// Writes, flushes, and reads back where there is data; with the time that telling took.
fn written(disk: &AttachedDisk, pieces: &[(u64, &[u8])]) -> (Extents, Duration) {
    let file = disk.open().unwrap();
    pieces.iter().for_each(|(place, bytes)| file.write_all_at(bytes, *place).unwrap());
    file.sync_all().unwrap();
    let started = Instant::now();
    (disk.data(Extent { start: 0, length: SIZE }).unwrap(), started.elapsed())
}

fn has(data: &Extents, start: u64, length: u64) -> bool {
    data.within(start, start + length).bytes() == length
}

/// What holds everywhere: data is named, not much else, and at once.
fn check(disk: &AttachedDisk) {
    let (empty, _) = written(disk, &[]);
    assert_eq!(empty.bytes(), 0, "an empty disk has no data");
    let block = [0x5a; 4096];
    let (data, time) = written(disk, &[(0, &block), (7 * GIB + 65536, &block), (SIZE - 4096, &block)]);
    for place in [0, 7 * GIB + 65536, SIZE - 4096] {
        assert!(has(&data, place, 4096), "{place}: {data:?}");
    }
    assert!(data.bytes() <= 3 * 65536 && data.count() == 3, "{data:?}");
    assert!(time < Duration::from_secs(20), "{time:?}: the holes were read");
    // The answer keeps to the question.
    let part = disk.data(Extent { start: 7 * GIB + 65536 + 512, length: 1024 }).unwrap();
    assert_eq!(part, data.within(7 * GIB + 65536 + 512, 7 * GIB + 65536 + 1536));
    assert_eq!(disk.data(Extent { start: GIB, length: 5 * GIB }).unwrap().bytes(), 0);
    assert_eq!(disk.data(Extent { start: GIB, length: 0 }).unwrap().bytes(), 0);
}

#[test]
fn qcow2_over_a_base_and_without() {
    let _alone = alone();
    let way = if ways() == ["nbd"] { Way::Nbd } else { Way::Fuse };
    let folder = tempfile::tempdir().unwrap();
    let base = qcow2(folder.path(), "base.qcow2", &Value::Null);
    attached((base.clone(), way), check);
    let top = qcow2(folder.path(), "top.qcow2", &base);
    attached((top, way), |disk| {
        let block = [0xa5; 65536];
        let (data, _) = written(disk, &[(3 * GIB, &block)]);
        // Its own, and what shines through from below.
        assert!(has(&data, 3 * GIB, 65536) && has(&data, 7 * GIB + 65536, 4096), "{data:?}");
        assert!(data.bytes() <= 4 * 65536, "{data:?}");
    });
}

#[test]
fn a_raw_file_below_a_server_and_by_itself() {
    let _alone = alone();
    let served = if ways() == ["nbd"] { Way::Nbd } else { Way::Fuse };
    for way in [served, Way::Loop] {
        let folder = tempfile::tempdir().unwrap();
        attached((raw(folder.path(), "disk.raw"), way), check);
    }
}

#[test]
fn a_disk_in_many_pieces_is_told_whole() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let layers = raw(folder.path(), "disk.raw");
    let disk = File::options().write(true).open(folder.path().join("disk.raw")).unwrap();
    (0..20_000u64).for_each(|piece| disk.write_all_at(b"data", piece << 16).unwrap());
    let way = if ways() == ["nbd"] { Way::Nbd } else { Way::Fuse };
    let data = attached((layers, way), |disk| written(disk, &[]));
    println!("20,000 pieces in {:?}", data.1);
    assert_eq!(data.0.count(), 20_000);
    assert!((0..20_000).all(|piece| has(&data.0, piece << 16, 4)));
}
