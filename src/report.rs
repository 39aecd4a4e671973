//! What a run tells whoever started it, while it goes on. The library never prints: it hands these to an observer.

#![forbid(unsafe_code)]

use std::path::Path;

use crate::apply::OperationReport;
use crate::guest::change::Change;

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
