//! The machine id: machine-id(5). It must be new in every clone, so nothing may leave one in the template.

#![forbid(unsafe_code)]

use std::path::Path;

use super::{Findings, View, meets, put};
use crate::error::Result;
use crate::guest::FileKind;
use crate::guest::change::{Change, NewFile};
use crate::operation::schema::{MachineId, MachineIdPolicy};

const MACHINE_ID: &str = "/etc/machine-id";

pub(super) fn reset(verb: &MachineId, view: View<'_>) -> Result<Findings> {
    if !meets(&verb.when, view)? {
        return Ok(Findings::default());
    }
    let Some(entry) = view.root.resolve(Path::new(MACHINE_ID))? else { return Ok(Findings::default()) };
    if entry.kind != FileKind::File {
        return Ok(Findings::default());
    }
    let change = match verb.policy {
        MachineIdPolicy::Empty if entry.bytes == 0 => None,
        MachineIdPolicy::Empty => Some(Change::Truncate { path: entry.path, bytes: entry.bytes }),
        MachineIdPolicy::FirstBoot => {
            put(&entry.path, b"uninitialized\n".to_vec(), NewFile::root(0o444), view)?
        }
        MachineIdPolicy::Absent => {
            Some(Change::Remove { path: entry.path, kind: entry.kind, bytes: entry.bytes })
        }
    };
    Ok(change.into_iter().collect::<Vec<_>>().into())
}
