//! Markers beside the root filesystem: in the ESP and in swap space.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::common::{shell, tool};
use crate::scan::{lines, marker, text};

/// What a swap area is known by.
pub(crate) const SWAP_LABEL: &str = "canaryswap";
pub(crate) const SWAP_UUID: &str = "93f7cafd-1bf3-491f-9030-7bcbd7bd0429";

/// Makes an ESP in which files were deleted. This is done by mtools: not every kernel has vfat.
pub(crate) fn plant_esp(image: &Path, folder: &Path) {
    let (esp, files) = (image.display(), folder.join("esp-files"));
    tool("mkfs.vfat", [Path::new("-n"), Path::new("ESP"), image]);
    fs::create_dir(&files).unwrap();
    fs::write(files.join("BOOTX64.EFI"), "a boot loader\n".repeat(5000)).unwrap();
    for number in 0..20 {
        fs::write(files.join(format!("GSCAN{number:03}.ESP")), lines("esp", 200)).unwrap();
        let long = format!("QzJxq{number:08}").repeat(3);
        fs::write(files.join(long), marker("espdir", number)).unwrap();
    }
    // One folder stays with deleted entries in it, one goes as a whole.
    let files = files.display();
    shell(&format!(
        "export MTOOLS_SKIP_CHECK=1; mmd -i {esp} ::/EFI ::/EFI/BOOT ::/OLD
         mcopy -i {esp} {files}/BOOTX64.EFI ::/EFI/BOOT/; mcopy -i {esp} {files}/GSCAN* {files}/Qz* ::/EFI/BOOT/
         mcopy -i {esp} {files}/GSCAN* {files}/Qz* ::/OLD/
         mdel -i {esp} '::/EFI/BOOT/GSCAN*' '::/EFI/BOOT/Qz*'; mdeltree -i {esp} ::/OLD"
    ));
    shell(&format!("rm -r {files}"));
}

/// The boot loader in the ESP of this disk, where the ESP begins at byte `offset`.
pub(crate) fn boot_loader(disk: &Path, offset: u64) -> String {
    let place = format!("MTOOLS_SKIP_CHECK=1 mtype -i {}@@{offset}", disk.display());
    shell(&format!("{place} ::/EFI/BOOT/BOOTX64.EFI | sha256sum"))
}

/// Makes swap space with pages in it.
pub(crate) fn plant_swap(area: &Path) {
    let args = ["-q", "-L", SWAP_LABEL, "-U", SWAP_UUID].map(Path::new);
    fs::set_permissions(area, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    tool("mkswap", args.into_iter().chain([area]));
    let file = File::options().write(true).open(area).unwrap();
    let pages = file.metadata().unwrap().len() / 4096;
    for page in [1, 2, 77, 512, pages - 1] {
        file.write_all_at(text("swap", 3800).as_bytes(), page * 4096).unwrap();
    }
}

/// Makes a swap file whose pages hold markers.
pub(crate) fn plant_swap_file(path: &Path, kind: &str) {
    fs::write(path, "").unwrap();
    if kind == "btrfs" {
        // Linux swaps to no other file there: btrfs(5).
        tool("chattr", [Path::new("+C"), path]);
    }
    fs::write(path, vec![0; 4 << 20]).unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    tool("mkswap", [Path::new("-q"), Path::new("-Lfileswap"), path]);
    let file = File::options().write(true).open(path).unwrap();
    for page in [1, 2, 77, 1023] {
        file.write_all_at(text("swapfile", 3800).as_bytes(), page * 4096).unwrap();
    }
}
