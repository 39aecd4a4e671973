//! What guests make of their disks: arrays, opened encryption, volume groups. Only in a machine of our own, where nothing
//! else has volume groups, by the tools that came with it. Each thing that is opened is closed again in reverse order.

#![forbid(unsafe_code)]

mod cost;
pub mod grow;
pub mod key;
mod luks;
mod lvm;
mod md;
mod pool;
mod table;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use crate::attach::{AttachedDisk, read_storage};
use crate::disk::{Made, Segment, Storage, Volume};
use crate::error::{Context, Error, Result, all};
use crate::report::{Event, Observer};
use crate::sys::partitions::find_partition;
use crate::sys::tool::Tool;
use crate::sys::trouble;
use crate::uuids::{Kind, NewUuid};
use crate::vm::init::Loader;
use key::Key;

/// How many layers may lie on one another.
const DEEPEST: usize = 8;
/// How many of its last lines an error repeats.
const LAST_LINES: usize = 6;
/// The most that a tool may say.
const OUTPUT: u64 = 16 << 20;

/// How the layers are opened.
#[derive(Debug)]
pub struct Opening<'a> {
    /// Keys for what is encrypted.
    pub keys: &'a [Key],
    /// Whether arrays that lack a member are taken.
    pub degraded: bool,
    /// Whether nothing may be written.
    pub read_only: bool,
    /// What gets new UUIDs.
    pub new_uuids: &'a [Kind],
    /// The drivers of the machine.
    pub drivers: &'a Loader,
}

/// What was opened.
#[derive(Debug, Default)]
pub struct Stack {
    layers: Vec<Layer>,
    /// The UUIDs that were replaced.
    pub given: Vec<NewUuid>,
    /// Encrypted volumes for which there is no key, by their indexes: trying one takes seconds.
    shut: Vec<usize>,
}

/// One thing that was opened, and is closed by its name.
#[derive(Debug)]
enum Layer {
    Array(PathBuf),
    Encrypted(String),
    Group(String),
}

impl Layer {
    fn close(&self) -> Result<()> {
        match self {
            Self::Array(path) => run("mdadm", &["--stop", &path.to_string_lossy()]).map(drop),
            Self::Encrypted(name) => run("cryptsetup", &["close", name]).map(drop),
            Self::Group(name) => run("lvm", &["vgchange", "-an", name]).map(drop),
        }
    }
}

/// A device that a layer gave.
#[derive(Debug)]
struct Device {
    path: PathBuf,
    made: Made,
}

impl Stack {
    /// Opens all that can be opened on these disks, layer upon layer; the devices are put behind the disks.
    ///
    /// # Errors
    /// When a tool fails; unsupported for arrays and groups that lack a part.
    pub fn open(
        disks: &mut Vec<AttachedDisk>,
        opening: &Opening<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Self> {
        let (mut stack, mut storage) = (Self::default(), read_storage(disks)?);
        for _ in 0..DEEPEST {
            let before = disks.len();
            // One kind after the other: what lies below is there when the next one looks.
            for kind in [md::open, luks::open, lvm::open] {
                let mut below = Below { storage: &storage, disks, opening, stack: &mut stack, observer };
                let devices = kind(&mut below)?;
                if devices.is_empty() {
                    continue;
                }
                let device =
                    |Device { path, made }| AttachedDisk::device(path, Some(made), opening.read_only);
                disks.extend(devices.into_iter().map(device));
                storage = read_storage(disks)?;
            }
            if disks.len() == before {
                return Ok(stack);
            }
        }
        Err(Error::unsupported(format!("more than {DEEPEST} layers lie on one another")))
    }

    /// Closes everything. Nothing of it may be in use.
    ///
    /// # Errors
    /// The first that cannot be closed; the others are tried all the same.
    pub fn close(mut self) -> Result<()> {
        all(std::mem::take(&mut self.layers).iter().rev().map(Layer::close))
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        for layer in self.layers.drain(..).rev() {
            if let Err(error) = layer.close() {
                trouble::note(error);
            }
        }
    }
}

/// What a layer is opened on.
struct Below<'a> {
    storage: &'a Storage,
    disks: &'a [AttachedDisk],
    opening: &'a Opening<'a>,
    stack: &'a mut Stack,
    observer: &'a mut dyn Observer,
}

impl Below<'_> {
    /// Volumes that nothing is made of yet and that are chosen.
    fn unopened(&self, choose: impl Fn(&Volume) -> bool) -> Vec<(usize, &Volume)> {
        let volumes = self.storage.volumes.iter().enumerate();
        volumes.filter(|(index, volume)| choose(volume) && !self.storage.is_opened(*index)).collect()
    }

    /// The block device of a volume.
    fn node(&self, volume: &Volume) -> Result<PathBuf> {
        node_on(self.disks, volume)
    }

    /// Where the bytes of a device of device-mapper lie.
    fn copies(&self, mapper_name: &str) -> Result<Vec<Vec<Segment>>> {
        let lines = table::parse(&run("dmsetup", &["table", mapper_name])?).unwrap_or_default();
        let devices = self.known_devices()?;
        Ok(table::copies(&lines, |numbers, start, length| {
            let (_, disk, offset) = devices.iter().find(|(known, _, _)| known == numbers)?;
            self.resolve(*disk, offset.checked_add(start)?, length)
        }))
    }

    /// Where a stretch of a disk lies in the end, once for each copy.
    fn resolve(&self, disk: usize, start: u64, length: u64) -> Option<Vec<Vec<Segment>>> {
        match self.disks.get(disk)?.made() {
            Some(made) if !made.copies.is_empty() => made.resolve(start, length),
            _ => Some(vec![vec![Segment { start: 0, length, disk, offset: start, encrypted: false }]]),
        }
    }

    /// The device numbers of all disks and their partitions, with the disk and the place on it.
    fn known_devices(&self) -> Result<Vec<(String, usize, u64)>> {
        let mut known = Vec::new();
        for (index, disk) in self.disks.iter().enumerate() {
            known.push((device_numbers(disk.path())?, index, 0));
        }
        for volume in self.storage.volumes.iter().filter(|volume| volume.partition.is_some()) {
            if let Ok(node) = self.node(volume) {
                known.push((device_numbers(&node)?, volume.disk, volume.offset));
            }
        }
        Ok(known)
    }
}

/// The block device of a volume of these disks.
fn node_on(disks: &[AttachedDisk], volume: &Volume) -> Result<PathBuf> {
    let disk = disks.get(volume.disk).ok_or_else(|| Error::failed("a disk is missing"))?;
    match &volume.partition {
        None => Ok(disk.path().to_path_buf()),
        Some(_) => find_partition(disk.path(), volume.offset, volume.length)
            .ok_or_else(|| Error::failed(format!("the kernel does not see {}", name(volume)))),
    }
}

fn name(volume: &Volume) -> String {
    crate::inspect::layout::volume_name(volume)
}

/// `MAJOR:MINOR` of a node.
fn device_numbers(node: &Path) -> Result<String> {
    let device = fs::metadata(node).context(|| format!("cannot examine {}", node.display()))?.rdev();
    Ok(format!("{}:{}", major(device), minor(device)))
}

/// Runs a tool of the machine; what it prints.
fn run(program: &str, words: &[&str]) -> Result<String> {
    heard(program, words).map(|(said, _)| said)
}

/// The same with its last complaints.
fn heard(program: &str, words: &[&str]) -> Result<(String, String)> {
    let (exit, bytes) = Tool::find(program)?
        .spawn()
        .env("DM_DISABLE_UDEV", "1")
        .env("LC_ALL", "C")
        .args(words)
        .output(OUTPUT)?;
    let said = String::from_utf8_lossy(&bytes).into_owned();
    let complaints = exit.stderr.clone();
    let Err(error) = exit.success() else { return Ok((said, complaints)) };
    // LVM says there what it was doing.
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("; ");
    Err(if last.is_empty() { error } else { error.within(format!("it said last: {last}")) })
}

impl Below<'_> {
    fn warn(&mut self, text: &str) {
        self.observer.event(Event::Warning(text));
    }
}
