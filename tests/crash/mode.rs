//! How an image is sealed in a trial, and what an undisturbed run of that makes of it.

use std::ffi::OsString;
use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use guestseal::fault::Point;
use serde_json::Value;

use crate::check::guest_files;
use crate::common::{guestseal, tool};
use crate::run::Run;
use crate::stage::{Print, Stage, copy};

/// How the result becomes permanent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Commit {
    Overlay,
    Output,
    InPlace,
}

/// Format, way of attaching, way of writing the result.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mode {
    pub(crate) format: &'static str,
    pub(crate) way: &'static str,
    pub(crate) commit: Commit,
    /// Whether the image has snapshots and a bitmap, which the seal drops.
    snapshots: bool,
}

/// Whether the sealed image is hashed: that takes longer than all else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Digest {
    Sha256,
    None,
}

impl Mode {
    pub(crate) const fn new(format: &'static str, way: &'static str, commit: Commit) -> Self {
        Self { format, way, commit, snapshots: false }
    }

    pub(crate) const fn with_snapshots(self) -> Self {
        Self { snapshots: true, ..self }
    }

    pub(crate) fn name(self) -> String {
        let commit = match self.commit {
            Commit::Overlay => "overlay",
            Commit::Output => "--output",
            Commit::InPlace => "--in-place",
        };
        let snapshots = if self.snapshots { ", --drop-snapshots" } else { "" };
        format!("{}, {}, {commit}{snapshots}", self.way, self.format)
    }

    /// The command that seals this image.
    pub(crate) fn seal(self, image: &Path, digest: Digest) -> Vec<OsString> {
        let mut words: Vec<OsString> = ["seal", "--quiet", "--attach", self.way].map(Into::into).into();
        if digest == Digest::None {
            words.extend(["--digest", "none"].map(Into::into));
        }
        if self.snapshots {
            words.push("--drop-snapshots".into());
        }
        match self.commit {
            Commit::Overlay => {}
            Commit::Output => words.extend(["--output".into(), output(image).into()]),
            Commit::InPlace => words.push("--in-place".into()),
        }
        words.push(image.into());
        words
    }

    /// Where the sealed image is afterwards.
    pub(crate) fn result(self, image: &Path) -> PathBuf {
        if self.commit == Commit::Output { output(image) } else { image.to_path_buf() }
    }
}

fn output(image: &Path) -> PathBuf {
    image.with_file_name("new.img")
}

/// The record's place beside an image.
pub(crate) fn record_of(image: &Path) -> PathBuf {
    let mut path = image.as_os_str().to_owned();
    path.push(".seal.json");
    path.into()
}

/// A record without what differs between two good runs: times, digest, the folder, and how much of what was erased
/// the kernel had written where.
pub(crate) fn record(image: &Path) -> Value {
    let text = fs::read_to_string(record_of(image)).unwrap();
    let text = text.replace(image.parent().unwrap().to_str().unwrap(), "FOLDER");
    let mut record: Value = serde_json::from_str(&text).unwrap();
    for time in ["started", "finished"] {
        record["predicate"].as_object_mut().unwrap().remove(time).unwrap();
    }
    record["subject"][0].as_object_mut().unwrap().remove("digest").unwrap();
    let erasure = record["predicate"]["erasure"].as_object_mut().unwrap();
    for differs in ["milliseconds", "proof-milliseconds", "copies"] {
        erasure.remove(differs);
    }
    for volume in erasure.get_mut("volumes").and_then(Value::as_array_mut).into_iter().flatten() {
        volume.as_object_mut().unwrap().retain(|key, _| !["extents", "bytes-zeroed"].contains(&key.as_str()));
        for kind in volume.get_mut("metadata").and_then(Value::as_array_mut).into_iter().flatten() {
            kind.as_object_mut().unwrap().retain(|key, _| !["bytes", "bytes-zeroed"].contains(&key.as_str()));
        }
    }
    record
}

/// A mode, and the points at which it is tried.
pub(crate) type Part = (Mode, RangeInclusive<Point>);

pub(crate) const LAST: Point = Point::OverlayRemoved;

/// All points.
pub(crate) const WHOLE: RangeInclusive<Point> = Point::Locked..=LAST;

pub(crate) fn references(guest: &Path, parts: &[Part]) -> Vec<(Reference, RangeInclusive<Point>)> {
    parts.iter().map(|(mode, part)| (Reference::make(guest, *mode), part.clone())).collect()
}

/// Each of the points with each of the modes that are tried at it.
pub(crate) fn own<'a>(
    references: &'a [(Reference, RangeInclusive<Point>)],
    points: &[Point],
) -> Vec<(&'a Reference, Point)> {
    let pairs = references.iter().flat_map(|(reference, part)| {
        points.iter().filter(|point| part.contains(point)).map(move |point| (reference, *point))
    });
    pairs.collect()
}

/// An image to be sealed, which stays as it is, and what comes of it.
#[derive(Debug)]
pub(crate) struct Reference {
    pub(crate) mode: Mode,
    pub(crate) source: Stage,
    pub(crate) before: Print,
    pub(crate) record: Value,
    pub(crate) files: String,
}

impl Reference {
    pub(crate) fn make(guest: &Path, mode: Mode) -> Self {
        let source = Stage::new(&format!("guest.{}", mode.format));
        let from = if guest.extension().is_some_and(|end| end == "qcow2") { "qcow2" } else { "raw" };
        let convert = ["convert", "-q", "-f", from, "-O", mode.format].map(PathBuf::from);
        tool("qemu-img", convert.into_iter().chain([guest.to_path_buf(), source.image.clone()]));
        if mode.snapshots {
            tool("qemu-img", [Path::new("snapshot"), Path::new("-c"), Path::new("old"), &source.image]);
            tool("qemu-img", [Path::new("bitmap"), Path::new("--add"), &source.image, Path::new("dirty")]);
        }
        let before = image_print(&source);
        let trial = fresh(&source);
        let looked = trial.guestseal("seal --dry-run --json --drop-snapshots").expect(0);
        let inspection = looked.result()["inspection"].take();
        assert!(Run::whole(&mode.seal(&trial.image, Digest::Sha256), None).is_good());
        let sealed = mode.result(&trial.image);
        guestseal("verify", &[&sealed]).expect(0);
        let (record, files) = (record(&sealed), guest_files(&sealed, &inspection));
        let has = |path: &str| files.lines().any(|line| line.starts_with(&format!(" {path} ")));
        assert!(has("/etc/passwd") && !has("/root/.bash_history"), "not sealed at all");
        Self { mode, source, before, record, files }
    }

    /// How long an undisturbed run takes now: the middle one of three.
    pub(crate) fn duration(&self, digest: Digest) -> Duration {
        let mut times = [(); 3].map(|()| {
            let trial = fresh(&self.source);
            let began = Instant::now();
            assert!(Run::whole(&self.mode.seal(&trial.image, digest), None).is_good());
            began.elapsed()
        });
        times.sort();
        times[1]
    }
}

/// A copy of the image in a folder of its own, with the times of the first.
pub(crate) fn fresh(source: &Stage) -> Stage {
    let stage = Stage::new(source.image.file_name().unwrap().to_str().unwrap());
    copy(&source.image, &stage.image);
    tool("touch", [Path::new("-r"), &source.image, &stage.image]);
    stage
}

/// What may not change of an image, without what is beside it.
pub(crate) fn image_print(stage: &Stage) -> Print {
    let mut print = stage.print();
    print.names.clear();
    print
}
