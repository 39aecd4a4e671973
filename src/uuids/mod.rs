//! New UUIDs for a guest's volumes. [`decide`] says which, once the storage is known; the operations mend by [`mend`] what
//! names the old ones; [`device`] writes them when nothing is mounted any more. Old and new are handed on as one value.

#![forbid(unsafe_code)]

pub mod decide;
pub mod device;
mod fat;
pub mod initramfs;
pub mod mend;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::disk::Storage;
use crate::error::{Context, Error, Result};
use crate::operation::Operation;
use crate::operation::schema::Action;
use crate::plan::Planned;
use crate::report::{OperationReport, Outcome};

/// What gets new UUIDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Filesystems and swap space.
    Filesystems,
    /// LVM2 physical volumes and volume groups.
    Lvm,
    /// LUKS containers.
    Luks,
    /// Software RAID.
    Md,
}

impl Kind {
    /// Those that can be given before the layers above are opened only: nobody may use them.
    pub fn is_below(self) -> bool {
        matches!(self, Self::Lvm | Self::Md)
    }
}

/// How a UUID is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// 128 bits in hexadecimal digits: `8-4-4-4-12`.
    Plain,
    /// A FAT's serial number: `ABCD-1234`.
    Serial,
    /// The same 128 bits of a LUKS container, which GRUB writes without hyphens.
    Luks,
    /// The same of a RAID, which mdadm writes as four numbers.
    Array,
    /// 32 letters and digits of an LVM2 physical volume: `6-4-4-4-4-4-6`.
    PhysicalVolume,
    /// The same of a volume group.
    VolumeGroup,
}

/// A UUID that is replaced by another.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct NewUuid {
    /// Of what, for people: `ext4 on partition 1`.
    pub what: String,
    /// How it is written.
    pub form: Form,
    /// As blkid(8), or LVM, prints it.
    pub old: String,
    /// The new one.
    pub new: String,
}

impl NewUuid {
    /// The same, when both are what their form says: a machine may send anything.
    ///
    /// # Errors
    /// When one is not.
    pub fn checked(self) -> Result<Self> {
        let sound = |text: &str| {
            let groups: &[usize] = match self.form {
                Form::Plain | Form::Luks | Form::Array => &[8, 4, 4, 4, 12],
                Form::Serial => &[4, 4],
                Form::PhysicalVolume | Form::VolumeGroup => &[6, 4, 4, 4, 4, 4, 6],
            };
            let hex = !matches!(self.form, Form::PhysicalVolume | Form::VolumeGroup);
            let is_digit =
                |byte: u8| if hex { byte.is_ascii_hexdigit() } else { byte.is_ascii_alphanumeric() };
            let parts: Vec<&str> = text.split('-').collect();
            parts.len() == groups.len()
                && parts
                    .iter()
                    .zip(groups)
                    .all(|(part, length)| part.len() == *length && part.bytes().all(is_digit))
        };
        if sound(&self.old) && sound(&self.new) {
            return Ok(self);
        }
        Err(Error::unsupported(format!("the UUID of {} is not one that can be replaced", self.what)))
    }
}

/// A random UUID (RFC 9562, version 4).
///
/// # Errors
/// When the host has no random numbers.
pub fn random() -> Result<String> {
    let mut bytes = random_bytes::<16>()?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

fn random_serial() -> Result<String> {
    let [a, b, c, d] = random_bytes()?;
    Ok(format!("{a:02X}{b:02X}-{c:02X}{d:02X}"))
}

/// Bytes of the host's entropy.
///
/// # Errors
/// When the host has no random numbers.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).context(|| "cannot get random numbers")?;
    Ok(bytes)
}

impl Operation {
    /// What it gives new UUIDs.
    pub fn new_uuids(&self) -> impl Iterator<Item = Kind> {
        self.actions.iter().filter_map(|action| match action {
            Action::NewUuids(verb) => Some(verb.of),
            _ => None,
        })
    }
}

/// What operations give new UUIDs in this run; one that is held against its record gives none.
pub fn wanted(operations: &[Planned]) -> Vec<Kind> {
    let run = operations.iter().filter(|planned| !planned.settings.recorded);
    run.flat_map(|planned| planned.operation.new_uuids()).collect()
}

/// Refuses operations on volumes where there are none.
///
/// # Errors
/// [`crate::ErrorKind::Unsupported`] when one gives new UUIDs.
pub fn refuse_without_volumes(operations: &[Planned]) -> Result<()> {
    match operations.iter().find(|planned| planned.operation.new_uuids().next().is_some()) {
        None => Ok(()),
        Some(planned) => Err(Error::unsupported(format!(
            "a folder has no volumes: the operation {} has nothing to give a new UUID to",
            planned.operation.name
        ))
        .hint("leave the operation out, or seal the image")),
    }
}

/// Adds to what was seen of a sealed guest that a volume has a UUID again which was replaced.
pub fn add_returned(storage: &Storage, operations: &[Planned], reports: &mut [OperationReport]) {
    for (planned, report) in operations.iter().zip(reports) {
        for replaced in planned.settings.uuids.iter().flatten() {
            let is_it = |uuid: &String| *uuid == replaced.old;
            let uuids = storage.volumes.iter().filter_map(|volume| volume.superblock.as_ref()?.uuid.as_ref());
            if uuids.clone().any(is_it) {
                report.outcome = Outcome::Changed;
                report.notes.push(replaced.is_back());
            }
        }
    }
}

impl NewUuid {
    fn is_back(&self) -> crate::action::Note {
        crate::action::Note { path: None, message: format!("{} has the UUID {} again", self.what, self.old) }
    }
}
