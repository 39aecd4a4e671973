//! What a kill has left of an image: judged by its bytes, the names beside it, qemu-img, the filesystems' checkers and
//! the guest's files, and then by what guestseal itself says and does next.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::common::{fingerprint, guestseal, tool};
use crate::mode::{Commit, Digest, Reference, fresh, image_print, record, record_of};
use crate::mounts::{Access, check_filesystems, export, with_guest};
use crate::run::{End, Run};
use crate::stage::Stage;

/// What the image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// Byte for byte what it was.
    Untouched,
    /// Sealed after `recover`, which had to finish it.
    Recovered,
    /// Sealed, with its record.
    Sealed,
    /// A new file that is sealed and whole, whose record was yet to come.
    Unrecorded,
    /// Written in place, for which nothing is promised.
    Open,
}

/// An image that runs are killed on.
#[derive(Debug)]
pub(crate) struct Trial<'a> {
    pub(crate) reference: &'a Reference,
    pub(crate) stage: Stage,
}

impl<'a> Trial<'a> {
    pub(crate) fn fresh(reference: &'a Reference) -> Self {
        Self { reference, stage: fresh(&reference.source) }
    }

    /// The command that seals it.
    pub(crate) fn seal(&self, digest: Digest) -> Vec<OsString> {
        self.reference.mode.seal(&self.stage.image, digest)
    }

    pub(crate) fn recover(&self) -> Vec<OsString> {
        ["recover".into(), "--quiet".into(), self.stage.image.clone().into()].into()
    }

    fn result(&self) -> PathBuf {
        self.reference.mode.result(&self.stage.image)
    }

    /// Whether a commit was interrupted and `recover` has to finish it.
    fn is_interrupted(&self) -> bool {
        self.hidden("journal").exists()
    }

    fn hidden(&self, what: &str) -> PathBuf {
        let name = self.stage.image.file_name().unwrap().to_str().unwrap();
        self.stage.path(&format!(".{name}.guestseal-{what}"))
    }

    /// The names in the folder when all is done, or when nothing was.
    fn is_tidy(&self) {
        let sealed = self.result();
        let done = [&self.stage.image, &sealed, &record_of(&sealed)];
        let done: BTreeSet<OsString> = done.map(|path| path.file_name().unwrap().into()).into();
        let names = self.stage.print().names;
        let extra: Vec<_> = names.difference(&done).collect();
        assert!(extra.is_empty(), "left in the folder: {extra:?}");
    }

    /// The names in the folder right after a kill.
    fn names_are_known(&self) {
        let sealed = self.result();
        let (journal, overlay) = (self.hidden("journal"), self.hidden("overlay"));
        let known = [&self.stage.image, &sealed, &record_of(&sealed), &journal, &overlay];
        let names = self.stage.print().names;
        let unknown = names.iter().filter(|name| !known.iter().any(|path| path.file_name() == Some(name)));
        // A file that replaces another has a name of its own for a moment, which the next run clears.
        let unknown: Vec<_> =
            unknown.filter(|name| !name.as_encoded_bytes().starts_with(b".guestseal-")).collect();
        assert!(unknown.is_empty(), "unknown names in the folder: {unknown:?}");
    }

    /// Judges what a run that ended so has left, and recovers when that is to be done.
    pub(crate) fn judge(&self, end: &End) -> State {
        self.names_are_known();
        let interrupted = self.is_interrupted();
        if let End::Exit { code, said } = end {
            assert!(*code == 0 || said.contains("error: "), "{code} without a word: {said}");
            assert_eq!(interrupted, *code == 4, "exit code {code}: {said}");
            // It lived to undo what it did.
            if !interrupted {
                self.is_tidy();
            }
        }
        match self.reference.mode.commit {
            Commit::InPlace => State::Open,
            _ if interrupted => {
                self.recovers();
                State::Recovered
            }
            Commit::Overlay if self.is_untouched() => {
                assert!(!end.is_good() && !record_of(&self.stage.image).exists(), "{end:?}");
                State::Untouched
            }
            Commit::Output if !self.result().exists() => {
                assert!(self.is_untouched(), "the source changed");
                assert!(!end.is_good(), "{end:?}");
                State::Untouched
            }
            Commit::Output if !record_of(&self.result()).exists() => {
                assert!(!end.is_good(), "{end:?}");
                self.is_whole();
                State::Unrecorded
            }
            _ => {
                self.is_recorded();
                self.is_whole();
                State::Sealed
            }
        }
    }

    fn is_untouched(&self) -> bool {
        image_print(&self.stage) == self.reference.before
    }

    /// Nothing but `recover` touches it, and that ends in what an undisturbed run makes.
    fn recovers(&self) {
        let before = self.files();
        for words in ["seal", "inspect", "verify"] {
            self.stage.guestseal(words).expect(4).says(&["interrupted", "what to do", "guestseal recover"]);
            assert_eq!(self.files(), before, "changed by {words}");
        }
        self.stage.guestseal("recover").expect(0);
        self.is_recorded();
        self.is_whole();
        self.is_tidy();
        let again = self.stage.guestseal("recover").expect(0);
        assert!(again.stdout.contains("nothing to recover"), "{again:?}");
    }

    /// Every file of the folder.
    fn files(&self) -> BTreeMap<PathBuf, (String, i64, i64)> {
        let paths = fs::read_dir(self.stage.folder()).unwrap().map(|entry| entry.unwrap().path());
        let facts = paths.map(|path| {
            let meta = path.symlink_metadata().unwrap();
            let facts = (fingerprint(&path), meta.mtime(), meta.mtime_nsec());
            (path, facts)
        });
        facts.collect()
    }

    fn is_recorded(&self) {
        let image = self.result();
        guestseal("verify", &[&image]).expect(0);
        assert_eq!(record(&image), self.reference.record, "another record than that of an undisturbed run");
    }

    /// The sealed image is what an undisturbed run makes, and the source of a new file is as it was.
    fn is_whole(&self) {
        let image = self.result();
        if image != self.stage.image {
            assert!(self.is_untouched(), "the source changed");
        }
        let report = guestseal("inspect --json", &[&image]).expect(0).result();
        changes_nothing(&report);
        let files = guest_files(&image, &report["inspection"]);
        let wanted = &self.reference.files;
        let other = files.lines().zip(wanted.lines()).find(|(this, that)| this != that);
        assert!(files == *wanted, "another guest than that of an undisturbed run: {other:?}");
    }

    /// Seals it again, unless nothing at all differs from the first time: that works on whatever was left, and tidies up.
    pub(crate) fn seals_again(&self, state: State) {
        if state == State::Open || state == State::Untouched && self.is_alone() {
            return;
        }
        let end = Run::whole(&self.seal(Digest::Sha256), None);
        assert!(end.is_good(), "{end:?}");
        self.is_tidy();
        guestseal("verify", &[&self.result()]).expect(0);
    }

    /// Whether nothing is in the folder but the image.
    pub(crate) fn is_alone(&self) -> bool {
        fs::read_dir(self.stage.folder()).unwrap().count() == 1
    }
}

fn changes_nothing(report: &Value) {
    for operation in report["operations"].as_array().unwrap() {
        assert_ne!(operation["outcome"], "changed", "{operation:#}");
    }
}

/// Every file of the guest in an image that is whole, a line each: path, mode, owner, digest of its content. The times
/// differ between runs.
pub(crate) fn guest_files(image: &Path, inspection: &Value) -> String {
    let format = described(image);
    if format != "raw" {
        tool("qemu-img", ["check", "-q", "-f", &format, image.to_str().unwrap()]);
    }
    let raw = export(image, &format);
    check_filesystems(&raw, inspection);
    let files = with_guest(&raw, inspection, Access::Look, list);
    if raw != image {
        fs::remove_file(raw).unwrap();
    }
    files
}

/// The format of an image, which has nothing of its past.
fn described(image: &Path) -> String {
    let text = tool("qemu-img", [Path::new("info"), Path::new("--output=json"), image]);
    let described: Value = serde_json::from_str(&text).unwrap();
    assert!(described["snapshots"].is_null(), "{described:#}");
    assert!(described["format-specific"]["data"]["bitmaps"].is_null(), "{described:#}");
    described["format"].as_str().unwrap().to_owned()
}

fn list(root: &Path) -> String {
    let mut lines = String::new();
    for file in walkdir::WalkDir::new(root).sort_by_file_name().into_iter().map(Result::unwrap) {
        let meta = file.path().symlink_metadata().unwrap();
        let content = if meta.is_file() {
            Sha256::digest(fs::read(file.path()).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
        } else {
            fs::read_link(file.path()).map(|link| format!("{link:?}")).unwrap_or_default()
        };
        let path = Path::new("/").join(file.path().strip_prefix(root).unwrap());
        let (mode, owner) = (meta.mode(), (meta.uid(), meta.gid()));
        writeln!(lines, " {} {mode:o} {owner:?} {content}", path.display()).unwrap();
    }
    lines
}
