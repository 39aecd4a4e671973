//! New UUIDs on real images: every filesystem has another one, nothing in the guest names the old ones, and the
//! filesystems' own checkers find nothing wrong. Needs root.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails or says so")]

#[path = "../images/common.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod common;
#[path = "../images/disks.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod disks;
#[path = "../images/guests.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod guests;
#[path = "../images/mounts.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod mounts;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{guestseal, ready, shell};
use crate::disks::{Label, Volume, make_disk, volume};
use crate::mounts::{Access, check_filesystems, with_guest};

/// What stands in the guest besides what its fstab says; `{NAME}` is the UUID of a volume, in capitals `{NAME:U}`.
const FILES: [(&str, &str); 10] = [
    (
        "boot/grub/grub.cfg",
        "search --no-floppy --fs-uuid --set=root {vol1}\nlinux /vmlinuz root=UUID={vol2} ro\n",
    ),
    ("boot/grub2/grubenv", "# GRUB Environment Block\nkernelopts=root=UUID={vol2} ro\n"),
    ("boot/loader/entries/a.conf", "title A\noptions root=UUID={vol2} resume=UUID={vol3}\n"),
    ("etc/kernel/cmdline", "root=/dev/disk/by-uuid/{vol2} ro\n"),
    ("etc/default/grub", "GRUB_CMDLINE_LINUX=\"resume=UUID={vol3:U}\"\n"),
    ("etc/initramfs-tools/conf.d/resume", "RESUME=UUID={vol3}\n"),
    ("etc/dracut.conf.d/resume.conf", "add_device+=\" /dev/disk/by-uuid/{vol3} \"\n"),
    ("etc/crypttab", "swap UUID={vol3} /dev/urandom swap\n"),
    ("etc/systemd/system/data.mount", "[Mount]\nWhat=/dev/disk/by-uuid/{vol2}\n"),
    ("boot/syslinux/syslinux.cfg", "append root=UUID={vol2}\n"),
];
/// What the guest starts with: an archive, how it is packed, and the files in it.
const ARCHIVES: [(&str, &str); 2] = [("boot/initrd.img-6.1", "zstd -q"), ("boot/initramfs-6.1.img", "gzip")];
const IN_ARCHIVES: [(&str, &str); 2] =
    [("conf/conf.d/resume", "RESUME=UUID={vol3}\n"), ("etc/cmdline.d/root.conf", "root=UUID={vol2}\n")];
/// A file that no operation looks at, and one that is no text.
const OTHERS: [&str; 2] = ["srv/notes", "etc/default/grub.d/binary.cfg"];

struct Image {
    folder: TempDir,
    path: PathBuf,
    /// UUIDs by the names of volumes.
    uuids: BTreeMap<String, String>,
}

impl Image {
    fn new(volumes: &[Volume]) -> Self {
        let folder = tempfile::Builder::new().prefix("guestseal-uuids-").tempdir_in("/var/tmp").unwrap();
        let path = folder.path().join("guest.img");
        make_disk(&path, Label(Some("gpt"), 512), volumes, "");
        let mut image = Self { folder, path, uuids: BTreeMap::new() };
        let inspection = image.inspection();
        image.uuids = uuids(&inspection);
        with_guest(&image.path, &inspection, Access::Write, |root| image.plant(root));
        image
    }

    /// Where the archive is as it was before.
    fn kept(&self, name: &str) -> PathBuf {
        self.folder.path().join(Path::new(name).file_name().unwrap())
    }

    fn inspection(&self) -> Value {
        self.guestseal("inspect --json").expect(0).result()["inspection"].clone()
    }

    #[track_caller]
    fn guestseal(&self, words: &str) -> common::Ran {
        guestseal(words, &[&self.path])
    }

    fn plant(&self, root: &Path) {
        let write = |name: &str, text: &[u8]| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        };
        for (name, text) in FILES {
            let mut text = filled(text, &self.uuids);
            if name.ends_with("grubenv") {
                text = format!("{text:#<1024}");
            }
            fs::set_permissions(write(name, text.as_bytes()), PermissionsExt::from_mode(0o640)).unwrap();
        }
        for (name, pack) in ARCHIVES {
            let unpacked = self.folder.path().join("unpacked");
            for (name, text) in IN_ARCHIVES {
                fs::create_dir_all(unpacked.join(name).parent().unwrap()).unwrap();
                fs::write(unpacked.join(name), filled(text, &self.uuids)).unwrap();
            }
            let kept = self.kept(name);
            shell(&format!(
                "cd {} && find . | cpio -o -H newc --quiet | {pack} >{}",
                unpacked.display(),
                kept.display()
            ));
            write(name, &fs::read(kept).unwrap());
        }
        let both = format!("{} {}", self.uuids["vol1"], self.uuids["vol2"]);
        write(OTHERS[0], both.as_bytes());
        write(OTHERS[1], format!("\0{both}").as_bytes());
        if let Some(swap) = self.uuids.get("vol3") {
            let fstab = fs::read_to_string(root.join("etc/fstab")).unwrap();
            fs::write(root.join("etc/fstab"), format!("{fstab}UUID={swap} none swap sw 0 0\n")).unwrap();
        }
    }
}

fn filled(text: &str, uuids: &BTreeMap<String, String>) -> String {
    ["vol1", "vol2", "vol3"].iter().fold(text.to_owned(), |text, name| {
        let uuid = uuids.get(*name).cloned().unwrap_or_default();
        text.replace(&format!("{{{name}}}"), &uuid).replace(&format!("{{{name}:U}}"), &uuid.to_uppercase())
    })
}

/// The UUIDs of volumes by their labels.
fn uuids(inspection: &Value) -> BTreeMap<String, String> {
    let volumes = inspection["storage"]["volumes"].as_array().unwrap().iter();
    let pair = |volume: &Value| {
        let text = |name: &str| volume["superblock"][name].as_str().map(str::to_owned);
        Some((text("label")?, text("uuid")?))
    };
    volumes.filter_map(pair).collect()
}

/// Seals an image with a boot partition, this root and swap space, and looks at everything.
#[track_caller]
fn sealed(root: &'static str, points: &'static str) {
    if !ready() {
        return;
    }
    let volumes = [
        volume(64, "ext4", "/boot", "UUID"),
        volume(if root == "xfs" { 320 } else { 160 }, root, points, "UUID"),
        volume(32, "swap", "-", "-"),
    ];
    let image = Image::new(&volumes);
    let before = fs::metadata(&image.path).unwrap().mtime_nsec();
    let dry = image.guestseal("seal --dry-run --json --operations fs-uuids").expect(0).result();
    let operation = dry["operations"][0].clone();
    assert_eq!(
        (operation["name"].as_str(), operation["outcome"].as_str()),
        (Some("fs-uuids"), Some("changed"))
    );
    assert!(operation["notes"].to_string().contains(&image.uuids["vol2"]), "{operation:#}");
    assert_eq!(fs::metadata(&image.path).unwrap().mtime_nsec(), before);

    let report = image.guestseal("seal --json --operations fs-uuids").expect(0).result();
    let inspection = image.inspection();
    let now = uuids(&inspection);
    for (name, old) in &image.uuids {
        assert!(now[name] != *old && now[name].len() == 36, "{name} has {}", now[name]);
        assert!(
            report["operations"][0]["notes"].to_string().contains(&format!("{old} becomes {}", now[name]))
        );
    }
    let files = |operation: &Value| operation["files"].as_array().map_or(0, Vec::len);
    let changed = &report["operations"][0];
    let all = FILES.len() + ARCHIVES.len() + 1;
    assert_eq!((files(changed), files(&operation)), (all, all), "{changed:#}");
    assert!(changed["notes"].to_string().contains("binary.cfg"), "{changed:#}");
    for volume in report["erasure"]["volumes"].as_array().unwrap() {
        assert_eq!(volume["bytes-nonzero"], 0, "{volume:#}");
    }
    check_filesystems(&image.path, &inspection);
    with_guest(&image.path, &inspection, Access::Look, |root| {
        for (name, text) in FILES {
            let path = root.join(name);
            let mut wanted = filled(text, &now);
            if name.ends_with("grubenv") {
                wanted = format!("{wanted:#<1024}");
            }
            assert_eq!(fs::read_to_string(&path).unwrap(), wanted, "{name}");
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640, "{name}");
        }
        archives_are_mended(&image, root, &now);
        let fstab = fs::read_to_string(root.join("etc/fstab")).unwrap();
        for (name, old) in &image.uuids {
            assert!(!fstab.contains(old.as_str()) && fstab.contains(&now[name]), "{fstab}");
        }
        for name in OTHERS {
            let text = fs::read(root.join(name)).unwrap();
            assert!(String::from_utf8_lossy(&text).contains(&image.uuids["vol1"]), "{name}");
        }
    });
    verified(&image, &inspection);
}

/// Behind each archive comes one that has its files with new UUIDs.
fn archives_are_mended(image: &Image, root: &Path, now: &BTreeMap<String, String>) {
    for (name, _) in ARCHIVES {
        let (old, new) = (fs::read(image.kept(name)).unwrap(), fs::read(root.join(name)).unwrap());
        let start = old.len().next_multiple_of(4);
        assert!(new.starts_with(&old) && new[old.len()..start].iter().all(|byte| *byte == 0), "{name}");
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("segment"), &new[start..]).unwrap();
        shell(&format!(
            "cd {} && mkdir -p conf/conf.d etc/cmdline.d && cpio -i --quiet <segment",
            folder.path().display()
        ));
        for (name, text) in IN_ARCHIVES {
            assert_eq!(fs::read_to_string(folder.path().join(name)).unwrap(), filled(text, now), "{name}");
        }
    }
}

/// The record has the new UUIDs, and `verify` finds what has an old one again.
fn verified(image: &Image, inspection: &Value) {
    let record = image.path.with_file_name("guest.img.seal.json");
    let record: Value = serde_json::from_str(&fs::read_to_string(record).unwrap()).unwrap();
    let recorded = record["predicate"]["operations"][0]["uuids"].as_array().unwrap();
    assert_eq!(recorded.len(), image.uuids.len(), "{recorded:#?}");
    image.guestseal("verify").expect(0);
    let fstab = |from: &BTreeMap<String, String>, to: &BTreeMap<String, String>| {
        with_guest(&image.path, inspection, Access::Write, |root| {
            let path = root.join("etc/fstab");
            let text = fs::read_to_string(&path).unwrap();
            fs::write(&path, text.replace(&from["vol3"], &to["vol3"])).unwrap();
        });
    };
    fstab(&uuids(inspection), &image.uuids);
    let found = image.guestseal("verify --json").expect(5).result();
    assert_eq!(found["found"][0]["files"][0]["path"], "/etc/fstab", "{found:#}");
}

#[test]
fn ext4() {
    sealed("ext4", "/");
}

#[test]
fn xfs() {
    sealed("xfs", "/");
}

#[test]
fn btrfs_with_subvolumes() {
    sealed("btrfs", "@ /,@home /home");
}

/// A boot loader that has the UUID built in would not find its configuration.
#[test]
fn what_cannot_be_mended_is_refused() {
    if !ready() {
        return;
    }
    let image = Image::new(&[volume(64, "ext4", "/boot", "UUID"), volume(160, "ext4", "/", "UUID")]);
    let inspection = image.inspection();
    let program = "boot/EFI/arch/grubx64.efi";
    with_guest(&image.path, &inspection, Access::Write, |root| {
        fs::create_dir_all(root.join("boot/EFI/arch")).unwrap();
        let text = format!("MZ\0\0search.fs_uuid {} root\n\0", image.uuids["vol1"]);
        fs::write(root.join(program), [vec![0x90; (1 << 20) - 30], text.into_bytes()].concat()).unwrap();
    });
    image.guestseal("seal --operations fs-uuids").expect(6).says(&[
        program,
        "built in",
        "make that program anew",
    ]);
    assert_eq!(uuids(&image.inspection()), image.uuids);
    image.guestseal("seal --operations luks-uuids,md-uuids,lvm-uuids").expect(0);
    assert_eq!(uuids(&image.inspection()), image.uuids);
    // A tree has no volumes.
    let tree = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::create_dir_all(tree.path().join("guest/etc")).unwrap();
    fs::write(tree.path().join("guest/etc/os-release"), "ID=arch\n").unwrap();
    guestseal("seal --operations fs-uuids --tree", &[&tree.path().join("guest")])
        .expect(6)
        .says(&["no volumes"]);
}
