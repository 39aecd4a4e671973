//! A connected nbd device as the host shows it: its node, opened by number and never on faith of a name, and the
//! mark that tells a device that a killed run left behind from everybody else's.

#![forbid(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use tempfile::TempDir;

use super::partitions::forget_partitions;
use crate::error::{Context, Error, Result};

/// Folders that may hold device nodes, the likeliest first: others are often mounted nodev.
const NODE_FOLDERS: [&str; 3] = ["/dev", "/run", "/tmp"];

/// The process is ending (`PF_EXITING` in linux/sched.h).
const EXITING: u64 = 4;

/// An open device.
#[derive(Debug)]
pub struct NbdNode {
    /// The open device. It holds the device: the kernel gives its index to nobody else.
    pub file: File,
    /// A path that leads to it.
    pub path: PathBuf,
    name: String,
    /// The folder of the node that we made where the host has none.
    _private: Option<TempDir>,
}

impl NbdNode {
    /// Opens `nbd<index>`. Where /dev has no node for it (a container's, say) one is made in a private folder that
    /// goes with the value.
    ///
    /// # Errors
    /// `HostLacks` when no node can be made or opened.
    pub fn open(index: u32, read_only: bool) -> Result<Self> {
        let what = || format!("cannot find the device number of nbd{index}");
        let number = fs::read_to_string(format!("/sys/block/nbd{index}/dev")).context(what)?;
        let number = parse_device_number(&number).ok_or_else(|| Error::failed(what()))?;
        let path = PathBuf::from(format!("/dev/nbd{index}"));
        if leads_to(&path, number) {
            let file = open_node(&path, read_only).context(|| format!("cannot open {}", path.display()))?;
            let name = format!("nbd{index}");
            return Ok(Self { file, path, name, _private: None });
        }
        let mut failures = Vec::new();
        for folder in NODE_FOLDERS {
            match private_node(Path::new(folder), index, number, read_only) {
                Ok(node) => return Ok(node),
                Err(error) => failures.push(format!("{folder}: {error}")),
            }
        }
        Err(Error::host_lacks(format!("there is no {} and no node can be made for it", path.display()))
            .caused_by(failures.join("; "))
            .hint("let the container make and open block devices, or use --attach fuse"))
    }

    /// The size in bytes: where the end is (what BLKGETSIZE64 tells too).
    ///
    /// # Errors
    /// When the device cannot be sought in.
    pub fn size_bytes(&self) -> Result<u64> {
        (&self.file)
            .seek(SeekFrom::End(0))
            .context(|| format!("cannot tell the size of {}", self.path.display()))
    }

    /// Asks udev to keep its probes off the device while we hold it (a BSD lock on the whole-disk node; source:
    /// systemd's Block Device Locking). Whoever looks at it right now wins; so do this while it is still empty.
    pub fn keep_udev_away(&self) {
        let _ = self.file.try_lock();
    }

    /// Has the kernel look for partitions now, as it would at somebody's first open, and forget them.
    ///
    /// # Errors
    /// When the device cannot be opened.
    pub fn forget_partitions(&self) -> Result<()> {
        let what = || format!("cannot open {}", self.path.display());
        let file = open_node(&self.path, true).context(what)?;
        forget_partitions(&file, &self.name);
        Ok(())
    }
}

fn open_node(path: &Path, read_only: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(!read_only).open(path)
}

fn leads_to(path: &Path, number: u64) -> bool {
    fs::symlink_metadata(path).is_ok_and(|stat| stat.file_type().is_block_device() && stat.rdev() == number)
}

fn private_node(folder: &Path, index: u32, number: u64, read_only: bool) -> io::Result<NbdNode> {
    let private = tempfile::Builder::new().prefix("guestseal-").tempdir_in(folder)?;
    let name = format!("nbd{index}");
    let path = private.path().join(&name);
    mknod(&path, SFlag::S_IFBLK, Mode::S_IRUSR | Mode::S_IWUSR, number)?;
    let file = open_node(&path, read_only)?;
    Ok(NbdNode { file, path, name, _private: Some(private) })
}

/// Parses `MAJOR:MINOR`.
fn parse_device_number(text: &str) -> Option<u64> {
    let (major, minor) = text.trim().split_once(':')?;
    Some(makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// Whose a device is: a process, told from later ones of the same number by its start time, and from those of
/// other containers by its process id namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    namespace: u64,
    pid: u32,
    start: u64,
}

impl Owner {
    /// This process.
    ///
    /// # Errors
    /// When /proc is not there.
    pub fn ourselves() -> Result<Self> {
        Self::of(std::process::id()).context(|| "cannot read /proc: is it mounted?")
    }

    fn of(pid: u32) -> io::Result<Self> {
        let namespace = fs::metadata("/proc/self/ns/pid")?.ino();
        let stat = fs::read(format!("/proc/{pid}/stat"))?;
        let (flags, start) = parse_stat(&stat).ok_or(io::ErrorKind::InvalidData)?;
        // One that was killed may hang in its own exit, waiting for the very device.
        if flags & EXITING != 0 {
            Err(io::ErrorKind::NotFound.into())
        } else {
            Ok(Self { namespace, pid, start })
        }
    }

    /// The mark for a device's `backend` (shown in sysfs).
    pub fn mark(&self) -> String {
        format!("guestseal {} {} {}", self.namespace, self.pid, self.start)
    }

    fn parse(mark: &str) -> Option<Self> {
        let mut words = mark.trim_end_matches(['\n', '\0']).strip_prefix("guestseal ")?.split(' ');
        let mut next = || words.next()?.parse::<u64>().ok();
        let owner = Self { namespace: next()?, pid: u32::try_from(next()?).ok()?, start: next()? };
        next().is_none().then_some(owner)
    }

    /// Dead for sure: a process of another namespace may live unseen.
    fn is_dead(&self, namespace: u64) -> bool {
        self.namespace == namespace
            && match Self::of(self.pid) {
                Ok(now) => now.start != self.start,
                Err(error) => error.kind() == io::ErrorKind::NotFound,
            }
    }
}

/// The flags word and the start time in clock ticks since boot: fields 9 and 22 of /proc/PID/stat (proc_pid_stat(5)).
/// The name in field 2 may hold anything, so what counts begins behind its last bracket.
fn parse_stat(stat: &[u8]) -> Option<(u64, u64)> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let mut fields = std::str::from_utf8(&stat[end + 1..]).ok()?.split_ascii_whitespace();
    let flags = fields.nth(6)?.parse().ok()?;
    Some((flags, fields.nth(12)?.parse().ok()?))
}

/// Indexes of the devices whose owner was a guestseal that is dead: what a kill between making a device and
/// tying it to its opener leaves behind. Empty before Linux 5.14, which keeps no marks.
pub fn left_behind() -> Vec<u32> {
    let Ok(namespace) = fs::metadata("/proc/self/ns/pid").map(|stat| stat.ino()) else { return Vec::new() };
    let entries = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let index = entry.file_name().to_str()?.strip_prefix("nbd")?.parse().ok()?;
            let owner = Owner::parse(&fs::read_to_string(entry.path().join("backend")).ok()?)?;
            owner.is_dead(namespace).then_some(index)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_survive_their_mark_and_nothing_else_passes_for_one() {
        let us = Owner::ourselves().unwrap();
        assert_eq!(Owner::parse(&format!("{}\n", us.mark())), Some(us.clone()));
        for mark in ["", "guestseal", "guestseal 1 2", "guestseal 1 2 3 4", "guestseal 1 -2 3", "qemu 1 2 3"]
        {
            assert_eq!(Owner::parse(mark), None, "{mark}");
        }
        let line = b"7 (a) b) R) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9";
        assert_eq!(parse_stat(line), Some((4194560, 4711)));
        assert_eq!(parse_stat(b"7 (short) S 1 7"), None);
    }

    #[test]
    fn only_a_process_that_is_surely_gone_is_dead() {
        let us = Owner::ourselves().unwrap();
        let namespace = us.namespace;
        assert!(!us.is_dead(namespace));
        assert!(Owner { start: us.start + 1, ..us.clone() }.is_dead(namespace));
        assert!(Owner { pid: u32::MAX, ..us.clone() }.is_dead(namespace));
        assert!(!Owner { pid: u32::MAX, namespace: 1, start: 1 }.is_dead(namespace));
    }

    #[test]
    fn device_numbers_are_parsed() {
        assert_eq!(parse_device_number("43:32\n"), Some(makedev(43, 32)));
        assert_eq!(parse_device_number("43"), None);
        assert_eq!(parse_device_number("x:1"), None);
    }
}
