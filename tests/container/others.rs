//! VDI and VMDK files: what their maps do not name.

use guestseal::image::container::{clean, residue};
use guestseal::image::format::Format;

use crate::file::{Image, MARKER, ready};

#[test]
fn a_vdi_with_lost_blocks_and_a_tail() {
    if !ready() {
        return;
    }
    let image = Image::new("vdi", "", "24M");
    image.io(&["write {live} 0 2M", "write {marker} 4M 2M", "write {live} 8M 1M"]);
    let word = |at: u64| {
        let mut bytes = [0; 4];
        std::os::unix::fs::FileExt::read_exact_at(&image.open(), &mut bytes, at).unwrap();
        u64::from(u32::from_le_bytes(bytes))
    };
    let map = word(0x154);
    assert_eq!(word(map + 16), 2, "the fifth block is the third in the file");
    image.put(map + 16, &[0xff; 8]);
    let end = image.open().metadata().unwrap().len();
    image.put(end + 5, MARKER);
    let done = image.comes_clean();
    assert_eq!(done.unexamined, None);
}

#[test]
fn a_vmdk_with_lost_grains_and_a_tail() {
    if !ready() {
        return;
    }
    let image = Image::new("vmdk", "", "24M");
    image.io(&["write {live} 0 2M", "write {marker} 4M 2M", "write {live} 8M 1M"]);
    let read = |at: u64| {
        let mut bytes = [0; 8];
        std::os::unix::fs::FileExt::read_exact_at(&image.open(), &mut bytes, at).unwrap();
        u64::from_le_bytes(bytes)
    };
    for directory in [48, 56] {
        let table = (read(read(directory) * 512) & 0xffff_ffff) * 512;
        image.put(table + 64 * 4, &[0; 32 * 4]);
    }
    let end = image.open().metadata().unwrap().len();
    image.put(end + 5, MARKER);
    let done = image.comes_clean();
    assert_eq!(done.unexamined, None);
}

#[test]
fn what_cannot_be_told_is_said() {
    if !ready() {
        return;
    }
    let image = Image::new("vmdk", "", "24M");
    image.io(&["write {live} 0 2M", "write {marker} 4M 64k"]);
    // The first entry of a table is there twice.
    let directory = image.open();
    let mut sector = [0; 8];
    std::os::unix::fs::FileExt::read_exact_at(&directory, &mut sector, 56).unwrap();
    image.put(u64::from_le_bytes(sector) * 512, &[0; 4]);
    let said = residue(&image.open(), Format::Vmdk).unwrap();
    assert!(said.unexamined.unwrap().contains("differ"));
    assert_eq!(said.bytes_unreferenced, 0);
    let done = clean(&image.open(), Format::Vmdk).unwrap();
    assert_eq!(done.bytes_zeroed, 0);
    let done = clean(&image.open(), Format::Vhdx).unwrap();
    assert!(done.unexamined.unwrap().contains("--output"));
    let done = clean(&image.open(), Format::Raw).unwrap();
    assert_eq!(
        (done.bytes_zeroed, done.unexamined, done.method.as_str()),
        (0, None, "the file is the disk itself")
    );
}
