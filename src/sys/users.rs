//! Who else on this host uses a file: processes with locks on it (/proc/PID/fdinfo), and loop devices over it.

use std::fs::{self, File};
use std::ops::RangeInclusive;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::ioctl::loop_backing;
use super::own;
use crate::error::{Context, Result};

/// A loop device of this host over a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoopUser {
    /// The device node.
    pub device: PathBuf,
    /// Whether nothing is written through it.
    pub read_only: bool,
    /// Whether it will be detached when whoever has it open closes it: it was let go, and nothing on it is mounted.
    pub is_going: bool,
}

/// What tells a file from all others: device and inode, for a block device its own number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identity {
    /// A file of a filesystem.
    File(u64, u64),
    /// A block device, whatever node it was opened by.
    Device(u64),
}

impl Identity {
    /// Of what this is about.
    pub fn of(metadata: &fs::Metadata) -> Self {
        if metadata.file_type().is_block_device() {
            Self::Device(metadata.rdev())
        } else {
            Self::File(metadata.dev(), metadata.ino())
        }
    }
}

/// The other process that has an open file description lock within these bytes of the file, for people: "qemu-img
/// (process 123)". None when /proc does not tell, as for a process that this one may not see.
pub fn locker(file: &File, bytes: &RangeInclusive<i64>) -> Option<String> {
    let wanted = Identity::of(&file.metadata().ok()?);
    let processes = fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
    processes
        .filter(|process| process.file_name().is_some_and(|name| is_other_process(&name.to_string_lossy())))
        .find(|process| holds(process, wanted, bytes))
        .map(|process| {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            let number = process.file_name().unwrap_or_default().to_string_lossy().into_owned();
            format!("{} (process {number})", name.trim())
        })
}

fn is_other_process(name: &str) -> bool {
    name.parse::<u32>().is_ok_and(|pid| pid != own::number())
}

fn holds(process: &Path, wanted: Identity, bytes: &RangeInclusive<i64>) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
    descriptors.flatten().any(|descriptor| {
        // Follows the link that is no link: what the descriptor has open.
        fs::metadata(descriptor.path()).is_ok_and(|metadata| Identity::of(&metadata) == wanted)
            && fs::read_to_string(process.join("fdinfo").join(descriptor.file_name()))
                .is_ok_and(|info| info.lines().any(|line| is_lock_within(line, bytes)))
    })
}

/// "lock: 1: OFDLCK ADVISORY  READ -1 fe:00:3411 100 101" (proc_pid_fdinfo(5)); the end may be "EOF".
fn is_lock_within(line: &str, bytes: &RangeInclusive<i64>) -> bool {
    let Some(fields) = line.strip_prefix("lock:") else { return false };
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let [_, "OFDLCK", _, _, _, _, start, end] = fields[..] else { return false };
    let end = if end == "EOF" { Ok(i64::MAX) } else { end.parse() };
    matches!((start.parse::<i64>(), end), (Ok(start), Ok(end)) if start <= *bytes.end() && end >= *bytes.start())
}

/// The loop devices over this file.
///
/// # Errors
/// When the file cannot be examined. A host without loop devices has none.
pub fn loops_over(file: &File, path: &Path) -> Result<Vec<LoopUser>> {
    let metadata = file.metadata().context(|| format!("cannot examine {}", path.display()))?;
    let wanted = Identity::of(&metadata);
    let Ok(blocks) = fs::read_dir("/sys/block") else { return Ok(Vec::new()) };
    let users = blocks.flatten().filter_map(|block| {
        let (block, name) = (block.path(), block.file_name());
        let backing = fs::read_to_string(block.join("loop/backing_file")).ok()?;
        let device = Path::new("/dev").join(name);
        let is_over = is_backed_by(&device, Path::new(backing.trim_end_matches('\n')), wanted, path);
        let is_set = |flag: &str| fs::read_to_string(block.join(flag)).is_ok_and(|flag| flag.trim() == "1");
        is_over.then(|| LoopUser {
            read_only: is_set("ro"),
            is_going: is_set("loop/autoclear") && is_unclaimed(&device),
            device,
        })
    });
    Ok(users.collect())
}

/// Whether nothing on the device is mounted, and nobody else has it to himself (open(2), `O_EXCL`).
fn is_unclaimed(device: &Path) -> bool {
    File::options().read(true).custom_flags(nix::libc::O_EXCL).open(device).is_ok()
}

/// The path that /sys has may be one of another mount namespace. Then the device itself is asked, but only when the
/// file's name fits: to open the device of another run of guestseal would delay its end.
fn is_backed_by(device: &Path, backing: &Path, wanted: Identity, path: &Path) -> bool {
    if let Ok(metadata) = fs::metadata(backing) {
        return Identity::of(&metadata) == wanted;
    }
    let name = backing.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(" (deleted)").unwrap_or(&name);
    let Identity::File(dev, ino) = wanted else { return false };
    path.file_name().is_some_and(|own| own == name)
        && File::open(device).is_ok_and(|device| loop_backing(&device) == Ok((dev, ino)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_read_as_the_kernel_writes_them() {
        let lock = "lock:\t1: OFDLCK ADVISORY  READ -1 fe:00:3411 100 101";
        assert!(is_lock_within(lock, &(101..=101)));
        assert!(is_lock_within(lock, &(90..=100)));
        assert!(!is_lock_within(lock, &(102..=103)));
        assert!(is_lock_within("lock:\t1: OFDLCK ADVISORY  WRITE -1 fe:00:3411 0 EOF", &(200..=203)));
        assert!(!is_lock_within("lock:\t1: POSIX  ADVISORY  READ 7 fe:00:3411 100 101", &(101..=101)));
        assert!(!is_lock_within("flags:\t0100002", &(101..=101)));
    }

    #[test]
    fn a_file_that_nobody_uses_has_no_users() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(locker(file.as_file(), &(0..=i64::MAX)), None);
        assert_eq!(loops_over(file.as_file(), file.path()).unwrap(), []);
    }
}
