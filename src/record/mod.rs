//! The record of a sealing: an in-toto Statement beside the image, which `verify` holds against it later.

#![forbid(unsafe_code)]

pub mod digest;
pub mod disks;
pub mod template;
pub mod tree;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::apply::Left;
use crate::domain;
use crate::erase::report::Erasure;
use crate::error::{Context, Error, Result};
use crate::expand::Expanded;
use crate::fault::{self, Point};
use crate::image::container::ContainerErasure;
use crate::image::nameless::{NamelessFile, folder_of};
use crate::plan::Planned;
use crate::repair::Repair;
use crate::report::{OperationReport, Outcome, ProgramsRun, Tally};
use crate::sys::confine::Confinement;
use crate::uuids::NewUuid;

/// The type of an in-toto Statement, version 1.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The type of guestseal's predicate.
pub const PREDICATE_TYPE: &str = "urn:guestseal:seal:v1";
/// The most that is read of a record.
const RECORD_LIMIT: u64 = 64 << 20;

/// The whole record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SealRecord {
    /// [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub statement_type: String,
    /// The sealed images, one for each disk of the guest.
    pub subject: Vec<Subject>,
    /// [`PREDICATE_TYPE`].
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// What was done.
    pub predicate: Seal,
}

impl SealRecord {
    /// Sets the digests of the sealed images, hexadecimal, in the order of the subjects; none where none was wanted.
    pub fn set_digests<'a>(&mut self, digests: impl IntoIterator<Item = Option<&'a str>>) {
        for (subject, sha256) in self.subject.iter_mut().zip(digests) {
            subject.digest =
                sha256.iter().map(|digest| ("sha256".to_owned(), (*digest).to_owned())).collect();
        }
    }

    /// Says what became of the file's own bytes; none when nothing was to be erased.
    pub fn set_container(&mut self, container: Option<&ContainerErasure>) {
        self.predicate.container = container.map(|container| SealedContainer {
            bytes_nonzero: container.bytes_nonzero,
            unexamined: container.unexamined.clone(),
        });
    }
}

/// What the record says of the bytes of the image file that hold nothing of its disk. How many they are depends on what
/// an interrupted commit left, and is in the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SealedContainer {
    /// How many of them the proof found not to be zero.
    pub bytes_nonzero: u64,
    /// What was not looked at, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unexamined: Option<String>,
}

/// A file and its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// The file's name without folders.
    pub name: String,
    /// By algorithm; empty when hashing was turned off.
    pub digest: BTreeMap<String, String>,
}

/// guestseal's predicate.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Seal {
    /// Version of guestseal.
    pub tool_version: String,
    /// When the run began, UTC, RFC 3339.
    pub started: String,
    /// When the image was whole again.
    pub finished: String,
    /// What went in: name, format, sizes; a list of these for a guest with several disks.
    pub input: serde_json::Value,
    /// The domain of libvirt whose disks they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<domain::Identity>,
    /// In which state its guest was copied, where it went on running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub point_in_time: Option<domain::copy::PointInTime>,
    /// The guest: system, architecture, filesystems.
    pub guest: serde_json::Value,
    /// What grew before, with `--expand`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expanded: Option<Expanded>,
    /// Filesystems that were repaired before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repairs: Vec<Repair>,
    /// Every selected operation and what came of it.
    pub operations: Vec<SealedOperation>,
    /// What the customisation made and an operation would have removed: `verify` knows that it is to be there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<Left>,
    /// What was done so that deleted data cannot be read back, and how that was proven.
    pub erasure: Erasure,
    /// The same of the image file's own bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<SealedContainer>,
    /// nbd, fuse, loop, vm or tree.
    pub attached: String,
    /// Why so; records from before it was said have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached_because: Option<String>,
    /// What held the worker that edited the guest; older records do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confinement: Option<Confinement>,
    /// How the result became permanent.
    pub commit: serde_json::Value,
    /// Of a template: what is known of its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<template::TemplateFacts>,
}

/// One operation in the record.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SealedOperation {
    /// Its name.
    pub name: String,
    /// What came of it.
    pub outcome: Outcome,
    /// How much.
    #[serde(flatten)]
    pub tally: Tally,
    /// What of the guest's own programs was run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub programs: Option<ProgramsRun>,
    /// Its parameters without secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, String>,
    /// The UUIDs that it replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uuids: Vec<NewUuid>,
}

/// Of what operations would do, all that is not to be there: without what the customisation had left.
pub fn without_left(reports: &[OperationReport], left: &[Left]) -> Vec<OperationReport> {
    let is_left = |name: &str, path: &Path| left.iter().any(|one| one.operation == name && one.path == path);
    let changed = reports.iter().filter(|report| report.outcome == Outcome::Changed).cloned();
    let others = changed.filter_map(|mut report| {
        let before = report.files.len();
        report.files.retain(|file| !is_left(&report.name, &file.path));
        (before == 0 || !report.files.is_empty()).then_some(report)
    });
    others.collect()
}

impl SealedOperation {
    /// From what was planned and what came of it.
    pub fn new(planned: &Planned, report: &OperationReport) -> Self {
        Self {
            name: report.name.clone(),
            outcome: report.outcome,
            tally: report.tally,
            programs: report.programs.clone(),
            parameters: planned.settings.values.clone(),
            uuids: planned.settings.uuids.clone().unwrap_or_default(),
        }
    }
}

/// Where the record of an image is.
pub fn path_of(image: &Path) -> PathBuf {
    let mut name = image.file_name().unwrap_or_default().to_os_string();
    name.push(".seal.json");
    image.with_file_name(name)
}

/// A record that has its place in the folder already, before the image is written: a full or read-only folder shows
/// while nothing is changed.
#[derive(Debug)]
pub struct PendingRecord {
    file: NamelessFile,
    path: PathBuf,
}

impl PendingRecord {
    /// Makes the file, nameless yet.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn prepare(image: &Path) -> Result<Self> {
        let path = path_of(image);
        Ok(Self { file: NamelessFile::make(folder_of(&path), 0o644)?, path })
    }

    /// Writes the record, flushed and nameless yet.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn write(self, record: &SealRecord) -> Result<WrittenRecord> {
        let failed = || format!("cannot write the record {}", self.path.display());
        let mut text = serde_json::to_vec_pretty(record).context(failed)?;
        text.push(b'\n');
        self.file.file().write_all(&text).context(failed)?;
        self.file.flush().map_err(|error| error.within(failed()))?;
        fault::point(Point::RecordWritten)?;
        Ok(WrittenRecord(self))
    }
}

/// A record that is whole but for its name.
#[derive(Debug)]
pub struct WrittenRecord(PendingRecord);

impl WrittenRecord {
    /// Gives it its name, in place of the record of an earlier sealing; returns its path.
    ///
    /// # Errors
    /// When that fails.
    pub fn name(self) -> Result<PathBuf> {
        let Self(PendingRecord { mut file, path }) = self;
        file.name_over(path.file_name().unwrap_or_default())
            .map_err(|error| error.within(format!("cannot write the record {}", path.display())))?;
        fault::point(Point::RecordNamed)?;
        Ok(path)
    }
}

/// Reads the record of an image.
///
/// # Errors
/// When there is none, or it is no record of guestseal.
pub fn load(image: &Path) -> Result<SealRecord> {
    load_with_text(image).map(|(record, _)| record)
}

/// The same with the bytes of its file.
///
/// # Errors
/// As [`load`].
pub fn load_with_text(image: &Path) -> Result<(SealRecord, Vec<u8>)> {
    use std::io::Read;
    let path = path_of(image);
    let failed = || format!("cannot read the record {}", path.display());
    let mut text = Vec::new();
    fs::File::open(&path).and_then(|file| file.take(RECORD_LIMIT).read_to_end(&mut text)).map_err(
        |error| {
            Error::failed(failed())
                .caused_by(error)
                .hint("was the image sealed by guestseal, and not moved without its record? that of a guest with several disks \
                    is beside the first")
        },
    )?;
    let record = parse(&text).map_err(|error| error.within(failed()))?;
    Ok((record, text))
}

/// Reads a record from its text.
///
/// # Errors
/// When it is no record of guestseal.
pub fn parse(text: &[u8]) -> Result<SealRecord> {
    let record: SealRecord = serde_json::from_slice(text).context(|| "it cannot be understood")?;
    if record.statement_type != STATEMENT_TYPE || record.predicate_type != PREDICATE_TYPE {
        return Err(Error::failed("it is no record of guestseal"));
    }
    Ok(record)
}
