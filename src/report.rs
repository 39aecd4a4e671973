//! What a run tells whoever started it, while it goes on and after. The library never prints: it hands these to an observer.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize, Serializer};

use crate::action::Note;
use crate::guest::change::{Change, Verb};

/// Something that happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Work on an image begins.
    Image(&'a Path),
    /// A stage of the run begins.
    Stage(&'a str),
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
        change: &'a Change,
    },
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
    /// Something that people should know, but that stops nothing.
    Warning(&'a str),
}

/// Receives the events of a run.
pub trait Observer {
    /// Called for each event, in order, on the run's own thread.
    fn event(&mut self, event: Event<'_>);
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
    /// Files written, links and folders made.
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
            Verb::Write | Verb::Link | Verb::Create => self.written += 1,
        }
        // Sparse files of a hostile guest may add up to more than there are numbers.
        self.bytes = self.bytes.saturating_add(change.bytes());
    }
}

/// A path as text: bytes of a name that are no UTF-8 become replacement characters. JSON has no other way, and a name in
/// a guest must not be what a report fails of.
///
/// # Errors
/// When the serializer fails.
pub fn path_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// The same for several.
///
/// # Errors
/// When the serializer fails.
pub fn path_texts<'a, S: Serializer>(
    paths: impl IntoIterator<Item = &'a PathBuf>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.into_iter().map(|path| path.to_string_lossy()))
}

/// The same for one that may not be there.
///
/// # Errors
/// When the serializer fails.
pub fn maybe_path_text<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    path.as_ref().map(|path| path.to_string_lossy()).serialize(serializer)
}

/// One file that an operation is about.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct FileReport {
    /// What happens to it.
    pub action: Verb,
    /// Where it is in the guest.
    #[serde(serialize_with = "path_text")]
    pub path: PathBuf,
    /// How many bytes go.
    pub bytes: u64,
}

/// What one operation did, or would do.
#[derive(Debug, Clone, Serialize)]
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
    /// Time taken in milliseconds.
    pub milliseconds: u64,
}
