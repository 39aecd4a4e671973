//! Writes that fail after whoever wrote them has gone: closing a device or a disk must tell.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use guestseal::attach::loopdev::Loop;
use guestseal::attach::{AttachedDisk, ImageSpec, Way};
use guestseal::mount::Devices;
use guestseal::sys::ioctl::LoopWindow;
use guestseal::sys::namespace::RunFolder;
use serde_json::json;

use crate::common::{ready, tool};
use crate::mounts::in_private_mounts;

const MIB: u64 = 1 << 20;

/// Works in a filesystem in memory of 4 MiB.
fn on_four_mib<T: Send>(work: impl FnOnce(&Path) -> T + Send) -> T {
    in_private_mounts(|| {
        let folder = tempfile::Builder::new().prefix("guestseal-small-").tempdir_in("/var/tmp").unwrap();
        tool("mount", ["-t", "tmpfs", "-o", "size=4m", "small", folder.path().to_str().unwrap()]);
        let result = work(folder.path());
        tool("umount", ["-l", folder.path().to_str().unwrap()]);
        result
    })
}

#[test]
fn a_loop_device_tells_of_writes_that_found_no_room() {
    if !ready() {
        return;
    }
    for full in [false, true] {
        let closed = on_four_mib(|folder| {
            let backing =
                File::options().create_new(true).read(true).write(true).open(folder.join("disk")).unwrap();
            backing.set_len(16 * MIB).unwrap();
            let window = LoopWindow { offset: 0, length: 16 * MIB, block_size: 512, read_only: false };
            let device = Loop::attach(&backing, window).unwrap();
            let node = File::options().write(true).open(device.path()).unwrap();
            let length = if full { 8 * MIB } else { MIB };
            node.write_all_at(&vec![7; usize::try_from(length).unwrap()], 0).unwrap();
            // The kernel writes it out now, and has nobody to tell.
            drop(node);
            device.close()
        });
        assert_eq!(closed.is_err(), full, "{closed:?}");
    }
}

/// What the daemon keeps for later, the tables of a qcow2, cannot be written: the flush tells, and without one the end.
#[test]
fn an_export_tells_of_tables_that_it_could_not_write() {
    if !ready() {
        return;
    }
    for (bad, flushed) in [(false, true), (false, false), (true, true), (true, false)] {
        let closed = on_four_mib(|folder| {
            let image = folder.join("disk.qcow2");
            tool("qemu-img", ["create", "-q", "-f", "qcow2", image.to_str().unwrap(), "64M"]);
            // Its first table, which is written when it is made.
            tool("qemu-io", ["-f", "qcow2", "-c", "write 1M 64k", image.to_str().unwrap()]);
            let file = json!({ "driver": "file", "filename": image, "cache": { "no-flush": true } });
            let rules = json!([{ "event": "l2_update", "errno": 5, "once": false }]);
            let failing = json!({ "driver": "blkdebug", "inject-error": rules, "image": file });
            let layers = json!({ "driver": "qcow2", "file": if bad { failing } else { file } });
            let spec = ImageSpec { layers, read_only: false, files: None };
            let run = RunFolder::mount().unwrap();
            let disk = AttachedDisk::attach(&spec, Way::Fuse, run.path()).unwrap();
            let devices = Devices::new(std::slice::from_ref(&disk)).unwrap();
            disk.open().unwrap().write_all_at(&[7; 4096], 0).unwrap();
            let flush = if flushed {
                devices.close()
            } else {
                drop(devices);
                Ok(())
            };
            let end = disk.close();
            run.close().unwrap();
            (flush, end)
        });
        assert_eq!(closed.0.is_err(), bad && flushed, "{closed:?}");
        assert_eq!(closed.1.is_err(), bad, "{closed:?}");
        println!("{closed:?}");
    }
}
