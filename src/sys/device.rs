//! Block devices of this host: what each is called, and what tells it from all others after the host was started anew,
//! when names and numbers are given out again. Source: /sys/dev/block (the kernel's Documentation/ABI), and where that says
//! nothing, udev's links in /dev/disk/by-id.

#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

/// Where udev keeps links whose names come from the hardware.
const BY_ID: &str = "/dev/disk/by-id";
/// Links of these names come from what is on the device, which a copy of it has as well, or from people.
const BY_OTHERS: [&str; 3] = ["dm-name-", "lvm-pv-uuid-", "md-name-"];

/// The name of a block device: of a volume of the device mapper its own, of others the kernel's.
pub fn name(number: u64) -> Option<String> {
    let folder = folder(number);
    let read = |file: &str| attribute(&folder, file);
    read("dm/name").or_else(|| Some(fs::canonicalize(&folder).ok()?.file_name()?.to_str()?.to_owned()))
}

/// What a block device is, in words that hold over a start of the host and for no other device. None when nothing says it.
pub fn unit(number: u64) -> Option<String> {
    let folder = folder(number);
    from_attributes(&|file| attribute(&folder, file))
        .or_else(|| linked(number).map(|link| format!("id {link}")))
}

/// Who on this host holds a block device or a partition of it, for people. None when that cannot be told.
pub fn holder(number: u64) -> Option<String> {
    let folder = fs::canonicalize(folder(number)).ok()?;
    let parts = fs::read_dir(&folder).ok()?.flatten().map(|entry| entry.path());
    let parts = parts.filter(|path| path.join("partition").exists());
    std::iter::once(folder.clone()).chain(parts).find_map(|device| held(&device))
}

fn held(device: &Path) -> Option<String> {
    let name = device.file_name()?.to_str()?;
    let number = attribute(device, "dev")?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if let Some(point) = mount_point(&mounts, &number) {
        return Some(format!("{name} is mounted at {point}"));
    }
    let above = fs::read_dir(device.join("holders")).ok()?.flatten().next()?.path();
    let above = attribute(&above, "dm/name").or_else(|| Some(above.file_name()?.to_str()?.to_owned()))?;
    Some(format!("{name} is a part of {above}"))
}

/// The first place at which the device of this number is mounted, by mountinfo (proc_pid_mountinfo(5)).
fn mount_point(mounts: &str, number: &str) -> Option<String> {
    let of = |line: &&str| line.split(' ').nth(2) == Some(number);
    Some(mounts.lines().find(of)?.split(' ').nth(4)?.to_owned())
}

fn folder(number: u64) -> PathBuf {
    PathBuf::from(format!("/sys/dev/block/{}:{}", major(number), minor(number)))
}

/// What stands in a file of sysfs; none where there is no such file, or nothing in it.
fn attribute(folder: &Path, file: &str) -> Option<String> {
    let text = fs::read_to_string(folder.join(file)).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// From the files that the kernel has of a device. That of a partition is its disk's and its place there; that of a loop
/// device is the file's, of which it is a window.
fn from_attributes(read: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    if read("partition").is_some() {
        let whole = from_attributes(&|file| read(&format!("../{file}")))?;
        return Some(format!("{whole} part {} {}", read("start")?, read("size")?));
    }
    if read("dm/dev").is_some() || read("dm/name").is_some() {
        return read("dm/uuid").map(|uuid| format!("dm {uuid}"));
    }
    if let Some(file) = read("loop/backing_file") {
        let inode = fs::metadata(&file).map(|metadata| metadata.ino()).ok()?;
        let window = [read("loop/offset")?, read("loop/sizelimit")?];
        return Some(format!("loop {} {} {inode} {file}", window[0], window[1]));
    }
    let known = [
        ("md/uuid", "md"),
        ("wwid", "wwid"),
        ("device/wwid", "wwid"),
        ("serial", "serial"),
        ("device/serial", "serial"),
        ("device/cid", "cid"),
    ];
    let found = known.iter().find_map(|(file, kind)| Some(format!("{kind} {}", read(file)?)))?;
    // Serial numbers are their makers' own: two makers may have given the same.
    let model = read("device/model").or_else(|| read("device/name")).unwrap_or_default();
    Some(format!("{found} {model}").trim_end().to_owned())
}

fn linked(number: u64) -> Option<String> {
    let links = fs::read_dir(BY_ID).ok()?.flatten();
    let ours = links.filter(|link| {
        fs::metadata(link.path())
            .is_ok_and(|device| device.file_type().is_block_device() && device.rdev() == number)
    });
    let names = ours.filter_map(|link| link.file_name().into_string().ok());
    names.filter(|name| !BY_OTHERS.iter().any(|other| name.starts_with(other))).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit_by(files: &[(&str, &str)]) -> Option<String> {
        let read =
            |file: &str| files.iter().find(|(name, _)| *name == file).map(|(_, text)| (*text).to_owned());
        from_attributes(&read)
    }

    #[test]
    fn what_a_device_is_comes_from_what_stays() {
        assert_eq!(unit_by(&[("dm/name", "vg-a"), ("dm/uuid", "LVM-x")]).unwrap(), "dm LVM-x");
        assert_eq!(unit_by(&[("dm/name", "made-by-hand")]), None);
        assert_eq!(unit_by(&[("serial", "7"), ("wwid", "naa.5")]).unwrap(), "wwid naa.5");
        assert_eq!(unit_by(&[("device/serial", "7"), ("device/model", "Disk")]).unwrap(), "serial 7 Disk");
        assert_eq!(unit_by(&[("size", "8")]), None);
        let part = [("partition", "1"), ("start", "2048"), ("size", "4096"), ("../wwid", "naa.5")];
        assert_eq!(unit_by(&part).unwrap(), "wwid naa.5 part 2048 4096");
        assert_eq!(unit_by(&[("partition", "1"), ("start", "2048"), ("size", "4096")]), None);
    }

    #[test]
    fn a_loop_device_is_what_its_file_is() {
        let unit = |file: &str, offset: &str| {
            unit_by(&[("loop/backing_file", file), ("loop/offset", offset), ("loop/sizelimit", "0")])
        };
        let [one, other] = [(); 2].map(|()| tempfile::NamedTempFile::new().unwrap());
        let path = |file: &tempfile::NamedTempFile| file.path().to_str().unwrap().to_owned();
        let all = [unit(&path(&one), "0"), unit(&path(&one), "512"), unit(&path(&other), "0")];
        assert!(all.iter().all(Option::is_some));
        assert!(all[0] != all[1] && all[0] != all[2]);
        assert_eq!(unit("/a file that was removed (deleted)", "0"), None);
    }

    #[test]
    fn the_place_of_a_mount_is_found_by_the_device() {
        let mounts = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n31 22 7:3 / /srv/a rw - ext4 /dev/loop3 rw\n";
        assert_eq!(mount_point(mounts, "7:3").as_deref(), Some("/srv/a"));
        assert_eq!(mount_point(mounts, "7:30"), None);
    }
}
