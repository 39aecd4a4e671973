//! What the worker and its parent say to each other: messages in JSON, each after its length. Only bytes in and bytes
//! out: the same serves a pipe and a serial line. Everything that is read is bounded and held against its form.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind as IoKind, Read, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::wire::{WireError, WirePassword, WirePrints};
use crate::action::brought::Item;
use crate::action::{Note, Settings};
use crate::apply::{Left, Mode};
use crate::error::{Context, Error, Result};
use crate::guest::change::PIECE;
use crate::guest::labels::LinkLabel;
use crate::guest::path_serde;
use crate::inspect::guest::Guest;
use crate::operation::Operation;
use crate::plan::Planned;
use crate::report::{FileReport, Outcome, Tally};
use crate::sys::confine::Confinement;
use crate::uuids::NewUuid;

/// The version of this protocol: the first thing that each side says.
pub const VERSION: u32 = 5;
/// The longest message in bytes. The longest path that a kernel takes is 4 KiB, a deep tree's may be longer.
pub const MESSAGE_LIMIT: u32 = 16 << 20;

/// What the parent says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ToWorker<'a> {
    /// Begin: the first message.
    Start(Box<Start<'a>>),
    /// The script or program that was asked for ran well; had it not, there would be no answer but the end.
    ScriptDone,
}

/// All that the worker needs to know.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Start<'a> {
    /// [`VERSION`].
    pub version: u32,
    /// Whether to change the guest.
    pub mode: Mode,
    /// Whether each change is told at once.
    pub at_once: bool,
    /// Whether fingerprints are taken of what a change destroys.
    pub fingerprints: bool,
    /// What is known of the guest.
    pub guest: Cow<'a, Guest>,
    /// Where other filesystems are mounted in it: real paths.
    #[serde(with = "path_serde::list")]
    pub mount_points: Vec<PathBuf>,
    /// What to do.
    pub operations: Vec<WirePlanned<'a>>,
}

/// A planned operation. Passwords are plain: see [`WirePassword`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WirePlanned<'a> {
    operation: Cow<'a, Operation>,
    values: Cow<'a, BTreeMap<String, String>>,
    passwords: Vec<(Cow<'a, str>, WirePassword)>,
    uuids: Cow<'a, Option<Vec<NewUuid>>>,
    brought: Cow<'a, BTreeMap<String, Vec<Item>>>,
    recorded: bool,
}

impl<'a> From<&'a Planned> for WirePlanned<'a> {
    fn from(planned: &'a Planned) -> Self {
        let Settings { values, passwords, uuids, brought, recorded } = &planned.settings;
        let passwords =
            passwords.iter().map(|(user, change)| (user.as_str().into(), change.clone().into())).collect();
        let operation = Cow::Borrowed(&planned.operation);
        let (values, uuids, brought) = (Cow::Borrowed(values), Cow::Borrowed(uuids), Cow::Borrowed(brought));
        Self { operation, values, passwords, uuids, brought, recorded: *recorded }
    }
}

impl WirePlanned<'_> {
    /// The operation.
    pub fn operation(&self) -> &Operation {
        &self.operation
    }
}

impl From<WirePlanned<'_>> for Planned {
    fn from(planned: WirePlanned<'_>) -> Self {
        let WirePlanned { operation, values, passwords, uuids, brought, recorded } = planned;
        let passwords =
            passwords.into_iter().map(|(user, change)| (user.into_owned(), change.into())).collect();
        let (values, uuids, brought) = (values.into_owned(), uuids.into_owned(), brought.into_owned());
        let settings = Settings { values, passwords, uuids, brought, recorded };
        // Where the files of the host are is the parent's affair.
        Self { operation: operation.into_owned(), settings, sources: Vec::new() }
    }
}

/// What the worker says: that it is ready; then for each operation its files and notes, the scripts to run, and its end;
/// then that all is done. Or at any time that it failed, which is its last word.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FromWorker {
    /// It is confined, and has not touched the guest yet.
    Ready {
        /// [`VERSION`].
        version: u32,
        /// How it is confined.
        confinement: Confinement,
    },
    /// One file that the operation is about; it is changed already, unless the worker only looks.
    File(FileReport),
    /// Something that people should know.
    Note(Note),
    /// The parent shall label this link of the guest. There is no answer.
    Label(LinkLabel),
    /// Fingerprints of what the operation destroyed.
    Fingerprints(WirePrints),
    /// The parent shall run this script, and answer.
    Script(#[serde(with = "path_serde")] PathBuf),
    /// The parent shall have the guest's programs run this script, for the action of this number in the operation that
    /// runs, and answer.
    Program {
        /// The action's place in its operation.
        action: usize,
        /// The script.
        script: String,
    },
    /// A line that a program of the guest printed. Only a machine's agent says this, between a program and its end.
    Output(String),
    /// The parent shall give the bytes of a file of the host from there on: one frame of [`write_data`] is the answer.
    Piece {
        /// Its number among those of the operation.
        source: u32,
        /// Where in it.
        offset: u64,
    },
    /// The operation is done.
    Operation(Ending),
    /// All operations are done, and one of them still finds this.
    Left(Left),
    /// All operations are done, and nothing more will be said.
    Done,
    /// It ends without having done all.
    Failed(WireError),
}

/// The end of an operation: its report without files and notes, which went before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Ending {
    /// Its name.
    pub name: String,
    /// What came of it.
    pub outcome: Outcome,
    /// How much.
    pub tally: Tally,
    /// Time taken in milliseconds.
    pub milliseconds: u64,
}

/// Why no message could be read.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// The other side went away.
    #[error("it ended in the middle of its work")]
    Ended,
    /// It said something that it must not.
    #[error("{0}")]
    Protocol(String),
    /// Reading failed.
    #[error("cannot read what it says: {0}")]
    Read(io::Error),
}

/// Counts what is written.
struct Count(u64);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes one message; it may be a secret, so no copy of it is left in memory.
///
/// # Errors
/// When it is too long, or cannot be written.
pub fn write_message(output: &mut dyn Write, message: &impl Serialize) -> Result<()> {
    let failed = || "cannot tell the other side";
    let mut count = Count(0);
    serde_json::to_writer(&mut count, message).context(failed)?;
    let length = u32::try_from(count.0).ok().filter(|length| *length <= MESSAGE_LIMIT).ok_or_else(|| {
        Error::unsupported(format!("a message of {} bytes is too long: a path of the guest?", count.0))
    })?;
    // Exactly as long as needed: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(4 + length as usize));
    bytes.extend(length.to_le_bytes());
    serde_json::to_writer(&mut *bytes, message).context(failed)?;
    output.write_all(&bytes).context(failed)
}

/// Reads one message.
///
/// # Errors
/// See [`Broken`].
pub fn read_message<T: DeserializeOwned>(input: &mut dyn Read) -> Result<T, Broken> {
    let mut length = [0; 4];
    read_exact(input, &mut length)?;
    let length = u32::from_le_bytes(length);
    if length > MESSAGE_LIMIT {
        return Err(Broken::Protocol(format!("its message of {length} bytes is too long")));
    }
    let mut bytes = Zeroizing::new(vec![0; length as usize]);
    read_exact(input, &mut bytes)?;
    // Without serde's own words: they may quote what they could not read.
    serde_json::from_slice(&bytes).map_err(|error| {
        Broken::Protocol(format!("its message is malformed at byte {} of {length}", error.column()))
    })
}

/// Writes bytes as they are, after their length.
///
/// # Errors
/// When there are more than [`PIECE`], or they cannot be written.
pub fn write_data(output: &mut dyn Write, bytes: &[u8]) -> Result<()> {
    let failed = || "cannot tell the other side";
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= PIECE);
    let length = length.ok_or_else(|| Error::failed("a piece of a file is too long"))?;
    output.write_all(&length.to_le_bytes()).and_then(|()| output.write_all(bytes)).context(failed)
}

/// Reads such bytes.
///
/// # Errors
/// See [`Broken`].
pub fn read_data(input: &mut dyn Read) -> Result<Vec<u8>, Broken> {
    let mut length = [0; 4];
    read_exact(input, &mut length)?;
    let length = u32::from_le_bytes(length);
    if length > PIECE {
        return Err(Broken::Protocol(format!("its piece of {length} bytes is too long")));
    }
    let mut bytes = vec![0; length as usize];
    read_exact(input, &mut bytes)?;
    Ok(bytes)
}

fn read_exact(input: &mut dyn Read, bytes: &mut [u8]) -> Result<(), Broken> {
    input.read_exact(bytes).map_err(|error| match error.kind() {
        IoKind::UnexpectedEof => Broken::Ended,
        _ => Broken::Read(error),
    })
}

#[cfg(test)]
#[path = "protocol_tests.rs"]
mod tests;
