//! What a run tells whoever started it, while it goes on and after. The library never prints: it hands these to an observer.

#![forbid(unsafe_code)]

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::action::Note;
use crate::guest::change::{Change, Verb};
use crate::guest::path_serde;

/// A stage of a run. They come in this order, but not all in each run, and one may come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "what is shown to people says it")]
pub enum Stage {
    ShuttingDown,
    CopyingDisk,
    OpeningImages,
    Cloning,
    PreparingMachine,
    StartingMachine,
    Attaching,
    OpeningVolumes,
    Expanding,
    CheckingFilesystems,
    LookingForGuest,
    Mounting,
    Applying,
    Unmounting,
    GivingUuids,
    Erasing,
    EndingMachine,
    SearchingCopies,
    Proving,
    Writing,
    Hashing,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ShuttingDown => "waiting for the guest to shut down",
            Self::CopyingDisk => "copying the running guest's disk",
            Self::OpeningImages => "opening the images",
            Self::Cloning => "making the clone",
            Self::PreparingMachine => "preparing a virtual machine",
            Self::StartingMachine => "starting the virtual machine",
            Self::Attaching => "attaching the disks",
            Self::OpeningVolumes => "opening arrays, encryption and volume groups",
            Self::Expanding => "expanding the guest",
            Self::CheckingFilesystems => "checking the guest's filesystems",
            Self::LookingForGuest => "looking for the guest",
            Self::Mounting => "mounting the guest",
            Self::Applying => "applying operations",
            Self::Unmounting => "unmounting",
            Self::GivingUuids => "giving new UUIDs",
            Self::Erasing => "erasing",
            Self::Proving => "proving the erasure",
            Self::EndingMachine => "ending the virtual machine",
            Self::SearchingCopies => "searching for copies of what was removed",
            Self::Writing => "writing the result",
            Self::Hashing => "hashing the result",
        })
    }
}

/// Something that happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Work on an image begins.
    Image(&'a Path),
    /// A stage of the run begins.
    Stage(Stage),
    /// A stage began some time ago, which is known only now.
    StageBegan {
        /// Which.
        stage: Stage,
        /// How long ago.
        ago: Duration,
    },
    /// How the image was attached, and why so.
    Attached {
        /// nbd, fuse or loop.
        way: &'a str,
        /// Why this one.
        reason: &'a str,
    },
    /// A change to the guest was made.
    Change {
        /// The operation it belongs to.
        operation: &'a str,
        /// What it is.
        file: &'a FileReport,
    },
    /// A line that a program of the guest printed.
    Output(&'a str),
    /// An operation is done.
    Operation(&'a OperationReport),
    /// Long work goes on: bytes done, of how many.
    Progress {
        /// What is being done.
        what: &'a str,
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// A line for people about what goes on.
    Told(&'a str),
    /// Something that people should know, but that stops nothing.
    Warning(&'a str),
}

/// Receives the events of a run.
pub trait Observer {
    /// Called for each event, in order, on the run's own thread.
    fn event(&mut self, event: Event<'_>);

    /// Whether each [`Event::Change`] is of use the moment it happens; they are cheaper told by the heap.
    fn wants_changes(&self) -> bool {
        false
    }
}

/// An observer that looks away.
#[derive(Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn event(&mut self, _: Event<'_>) {}
}

/// What came of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It changed the guest, or would.
    Changed,
    /// Everything was already as it should be.
    Unchanged,
    /// It is not for guests like this one.
    NotApplicable,
    /// It cannot be judged without a secret.
    Unsure,
}

/// How much of one kind an operation did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Tally {
    /// Files, links and folders removed.
    pub removed: u64,
    /// Files emptied.
    pub truncated: u64,
    /// Files written, moved, copied or given another owner, mode or time, links and folders made.
    pub written: u64,
    /// Bytes of content that went.
    pub bytes: u64,
}

impl Tally {
    /// Counts one change.
    pub fn add(&mut self, change: &Change) {
        match change.verb() {
            Verb::Remove => self.removed += change.entries(),
            Verb::Truncate => self.truncated += 1,
            _ => self.written += 1,
        }
        // Sparse files of a hostile guest may add up to more than there are numbers.
        self.bytes = self.bytes.saturating_add(change.bytes());
    }
}

/// One file that an operation is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FileReport {
    /// What happens to it.
    pub action: Verb,
    /// Where it is in the guest.
    #[serde(with = "path_serde")]
    pub path: PathBuf,
    /// How many bytes go.
    pub bytes: u64,
}

/// What one operation did, or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct OperationReport {
    /// Its name.
    pub name: String,
    /// What came of it.
    pub outcome: Outcome,
    /// How much.
    #[serde(flatten)]
    pub tally: Tally,
    /// Each file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileReport>,
    /// What people should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
    /// What of the guest's own programs was run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub programs: Option<ProgramsRun>,
    /// Time taken in milliseconds.
    pub milliseconds: u64,
}

/// Programs of the guest that were run, shut in by bubblewrap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ProgramsRun {
    /// How many scripts.
    pub scripts: u32,
    /// Where: `host` or `vm`.
    pub place: String,
    /// Whether one of them had the host's network.
    pub network: bool,
}
