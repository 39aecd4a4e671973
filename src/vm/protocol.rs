//! What both sides of the channel agree on before there is work: the names of the devices, and the machine's first word.
//! Messages are those of [`crate::worker::protocol`]: a length, then JSON.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

/// The version of what is said.
pub const VERSION: u32 = 1;
/// The name of the channel's port in the machine.
pub(super) const PORT: &str = "guestseal";

/// The first message of the machine: it is there, and knows nothing of this run yet. It may be said long before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Ready {
    /// [`VERSION`].
    pub version: u32,
}

/// What the host answers: all that is of this run alone.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Wake {
    /// How many disks there are.
    pub disks: usize,
    /// The time: seconds since 1970, and nanoseconds.
    pub time: (i64, i64),
    /// Random bytes, without which two machines of one kept memory would find the same numbers.
    pub seed: Vec<u8>,
    /// Words for the work.
    pub words: Vec<String>,
}

/// The second message of the machine: it has its disks and waits for its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Hello {
    /// [`VERSION`].
    pub version: u32,
    /// The lengths of its disks in bytes, in their order.
    pub disks: Vec<u64>,
}

/// The serial number by which the machine knows a disk.
pub(super) fn serial(number: usize) -> String {
    format!("disk{number}")
}
