//! guestseal is killed at each of its fault points, and fails there; and the same while it recovers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use guestseal::fault::Point;

use crate::check::{State, Trial};
use crate::common::ready;
use crate::guest;
use crate::mode::{Commit, Digest, LAST, Mode, Part, Reference, WHOLE, own, references};
use crate::run::{End, Run};
use crate::tally::{Tally, share};
use crate::traces::begin;

/// Each way of writing the result, and the points at which it is a way of its own: what a kill before leaves is what it
/// leaves in the first.
const MODES: [Part; 6] = [
    (Mode::new("qcow2", "fuse", Commit::Overlay), WHOLE),
    (Mode::new("qcow2", "fuse", Commit::Overlay).with_snapshots(), Point::OverlayNamed..=LAST),
    (Mode::new("raw", "fuse", Commit::Overlay), Point::OverlayNamed..=LAST),
    (Mode::new("qcow2", "fuse", Commit::Output), Point::Detached..=LAST),
    (Mode::new("qcow2", "fuse", Commit::InPlace), Point::Unmounted..=LAST),
    (Mode::new("raw", "loop", Commit::InPlace), WHOLE),
];

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
    fn add(&self, mode: &str, point: Point, states: &[State]) {
        let place = Point::ALL.iter().position(|other| *other == point).unwrap();
        let states: Vec<String> = states.iter().map(|state| format!("{state:?}")).collect();
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

/// Runs in each mode come by each of the points that are its own, which is armed with each of `faults`. Returns the
/// points that any of them came by.
pub(crate) fn at_each(points: &[Point], modes: &[Part], faults: &[&str]) -> BTreeSet<&'static str> {
    begin();
    let image = guest("arch");
    let references = references(&image, modes);
    let jobs = own(&references, points);
    let (tally, map) = (Tally::default(), Map::default());
    share(
        &jobs,
        &tally,
        || (),
        |(), (reference, point)| {
            let mut states = Vec::new();
            for fault in faults {
                let trial = Trial::fresh(reference);
                let Some(state) = strike(&tally, &trial, *point, fault, &trial.seal(Digest::Sha256)) else {
                    return;
                };
                states.push(state);
            }
            map.add(&reference.mode.name(), *point, &states);
        },
    );
    let reached = map.print();
    tally.report();
    reached
}

#[test]
fn killed_and_failed_at_every_point() {
    if !ready() {
        return;
    }
    let reached = at_each(Point::ALL, &MODES, &["kill", "fail"]);
    // The copy of a running guest is for the tests with libvirt.
    let here = Point::ALL.iter().filter(|point| **point != Point::CopyBegun);
    let never: Vec<_> = here.map(|point| point.name()).filter(|name| !reached.contains(name)).collect();
    assert!(never.is_empty(), "no run came by {never:?}: what are these points for?");
}

#[test]
fn killed_and_failed_while_it_recovers() {
    if !ready() {
        return;
    }
    begin();
    let image = guest("arch");
    let references: Vec<_> = MODES[..3].iter().map(|(mode, _)| Reference::make(&image, *mode)).collect();
    // Where the seal was killed: before anything was written, half way, and when all was.
    let seals = [Point::JournalNamed, Point::ImageWritten, Point::RecordNamed];
    let points = Point::ALL.iter().skip_while(|point| **point != Point::JournalNamed);
    // What was written when makes no difference between the modes, and an error takes the same way out of each.
    let begun = references.iter().enumerate().flat_map(|(index, reference)| {
        let seals = if index == 0 { &seals[..] } else { &seals[..1] };
        seals
            .iter()
            .map(move |seal| (reference, *seal, if index == 0 { &["kill", "fail"][..] } else { &["kill"] }))
    });
    let jobs: Vec<_> = begun
        .flat_map(|(reference, seal, faults)| {
            points.clone().map(move |point| (reference, seal, faults, *point))
        })
        .collect();
    let (tally, map) = (Tally::default(), Map::default());
    share(
        &jobs,
        &tally,
        || (),
        |(), (reference, seal, faults, point)| {
            let mut states = Vec::new();
            for fault in *faults {
                let trial = Trial::fresh(reference);
                assert_eq!(Run::whole(&trial.seal(Digest::Sha256), Some((*seal, "kill"))), End::Killed);
                let Some(state) = strike(&tally, &trial, *point, fault, &trial.recover()) else { return };
                states.push(state);
            }
            let name = format!("{}, killed at {}, recover", reference.mode.name(), seal.name());
            map.add(&name, *point, &states);
        },
    );
    assert!(!map.print().is_empty(), "recover came by no point");
    assert!(tally.count(State::Recovered) > 0, "no recover was finished by another");
    tally.report();
}
