//! What the host and the work inside a machine say to each other: a request, then reports, then an answer. The frames are
//! those of [`crate::worker::protocol`], and so is the conversation with the worker that edits the guest.

#![forbid(unsafe_code)]

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::erase::extent::Extent;
use crate::erase::policy::{ErasePlan, Policy};
use crate::erase::report::Erasure;
use crate::expand::{self, Expanded};
use crate::guest::path_serde;
use crate::repair::Repair;
use crate::report::Stage;
use crate::session::{Handling, Inspection};
use crate::uuids::{Kind, NewUuid};
use crate::worker::protocol::{FromWorker, Start};
use crate::worker::{WireError, WireKey};

/// What the host asks for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ToMachine<'a> {
    /// Open what lies below filesystems; what was open is closed first. Answered by [`FromMachine::Prepared`].
    Prepare(Prepare),
    /// Have the guest take more room, or only say what would grow. Answered by [`FromMachine::Expanded`].
    Expand(expand::Request),
    /// Find the guest and mount it. Answered by [`FromMachine::Opened`].
    Open(Handling),
    /// Have a worker edit it. Answered by what the worker says, and [`FromMachine::Edited`].
    Edit(Box<Start<'a>>),
    /// Where a disk may hold data other than zeros, asked for by [`FromMachine::WhereIsData`]; none when it cannot be told.
    Data(Option<Vec<Extent>>),
    /// Unmount it, erase and prove. Answered by [`FromMachine::Finished`].
    Finish(Finish),
}

/// How the disks are opened.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Prepare {
    /// Keys for what is encrypted.
    pub keys: Vec<WireKey>,
    /// Whether arrays that lack a member are taken.
    pub degraded: bool,
    /// Whether nothing is written.
    pub read_only: bool,
    /// What gets new UUIDs as it is opened.
    pub new_uuids: Vec<Kind>,
}

/// What is done when the guest is not, or no longer, mounted.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Finish {
    /// The new UUIDs that are given first.
    pub uuids: Vec<NewUuid>,
    /// What was deleted is made zero: how, and the unit in bytes in which the images keep their data.
    pub erase: Option<(ErasePlan, u64)>,
    /// What of it is not zero is counted.
    pub prove: Option<ErasePlan>,
}

impl Finish {
    /// How much is erased or proven.
    pub fn policy(&self) -> Policy {
        self.erase.map(|(plan, _)| plan).or(self.prove).map_or(Policy::None, |plan| plan.policy)
    }
}

/// What the machine answers. [`FromMachine::Failed`] may stand in place of each answer, and is the last word.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FromMachine {
    /// A stage begins.
    Stage(Stage),
    /// Something that people should know.
    Warning(String),
    /// Where does this disk have data? What was written is flushed.
    WhereIsData(usize),
    /// What could be opened is, with these new UUIDs.
    Prepared(Vec<NewUuid>),
    /// What grew; and whether what lies below filesystems is to be opened anew.
    Expanded(Box<Expanded>, bool),
    /// The guest is mounted.
    Opened(Box<Opened>),
    /// What the worker says.
    Worker(FromWorker),
    /// The worker has ended well.
    Edited,
    /// All is done, and nothing is mounted or in use.
    Finished(Box<Erasure>),
    /// It failed.
    Failed(WireError),
}

/// A guest that is mounted in the machine.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Opened {
    /// What was found out.
    pub inspection: Inspection,
    /// Filesystems that were repaired.
    pub repairs: Vec<Repair>,
    /// Where other filesystems are mounted in it.
    #[serde(with = "path_serde::list")]
    pub mount_points: Vec<PathBuf>,
}
