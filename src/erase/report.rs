//! What the erasure did and what its proof found: the part of the report and of the record.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use super::copies::Copies;
use super::extent::Extent;
use super::metadata::Remains;
use super::policy::{ErasePlan, Policy};

/// The erasure of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Erasure {
    /// How much was to be erased.
    pub policy: Policy,
    /// Each volume, and the gaps between them; none when nothing was to be erased.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeErasure>,
    /// Whether what lies between partitions was left as it was.
    #[serde(default)]
    pub keep_gaps: bool,
    /// What the search for fingerprints of deleted files found; none when none were taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copies: Option<Copies>,
    /// What people should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Time that the erasure took, without the proof.
    #[serde(default)]
    pub milliseconds: u64,
    /// Time that the proof took.
    #[serde(default)]
    pub proof_milliseconds: u64,
}

/// The erasure of one volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct VolumeErasure {
    /// Its name: "partition 2", "the whole disk", "gaps".
    pub volume: String,
    /// What it holds; none for gaps and when nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// How the free space was found.
    pub method: String,
    /// Free space in bytes, as the proof found it.
    pub free_bytes: u64,
    /// In how many pieces.
    pub extents: u64,
    /// How many bytes of it held data before and are zero now.
    pub bytes_zeroed: u64,
    /// How many bytes of it the proof found not to be zero.
    pub bytes_nonzero: u64,
    /// What metadata kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metadata: Vec<MetadataErasure>,
    /// Why nothing can be said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unproven: Option<String>,
    /// What may still hold deleted data, by its nature.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<String>,
    /// The first places that the proof found not to be zero, in bytes of the disk.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<Extent>,
}

/// The erasure of one kind of metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MetadataErasure {
    /// `journal`, `free inodes`, `directories`, …
    pub kind: String,
    /// How large these places are, in bytes.
    pub bytes: u64,
    /// How many of these bytes held something before and are zero now.
    pub bytes_zeroed: u64,
    /// How many of them the proof found not to be zero.
    pub bytes_nonzero: u64,
}

impl VolumeErasure {
    /// Takes what the walk over the metadata found, before it was made zero or in the proof.
    pub(super) fn take_metadata(&mut self, found: Vec<Remains>, proof: bool) {
        for Remains { kind, bytes, nonzero } in found {
            let known = self.metadata.iter().position(|known| known.kind == kind).unwrap_or_else(|| {
                self.metadata.push(MetadataErasure { kind, ..MetadataErasure::default() });
                self.metadata.len() - 1
            });
            let known = &mut self.metadata[known];
            known.bytes = bytes;
            *(if proof { &mut known.bytes_nonzero } else { &mut known.bytes_zeroed }) = nonzero;
        }
    }

    /// How many bytes the proof found that should be zero.
    pub fn residue(&self) -> u64 {
        self.metadata.iter().map(|kind| kind.bytes_nonzero).fold(self.bytes_nonzero, u64::saturating_add)
    }
}

impl Erasure {
    /// The plan by which it is to be proven again.
    pub fn plan(&self) -> ErasePlan {
        ErasePlan { policy: self.policy, keep_gaps: self.keep_gaps, allow_unproven: true }
    }

    /// How many bytes the proof found that should be zero.
    pub fn residue(&self) -> u64 {
        self.volumes.iter().map(VolumeErasure::residue).fold(0, u64::saturating_add)
    }

    /// How many bytes held data before and are zero now.
    pub fn bytes_zeroed(&self) -> u64 {
        let of = |volume: &VolumeErasure| {
            volume
                .metadata
                .iter()
                .map(|kind| kind.bytes_zeroed)
                .fold(volume.bytes_zeroed, u64::saturating_add)
        };
        self.volumes.iter().map(of).fold(0, u64::saturating_add)
    }

    /// The volumes of which nothing can be said, each with the reason.
    pub fn unproven(&self) -> impl Iterator<Item = (&str, &str)> {
        self.volumes.iter().filter_map(|volume| Some((volume.volume.as_str(), volume.unproven.as_deref()?)))
    }
}
