//! The image file's own bytes: what no table of the image refers to holds copies of what the guest deleted long ago.
//! Here it is found, made zero, and proven to be.
//!
//! Nobody else may write the file meanwhile. No table is changed: what counts as used without use stays so, as zeros.

#![forbid(unsafe_code)]

mod qcow2;
mod sweep;
mod vdi;
mod vmdk;

use std::fs::File;

use serde::{Deserialize, Serialize};

use self::sweep::Sweep;
use super::format::Format;
use crate::erase::extent::{Extent, Extents};
use crate::erase::metadata::Act;
use crate::error::Result;

/// What became of the bytes of an image file that hold nothing of its disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ContainerErasure {
    /// How many there are.
    pub bytes_unreferenced: u64,
    /// How many of them held data in the file and were given back to its filesystem, or overwritten.
    pub bytes_zeroed: u64,
    /// How many are not zero, by a second look at all of them.
    pub bytes_nonzero: u64,
    /// In words, how the file was cleaned.
    pub method: String,
    /// What was not looked at, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unexamined: Option<String>,
}

/// The same of several files together; none of none.
pub fn sum(containers: impl IntoIterator<Item = ContainerErasure>) -> Option<ContainerErasure> {
    containers.into_iter().reduce(|sum, other| ContainerErasure {
        bytes_unreferenced: sum.bytes_unreferenced.saturating_add(other.bytes_unreferenced),
        bytes_zeroed: sum.bytes_zeroed.saturating_add(other.bytes_zeroed),
        bytes_nonzero: sum.bytes_nonzero.saturating_add(other.bytes_nonzero),
        method: if sum.method == other.method { sum.method } else { sum.method + "; " + &other.method },
        unexamined: match (sum.unexamined, other.unexamined) {
            (Some(one), Some(other)) if one != other => Some(one + "; " + &other),
            (one, other) => one.or(other),
        },
    })
}

/// What the bytes of an image file that hold nothing of its disk are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ContainerResidue {
    /// How many there are.
    pub bytes_unreferenced: u64,
    /// How many of them are not zero.
    pub bytes_nonzero: u64,
    /// The first of the places where they are not: bytes of the file, for a person to look at.
    pub places: Vec<Extent>,
    /// What was not looked at, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unexamined: Option<String>,
}

/// The same of several files together; places stay those of the first that has any.
pub fn sum_of_residue(residues: impl IntoIterator<Item = ContainerResidue>) -> Option<ContainerResidue> {
    residues.into_iter().reduce(|sum, other| ContainerResidue {
        bytes_unreferenced: sum.bytes_unreferenced.saturating_add(other.bytes_unreferenced),
        bytes_nonzero: sum.bytes_nonzero.saturating_add(other.bytes_nonzero),
        places: if sum.places.is_empty() { other.places } else { sum.places },
        unexamined: sum.unexamined.or(other.unexamined),
    })
}

/// Makes what an image file holds besides its disk zero, and looks whether it is.
///
/// Blocks of the host's filesystem are given back to it (fallocate(2), `FALLOC_FL_PUNCH_HOLE`), edges and what cannot be
/// given back are overwritten; holes are neither read nor written. Done again, it changes nothing. The caller flushes.
///
/// # Errors
/// When the file cannot be read or written, or tables of a qcow2 image are damaged, of which nothing is changed then.
pub fn clean(file: &File, format: Format) -> Result<ContainerErasure> {
    let mut sweep = Sweep::new(file, Act::Zero)?;
    walk(file, format, &mut sweep)?;
    let (bytes_zeroed, method) = (sweep.zeroed(), sweep.method());
    let ContainerResidue { bytes_unreferenced, bytes_nonzero, unexamined, .. } = residue(file, format)?;
    let method = if format == Format::Raw { RAW.into() } else { method };
    Ok(ContainerErasure { bytes_unreferenced, bytes_zeroed, bytes_nonzero, method, unexamined })
}

/// The same for a file that was just written, in which nothing can be left of another.
///
/// # Errors
/// As [`clean`].
pub(super) fn clean_new(file: &File, format: Format) -> Result<ContainerErasure> {
    let method = "a new file, into which only the disk was written".into();
    Ok(ContainerErasure { method, unexamined: None, ..clean(file, format)? })
}

/// What to say of an image file that was cleaned before.
///
/// # Errors
/// As [`residue`].
pub(super) fn clean_before(file: &File, format: Format) -> Result<ContainerErasure> {
    let ContainerResidue { bytes_unreferenced, bytes_nonzero, unexamined, .. } = residue(file, format)?;
    let method = "cleaned by a run that was interrupted afterwards".into();
    Ok(ContainerErasure { bytes_unreferenced, bytes_zeroed: 0, bytes_nonzero, method, unexamined })
}

/// Looks at the same bytes and changes none.
///
/// # Errors
/// When the file cannot be read, or tables of a qcow2 image are damaged.
pub fn residue(file: &File, format: Format) -> Result<ContainerResidue> {
    let mut sweep = Sweep::new(file, Act::Count)?;
    let unexamined = walk(file, format, &mut sweep)?;
    Ok(ContainerResidue { unexamined, ..sweep.residue() })
}

const RAW: &str = "the file is the disk itself";

/// Takes the sweep over each stretch that holds nothing of the disk; says what was left out.
fn walk(file: &File, format: Format, sweep: &mut Sweep<'_>) -> Result<Option<String>> {
    match format {
        Format::Raw => Ok(None),
        Format::Qcow2 => qcow2::unreferenced(&mut &*file, |extent| sweep.over(extent)),
        Format::Vdi => within(vdi::unreferenced(file, sweep.end()), sweep),
        Format::Vmdk => within(vmdk::unreferenced(file, sweep.end()), sweep),
        Format::Vhdx => Ok(Some(unexamined("guestseal does not read its tables"))),
    }
}

/// For formats of which qemu keeps the tables whole itself: where they cannot be understood, that is said.
fn within(found: std::result::Result<Vec<Extent>, String>, sweep: &mut Sweep<'_>) -> Result<Option<String>> {
    match found {
        Ok(extents) => extents.into_iter().try_for_each(|extent| sweep.over(extent)).map(|()| None),
        Err(why) => Ok(Some(unexamined(&why))),
    }
}

fn unexamined(why: &str) -> String {
    format!("what the file holds besides its disk: {why}; --output NEW writes only what is in the disk")
}

/// The most pieces of a file that are kept account of; they take 16 bytes each.
const PIECES: usize = 8 << 20;

/// What of a file holds its disk, for formats with simple tables. Reasons are sentences for the report.
#[derive(Debug)]
struct Account {
    end: u64,
    live: Vec<Extent>,
}

impl Account {
    fn new(end: u64) -> Self {
        Self { end, live: Vec::new() }
    }

    /// Takes a part of the file for the disk or its tables. The last one may be cut off.
    fn take(&mut self, what: &str, at: u64, length: u64) -> std::result::Result<(), String> {
        if at >= self.end || at.checked_add(length).is_none() {
            return Err(format!("its {what} at byte {at} is not in the file"));
        }
        if self.live.len() >= PIECES {
            return Err(format!("it has more than {PIECES} pieces"));
        }
        self.live.push(Extent { start: at, length });
        Ok(())
    }

    /// What was not taken. None may lie on another.
    fn rest(self) -> std::result::Result<Vec<Extent>, String> {
        let taken = self.live.iter().map(|extent| extent.length).fold(0, u64::saturating_add);
        let live = Extents::new(self.live).map_err(|error| error.chain())?;
        if live.bytes() != taken {
            return Err("parts of it lie on one another".into());
        }
        Ok(live.gaps(0, self.end).iter().collect())
    }
}
