//! A guest on two disks is killed at each point of its commit, each time that a run comes by: after `recover` of either
//! disk both are what they were, or both are sealed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use guestseal::fault::Point;

use crate::common::{GUESTSEAL, Ran, fingerprint, guestseal, ready, run, tool};
use crate::mode::record_of;
use crate::run::{End, Run};
use crate::stage::{Stage, copy};
use crate::tally::{Tally, share};
use crate::traces::{Traces, begin};
use crate::two::{lines_left, make_pair};

/// The most often that a run with two disks comes by one point.
const TIMES: u32 = 3;

/// Both disks, in a folder of their own.
struct Trial {
    stage: Stage,
    disks: [PathBuf; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Old,
    Recovered,
    New,
}

impl Trial {
    fn fresh(source: &[PathBuf; 2]) -> Self {
        let stage = Stage::new("root");
        let disks = source.each_ref().map(|image| {
            let to = stage.path(image.file_name().unwrap().to_str().unwrap());
            copy(image, &to);
            tool("touch", [Path::new("-r"), image, &to]);
            to
        });
        Self { stage, disks }
    }

    fn words(&self, words: &[&str]) -> Vec<OsString> {
        let disks = self.disks.iter().flat_map(|disk| ["-a".into(), disk.into()]);
        words.iter().map(Into::into).chain(disks).collect()
    }

    #[track_caller]
    fn on(&self, words: &[&str]) -> Ran {
        run(GUESTSEAL, self.words(words))
    }

    fn seal(&self) -> Vec<OsString> {
        self.words(&["seal", "--quiet", "--attach", "fuse"])
    }

    fn hidden(&self, disk: usize, what: &str) -> PathBuf {
        let name = self.disks[disk].file_name().unwrap().to_str().unwrap();
        self.stage.path(&format!(".{name}.guestseal-{what}"))
    }

    fn prints(&self) -> [String; 2] {
        self.disks.each_ref().map(|disk| fingerprint(disk))
    }

    /// Whether nothing but the images and what they are to have is in the folder.
    #[track_caller]
    fn is_tidy(&self) {
        let known = [&self.disks[0], &self.disks[1], &record_of(&self.disks[0])];
        let known: BTreeSet<_> = known.into_iter().filter_map(|path| path.file_name()).collect();
        let names = self.stage.print_names();
        let extra: Vec<_> = names.iter().filter(|name| !known.contains(name.as_os_str())).collect();
        assert!(extra.is_empty(), "left in the folder: {extra:?}");
    }

    /// Judges what a run has left, recovers by the disk of this number, and says what the guest is.
    fn judge(&self, before: &[String; 2], by: usize) -> State {
        // The journal of the first decides.
        let interrupted = self.hidden(0, "journal").exists();
        if interrupted {
            let now = self.prints();
            self.on(&["inspect"]).expect(4).says(&["interrupted", "guestseal recover"]);
            for (disk, words) in self.disks.iter().zip(["seal", "verify"]) {
                guestseal(words, &[disk]).expect(4).says(&["interrupted", "guestseal recover"]);
            }
            assert_eq!(self.prints(), now);
        } else if self.prints() == *before {
            // What is left beside the disks is of no use, and in nobody's way.
            self.on(&["inspect"]).expect(0);
        }
        let ran = guestseal("recover --json", &[&self.disks[by]]).expect(0);
        assert_eq!(ran.result()["recovered"], interrupted, "{ran:#?}");
        guestseal("recover", &[&self.disks[1 - by]]).expect(0);
        self.is_tidy();
        if self.prints() == *before {
            assert!(!interrupted && !record_of(&self.disks[0]).exists(), "not all is as it was");
            return State::Old;
        }
        self.is_sealed();
        if interrupted { State::Recovered } else { State::New }
    }

    #[track_caller]
    fn is_sealed(&self) {
        assert_eq!(lines_left(&self.disks), [0; 3], "half sealed");
        self.on(&["verify"]).expect(0);
        guestseal("verify --residue", &[&self.disks[0], &self.disks[1]]).expect(0);
        for (disk, format) in self.disks.iter().zip(FORMATS).filter(|(_, format)| *format == "qcow2") {
            tool("qemu-img", ["check", "-q", "-f", format, disk.to_str().unwrap()]);
        }
    }
}

const FORMATS: [&str; 2] = ["raw", "qcow2"];

/// Runs to be killed, or to fail, at each point, the first time and the others.
fn at_each(
    points: impl Iterator<Item = Point> + Clone,
    faults: &[&'static str],
    work: impl Fn(Point, (u32, &'static str), usize) -> Option<State> + Sync,
) -> BTreeSet<(State, &'static str)> {
    // Before the commit two disks are as one: see points.rs.
    let in_commit = |point: Point| point >= Point::OverlayNamed;
    let faults_at = |point| if in_commit(point) { faults } else { &faults[..1] };
    let jobs: Vec<_> =
        points.flat_map(|point| faults_at(point).iter().map(move |fault| (point, *fault))).collect();
    let (tally, seen) = (Tally::default(), Mutex::new(BTreeSet::new()));
    share(
        &jobs,
        &tally,
        || (),
        |(), (point, fault)| {
            for time in 1..=if in_commit(*point) { TIMES } else { 1 } {
                // By turns by the first disk and by the second.
                let by = usize::from((*point as u32 + time).is_multiple_of(2));
                let state = tally
                    .caught(("two disks", point.name()), "lost", || work(*point, (time, fault), by))
                    .flatten();
                let Some(state) = state else { break };
                println!("{}@{time}={fault}, by disk {by}: {state:?}", point.name());
                seen.lock().unwrap().insert((state, point.name()));
            }
        },
    );
    tally.report();
    seen.into_inner().unwrap()
}

/// A run armed so, unless it never comes by that point that often.
fn strike(trial: &Trial, words: &[OsString], point: Point, (time, fault): (u32, &str)) -> Option<End> {
    let run = Run::start_at(words, Some(format!("{}@{time}={fault}", point.name())));
    let session = run.pid.as_raw();
    let end = run.end();
    let struck = match &end {
        End::Killed => fault == "kill",
        End::Exit { said, .. } => said.contains("failed on purpose"),
    };
    if !struck {
        assert!(end.is_good(), "{}: {end:?}", point.name());
        return None;
    }
    Traces::of(session, trial.stage.folder()).0.are_gone();
    Some(end)
}

/// A guest of two disks, in a folder of its own, and what they are before a run.
fn pair() -> (Stage, [PathBuf; 2], [String; 2]) {
    begin();
    let source = Stage::new("source");
    let images = make_pair(source.folder(), FORMATS);
    let before = Trial::fresh(&images).prints();
    (source, images, before)
}

#[test]
fn killed_and_failed_at_every_point_of_two_disks() {
    if !ready() {
        return;
    }
    let (_source, images, before) = pair();
    let points = Point::ALL.iter().copied().skip_while(|point| *point != Point::Locked);
    let seen = at_each(points, &["kill", "fail"], |point, how, by| {
        let trial = Trial::fresh(&images);
        let end = strike(&trial, &trial.seal(), point, how)?;
        if let End::Exit { code, said } = &end {
            assert_eq!(*code == 4, trial.hidden(0, "journal").exists(), "{said}");
        }
        let state = trial.judge(&before, by);
        if state == State::Old {
            let again = Run::whole(&trial.seal(), None);
            assert!(again.is_good(), "{again:?}");
            trial.is_tidy();
            trial.on(&["verify"]).expect(0);
        }
        Some(state)
    });
    for (state, point) in [
        (State::Old, Point::OverlayNamed),
        (State::Old, Point::JournalNamed),
        (State::Recovered, Point::JournalNamed),
        (State::Recovered, Point::ImageWritten),
        (State::Recovered, Point::RecordNamed),
        (State::New, Point::JournalRemoved),
    ] {
        assert!(seen.contains(&(state, point.name())), "never {state:?} at {}", point.name());
    }
}

#[test]
fn killed_while_it_recovers_two_disks() {
    if !ready() {
        return;
    }
    let (_source, images, before) = pair();
    let points = Point::ALL.iter().copied().skip_while(|point| *point != Point::SnapshotsDropped);
    let seen = at_each(points, &["kill"], |point, how, by| {
        let trial = Trial::fresh(&images);
        // When the first is whole and the second half written.
        let run = Run::start_at(&trial.seal(), Some("image-written@2=kill".into()));
        assert_eq!(run.end(), End::Killed);
        let words = ["recover".into(), "--quiet".into(), trial.disks[by].clone().into()];
        strike(&trial, &words, point, how)?;
        let state = trial.judge(&before, 1 - by);
        assert_ne!(state, State::Old);
        Some(state)
    });
    assert!(seen.contains(&(State::Recovered, Point::ImageFlushed.name())), "{seen:?}");
}

/// What belongs together may be moved together; what is missing is not made up for.
#[test]
fn a_disk_of_a_pair_that_was_moved() {
    if !ready() {
        return;
    }
    let source = Stage::new("source");
    let images = make_pair(source.folder(), FORMATS);
    let mut trial = Trial::fresh(&images);
    let run = Run::start_at(&trial.seal(), Some("image-written@2=kill".into()));
    assert_eq!(run.end(), End::Killed);
    let moved = tempfile::tempdir_in("/var/tmp").unwrap();
    for disk in [0, 1] {
        let away = moved.path().join("away");
        fs::rename(&trial.disks[disk], &away).unwrap();
        let other = &trial.disks[1 - disk];
        let kept = fingerprint(other);
        for words in ["seal", "inspect"] {
            guestseal(words, &[other]).expect(4).says(&["interrupted"]);
        }
        let ran = guestseal("recover", &[other]).expect(1);
        ran.says(&[trial.disks[disk].file_name().unwrap().to_str().unwrap()]);
        assert_eq!(fingerprint(other), kept);
        for what in ["journal", "overlay"] {
            assert!(trial.hidden(0, what).exists() && trial.hidden(1, what).exists());
        }
        fs::rename(&away, &trial.disks[disk]).unwrap();
    }
    // The journal of the second is another's, or gone.
    let journal = trial.hidden(1, "journal");
    let text = fs::read(&journal).unwrap();
    fs::rename(&journal, moved.path().join("kept")).unwrap();
    guestseal("recover", &[&trial.disks[0]]).expect(1).says(&["cannot use the journal", "it is missing"]);
    fs::copy(trial.hidden(0, "journal"), &journal).unwrap();
    guestseal("recover", &[&trial.disks[0]]).expect(1).says(&["of another commit"]);
    fs::write(&journal, text).unwrap();
    let place = moved.path().join("moved");
    fs::rename(trial.stage.folder(), &place).unwrap();
    trial.disks = trial.disks.each_ref().map(|disk| place.join(disk.file_name().unwrap()));
    let done = guestseal("recover --json", &[&trial.disks[1]]).expect(0).result();
    assert_eq!(done["record"], record_of(&trial.disks[0]).to_str().unwrap(), "{done}");
    trial.is_sealed();
}
