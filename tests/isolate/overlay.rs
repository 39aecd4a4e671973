//! A machine on the overlay of a locked image: as a run has it.

use guestseal::ErrorKind;
use guestseal::attach::ImageSpec;
use guestseal::image::info::Image;
use guestseal::image::lock::{LockedImage, Use};
use guestseal::image::overlay::Overlay;
use guestseal::image::past::Past;
use guestseal::sys::tool::Tool;
use guestseal::vm::initramfs::Contents;
use guestseal::vm::trial::Ask;

use crate::rig::{ask, kernel, start};

#[test]
fn the_overlay_takes_what_is_written_and_the_image_stays_locked_and_whole() {
    let Some(kernel) = kernel() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image.qcow2");
    let make =
        Tool::find("qemu-img").unwrap().spawn().args(["create", "-q", "-f", "qcow2"]).arg(&path).arg("8M");
    make.output(0).unwrap().0.success().unwrap();
    let image = Image::open(&path, None, Use::Commit, Past::default()).unwrap();
    let overlay = Overlay::make(&image, folder.path()).unwrap();
    let before = overlay.file().metadata().unwrap().len();
    let is_busy = || LockedImage::open(&path, Use::Commit).unwrap_err().kind() == ErrorKind::Busy;

    let disk = ImageSpec { layers: overlay.node(&image), read_only: false, files: None };
    let mut machine = start(&kernel, &[disk], Contents::Plain).unwrap();
    ask(&mut machine, &Ask::Fill(0, 0x5a));
    assert_eq!(ask(&mut machine, &Ask::Look(0)), "5a".repeat(16));
    assert!(is_busy());
    machine.close().unwrap();
    assert!(is_busy(), "qemu gave the lock of the run back");
    assert!(image.is_untouched().unwrap());
    assert!(overlay.file().metadata().unwrap().len() > before);
    drop(image);
    LockedImage::open(&path, Use::Commit).unwrap();
}
