//! `--repair`: each filesystem of the guest is checked before it is mounted, and what is broken is repaired, with the
//! host's own tools and on the overlay: the image stays as it was until the commit.

#![forbid(unsafe_code)]

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::disk::{Content, FsState, Storage, Superblock, Volume};
use crate::error::{Error, Result};
use crate::inspect::layout::volume_name;
use crate::mount::damage::advice;
use crate::mount::options::Access;
use crate::mount::place::Place;
use crate::mount::{Devices, Mounted};
use crate::report::{Event, Observer, Stage};
use crate::sys::interrupt;
use crate::sys::tool::run_on;

/// A filesystem that was repaired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Repair {
    /// The volume's name: "partition 2".
    pub volume: String,
    /// Which filesystem it is.
    pub content: String,
    /// What repaired it.
    pub command: String,
}

/// Checks the filesystems of a disk that nothing of is mounted, and repairs those that have errors.
///
/// # Errors
/// Unsupported when a filesystem cannot be repaired, or only by losing what its log holds; that the host lacks a tool.
pub fn repair(
    storage: &Storage,
    devices: &mut Devices,
    folder: &Path,
    observer: &mut dyn Observer,
) -> Result<Vec<Repair>> {
    let mut repairs = Vec::new();
    for volume in &storage.volumes {
        let Some(superblock) = volume.superblock.as_ref().filter(|superblock| is_whole(volume, superblock))
        else {
            continue;
        };
        interrupt::check_before("checking the guest's filesystems")?;
        let broken = Broken { volume: volume_name(volume), content: superblock.content };
        let command = match superblock.content {
            Content::Ext2 | Content::Ext3 | Content::Ext4 => {
                observer.event(Event::Stage(Stage::CheckingFilesystems));
                broken.ext(&devices.node(volume)?, superblock.state, folder)?
            }
            Content::Xfs => {
                observer.event(Event::Stage(Stage::CheckingFilesystems));
                broken.xfs(&devices.node(volume)?, superblock.state, folder)?
            }
            Content::Btrfs if superblock.state == FsState::Errors => {
                return Err(Error::unsupported(format!(
                    "{broken} has errors, which --repair does not repair"
                ))
                .hint(advice(Content::Btrfs)));
            }
            _ => None,
        };
        if let Some(command) = command {
            observer
                .event(Event::Warning(&format!("{broken} had errors: {command} repaired it on the overlay")));
            let (volume, content) = (broken.volume, broken.content.name().to_owned());
            repairs.push(Repair { volume, content, command: command.to_owned() });
        }
    }
    devices.flush().map(|()| repairs)
}

/// What does not lie in this image as a whole is refused later, and must not be fitted to what is there.
fn is_whole(volume: &Volume, superblock: &Superblock) -> bool {
    !superblock.needs_other_device && superblock.total_bytes.is_none_or(|bytes| bytes <= volume.length)
}

/// A filesystem that may be broken.
struct Broken {
    volume: String,
    content: Content,
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the {} on {}", self.content, self.volume)
    }
}

impl Broken {
    fn ext(&self, node: &Path, state: FsState, folder: &Path) -> Result<Option<&'static str>> {
        const COMMAND: &str = "e2fsck -f -y";
        if state == FsState::NeedsRecovery {
            // The kernel's replay is no repair. Where it fails, e2fsck replays what can be.
            let _ = self.replay(node, folder);
        }
        let e2fsck = || run_on("e2fsck", &["-f", "-y"], node, b"");
        // e2fsck(8): a sum of 1 corrected, 2 and the system ought to restart, 4 errors are left, 8 and more failed.
        match e2fsck()? {
            (0, _) => return Ok(None),
            (1..=3, _) => {}
            (code @ 4..=7, said) => return Err(self.not_repaired(COMMAND, code, &said)),
            (code, said) => return Err(self.failed(COMMAND, code, &said)),
        }
        match e2fsck()? {
            (0, _) => Ok(Some(COMMAND)),
            (code, said) => Err(self.not_repaired(COMMAND, code, &said)),
        }
    }

    fn xfs(&self, node: &Path, state: FsState, folder: &Path) -> Result<Option<&'static str>> {
        const COMMAND: &str = "xfs_repair";
        if matches!(state, FsState::NeedsRecovery | FsState::Unknown) {
            self.replay(node, folder).map_err(|error| self.log_is_lost().caused_by(error))?;
        }
        // xfs_repair(8): with -n, 1 when there are errors; without, 2 when the log must be replayed first.
        let look = || run_on(COMMAND, &["-n"], node, b"");
        if state != FsState::Errors {
            match look()? {
                (0, _) => return Ok(None),
                (1, _) => {}
                (2, _) => return Err(self.log_is_lost()),
                (code, said) => return Err(self.failed("xfs_repair -n", code, &said)),
            }
        }
        match run_on(COMMAND, &[], node, b"")? {
            (0, _) => {}
            (2, _) => return Err(self.log_is_lost()),
            (1, said) => return Err(self.not_repaired(COMMAND, 1, &said)),
            (code, said) => return Err(self.failed(COMMAND, code, &said)),
        }
        match look()? {
            (0, _) => Ok(Some(COMMAND)),
            (code, said) => Err(self.not_repaired(COMMAND, code, &said)),
        }
    }

    /// Mounting it for writing replays its journal or log.
    fn replay(&self, node: &Path, folder: &Path) -> Result<()> {
        let place = Place::root(0, self.content, None);
        Mounted::mount(node, folder, &place, Access::Change)?.close()
    }

    fn log_is_lost(&self) -> Error {
        Error::unsupported(format!("the log of {self} cannot be replayed")).hint(
            "try to mount and unmount it, on a copy; xfs_repair -L throws the log away, and with it the guest's last \
             changes: that is not done for you",
        )
    }

    fn not_repaired(&self, command: &str, code: i32, said: &str) -> Error {
        Error::unsupported(format!("{command} could not repair {self} (exit code {code})"))
            .caused_by(said)
            .hint("repair it by hand, on a copy, or take an older copy of the image")
    }

    fn failed(&self, command: &str, code: i32, said: &str) -> Error {
        Error::failed(format!("{command} failed on {self} (exit code {code})")).caused_by(said)
    }
}
