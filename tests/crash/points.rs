//! guestseal is killed at each of its fault points, and fails there; and the same while it recovers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use guestseal::fault::Point;

use crate::check::{State, Trial};
use crate::mode::{Commit, Digest, Mode, Reference};
use crate::run::{End, Run};
use crate::tally::{Tally, share};
use crate::traces::begin;
use crate::{by_nbd, guest, ready};

/// Each way of writing the result, with each way of attaching that this kernel has.
fn modes() -> Vec<Mode> {
    use Commit::{InPlace, Output, Overlay};
    let way = if by_nbd() { "nbd" } else { "fuse" };
    let common = [("qcow2", Overlay), ("raw", Overlay), ("qcow2", Output)];
    let common = common.map(|(format, commit)| Mode::new(format, way, commit));
    let here = [("raw", "loop", InPlace), ("qcow2", "fuse", InPlace)];
    let here = here.map(|(format, way, commit)| Mode::new(format, way, commit));
    common.into_iter().chain(here.into_iter().filter(|_| !by_nbd())).collect()
}

/// A run that is to be killed at a point, or to fail there, and the host and the image after it. None when the run
/// never came by that point.
fn strike(
    tally: &Tally,
    trial: &Trial<'_>,
    point: Point,
    what: &str,
    words: &[std::ffi::OsString],
) -> Option<State> {
    let run = Run::start(words, Some((point, what)));
    let session = run.pid.as_raw();
    let end = run.end();
    let struck = match &end {
        End::Killed => what == "kill",
        End::Exit { said, .. } => said.contains(&format!("failed on purpose at {}", point.name())),
    };
    if !struck {
        assert!(end.is_good(), "{}: {end:?}", point.name());
        return None;
    }
    let fault = format!(
        "{} of {} at each point",
        if what == "kill" { "SIGKILL" } else { "failure" },
        words[0].display()
    );
    let state = tally.trial(&fault, (trial, session), || {
        let state = trial.judge(&end);
        trial.seals_again(state);
        state
    });
    Some(state.unwrap_or(State::Open))
}

/// What came of the points, by mode; and those that nothing came by.
#[derive(Debug, Default)]
struct Map(Mutex<BTreeMap<String, Vec<(usize, String)>>>);

impl Map {
    fn add(&self, mode: &str, point: Point, states: &[Option<State>]) {
        let place = Point::ALL.iter().position(|other| *other == point).unwrap();
        let states: Vec<String> = states.iter().flatten().map(|state| format!("{state:?}")).collect();
        let mut map = self.0.lock().unwrap();
        map.entry(mode.into()).or_default().push((place, format!("{} {}", point.name(), states.join("/"))));
    }

    fn print(self) -> BTreeSet<&'static str> {
        let mut reached = BTreeSet::new();
        for (mode, mut points) in self.0.into_inner().unwrap() {
            points.sort();
            reached.extend(points.iter().map(|(place, _)| Point::ALL[*place].name()));
            let words: Vec<String> = points.into_iter().map(|(_, words)| words).collect();
            println!("{mode}: {}", words.join(", "));
        }
        reached
    }
}

#[test]
fn killed_and_failed_at_every_point() {
    if !ready() {
        return;
    }
    begin();
    let image = guest("arch");
    let references: Vec<_> = modes().into_iter().map(|mode| Reference::make(&image, mode)).collect();
    let jobs: Vec<_> = references
        .iter()
        .flat_map(|reference| Point::ALL.iter().map(move |point| (reference, *point)))
        .collect();
    let (tally, map) = (Tally::default(), Map::default());
    share(
        &jobs,
        &tally,
        || (),
        |(), (reference, point)| {
            let strike = |what| {
                let trial = Trial::fresh(reference);
                strike(&tally, &trial, *point, what, &trial.seal(Digest::Sha256))
            };
            if let Some(killed) = strike("kill") {
                let name = reference.mode.name();
                map.add(&name, *point, &[Some(killed), strike("fail")]);
            }
        },
    );
    let reached = map.print();
    tally.report();
    let never: Vec<_> =
        Point::ALL.iter().map(|point| point.name()).filter(|name| !reached.contains(name)).collect();
    assert!(never.is_empty(), "no run came by {never:?}: what are these points for?");
}

#[test]
fn killed_and_failed_while_it_recovers() {
    if !ready() {
        return;
    }
    begin();
    let image = guest("arch");
    let references: Vec<_> = modes()
        .into_iter()
        .filter(|mode| mode.commit == Commit::Overlay)
        .map(|mode| Reference::make(&image, mode))
        .collect();
    // Where the seal was killed: before anything was written, half way, and when all was.
    let seals = [Point::JournalNamed, Point::ImageWritten, Point::RecordNamed];
    let points = Point::ALL.iter().skip_while(|point| **point != Point::JournalNamed);
    let jobs: Vec<_> = references
        .iter()
        .flat_map(|reference| seals.map(|seal| (reference, seal)))
        .flat_map(|(reference, seal)| points.clone().map(move |point| (reference, seal, *point)))
        .collect();
    let (tally, map) = (Tally::default(), Map::default());
    share(
        &jobs,
        &tally,
        || (),
        |(), (reference, seal, point)| {
            let strike = |what| {
                let trial = Trial::fresh(reference);
                assert_eq!(Run::whole(&trial.seal(Digest::Sha256), Some((*seal, "kill"))), End::Killed);
                strike(&tally, &trial, *point, what, &trial.recover())
            };
            if let Some(killed) = strike("kill") {
                let name = format!("{}, killed at {}, recover", reference.mode.name(), seal.name());
                map.add(&name, *point, &[Some(killed), strike("fail")]);
            }
        },
    );
    assert!(!map.print().is_empty(), "recover came by no point");
    assert!(tally.count(State::Recovered) > 0, "no recover was finished by another");
    tally.report();
}
