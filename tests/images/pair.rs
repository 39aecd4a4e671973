//! A guest on two disks: the root with fstab and swap on the first, /home on the second, deleted data on both.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{shell, tool};
use crate::disks::{Label, make_disk, volume};
use crate::mounts::in_private_mounts;

/// The filesystem on the second disk, by which fstab knows it.
const HOME: &str = "6b1f42fe-8a23-4d0c-9a26-0c5bb0f3a7d1";
/// What was deleted on each disk, and what alice's history holds, which sealing deletes.
const DELETED: [&str; 2] = ["deleted-on-the-first-disk-7261", "deleted-on-the-second-disk-1893"];
const HISTORY: &str = "typed-by-alice-on-the-second-disk-5540";

/// Makes both in this folder, in these formats.
pub(crate) fn make_pair(folder: &Path, formats: [&str; 2]) -> [PathBuf; 2] {
    let raw = ["root.made", "home.made"].map(|name| folder.join(name));
    let volumes = [volume(160, "ext4", "/", "UUID"), volume(32, "swap", "-", "-")];
    let fstab = format!("UUID={HOME} /home ext4 defaults 0 2\n");
    make_disk(&raw[0], Label(Some("gpt"), 512), &volumes, &fstab);
    fs::File::create(&raw[1]).unwrap().set_len(96 << 20).unwrap();
    tool("mkfs.ext4", ["-q", "-F", "-U", HOME, raw[1].to_str().unwrap()]);
    in_private_mounts(|| {
        let root = tempfile::tempdir_in("/var/tmp").unwrap();
        let home = tempfile::tempdir_in("/var/tmp").unwrap();
        let mount = |image: &Path, options: &str, at: &Path| {
            tool("mount", [Path::new("-o"), Path::new(options), image, at]);
        };
        mount(&raw[0], "loop,offset=1048576,sizelimit=167772160", root.path());
        mount(&raw[1], "loop", home.path());
        // The users' homes are where their passwd says, which is on the second disk.
        shell(&format!(
            "cp -a {0}/home/. {1}/ && rm -rf {0}/home/*",
            root.path().display(),
            home.path().display()
        ));
        fs::write(home.path().join("alice/.bash_history"), format!("{HISTORY}\n").repeat(500)).unwrap();
        for (disk, text) in [root.path(), home.path()].iter().zip(DELETED) {
            fs::write(disk.join("gone"), format!("{text}\n").repeat(5000)).unwrap();
        }
        nix::unistd::sync();
        for disk in [root.path(), home.path()] {
            fs::remove_file(disk.join("gone")).unwrap();
        }
        tool("umount", [root.path(), home.path()]);
    });
    let images =
        [("root", formats[0]), ("home", formats[1])].map(|(name, end)| folder.join(format!("{name}.{end}")));
    for ((raw, image), format) in raw.iter().zip(&images).zip(formats) {
        let words = ["convert", "-q", "-f", "raw", "-O", format].map(Path::new);
        tool("qemu-img", words.into_iter().chain([raw.as_path(), image]));
        fs::remove_file(raw).unwrap();
    }
    images
}

/// How many lines of what was deleted the bytes of the files themselves hold: each disk's, and the history's.
pub(crate) fn lines_left(images: &[PathBuf; 2]) -> [usize; 3] {
    let count = |text: &str, image: &Path| {
        let found = shell(&format!("{{ grep -aoF {text} {} || true; }} | wc -l", image.display()));
        found.trim().parse().unwrap()
    };
    [count(DELETED[0], &images[0]), count(DELETED[1], &images[1]), count(HISTORY, &images[1])]
}

/// Fails unless alice's home is on the second disk without her history.
pub(crate) fn home_is_sealed(raw: &Path) {
    in_private_mounts(|| {
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        tool("mount", [Path::new("-o"), Path::new("loop,ro"), raw, folder.path()]);
        assert!(folder.path().join("alice").is_dir());
        assert!(!folder.path().join("alice/.bash_history").exists(), "the history is still there");
        tool("umount", [folder.path()]);
    });
    tool("e2fsck", [Path::new("-fn"), raw]);
}
