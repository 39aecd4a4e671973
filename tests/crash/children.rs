//! The children of guestseal are killed while it stands still at a point, and qemu-img while it writes the result. The
//! run must notice, say so, and undo.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use guestseal::fault::Point;
use nix::sys::signal::Signal;

use crate::check::Trial;
use crate::common::ready;
use crate::guest;
use crate::mode::{Commit, Digest, LAST, Mode, Part, Reference, WHOLE, own, references};
use crate::process::Process;
use crate::run::{End, Run, moment, pause};
use crate::tally::{Tally, share};
use crate::traces::begin;

/// Modes, and the points at which their children are others than those of the first, or at work on something else.
const MODES: [Part; 3] = [
    (Mode::new("qcow2", "fuse", Commit::Overlay), WHOLE),
    (Mode::new("qcow2", "fuse", Commit::Output), Point::Detached..=LAST),
    (Mode::new("raw", "loop", Commit::InPlace), Point::Locked..=Point::Proven),
];

/// Lets the run go on to its end, which must be an error with a word on the child, and looks at what it left.
fn ends_well(tally: &Tally, trial: &Trial<'_>, run: Run, victim: &Process) {
    let session = run.pid.as_raw();
    let end = run.end();
    let fault = format!("SIGKILL of {} at each point", victim.name);
    tally.trial(&fault, (trial, session), || {
        let End::Exit { code, said } = &end else { panic!("guestseal was killed too") };
        assert!([1, 4].contains(code) && said.contains("error: "), "{code} after {victim:?}: {said}");
        assert!(said.contains(&victim.name), "no word on {victim:?}: {said}");
        let state = trial.judge(&end);
        trial.seals_again(state);
        state
    });
}

/// Stops a run at a point; kills the child of the first kind that was not seen there yet; false when there is none.
fn kill_another(tally: &Tally, reference: &Reference, point: Point, done: &mut BTreeSet<String>) -> bool {
    let trial = Trial::fresh(reference);
    let mut run = Run::start(&trial.seal(Digest::None), Some((point, "stop")));
    if let Err(end) = run.stops() {
        assert!(end.is_good(), "{end:?}");
        return false;
    }
    let children = Process::of(run.pid.as_raw());
    let child = children.into_iter().find(|child| !done.contains(&child.name));
    done.extend(child.iter().map(|child| child.name.clone()));
    // The worker goes on while the run stands still, and may come to its end by itself.
    let killed = child.as_ref().is_some_and(Process::kill);
    run.signal(Signal::SIGCONT);
    if let Some(victim) = child.as_ref().filter(|_| killed) {
        ends_well(tally, &trial, run, victim);
    } else {
        let end = run.end();
        assert!(end.is_good(), "stopped at {} and continued, nothing else: {end:?}", point.name());
    }
    child.is_some()
}

/// Each kind of child is killed while the run stands at each of these points; the server must have been among them.
pub(crate) fn at_each(points: &[Point], modes: &[Part], server: &str) {
    begin();
    let image = guest("arch");
    let references = references(&image, modes);
    let jobs = own(&references, points);
    let (tally, kinds) = (Tally::default(), Mutex::new(BTreeSet::new()));
    share(
        &jobs,
        &tally,
        || (),
        |(), (reference, point)| {
            let mut done = BTreeSet::new();
            while kill_another(&tally, reference, *point, &mut done) {}
            kinds.lock().unwrap().extend(done);
        },
    );
    tally.report();
    let kinds = kinds.into_inner().unwrap();
    println!("children that were killed: {kinds:?}");
    assert!(kinds.contains(server), "{kinds:?}");
}

#[test]
fn children_killed_at_every_point() {
    if ready() {
        // The kernel keeps 15 letters of a name.
        at_each(Point::ALL, &MODES, "qemu-storage-da");
    }
}

/// Waits for qemu-img below the run and kills it some time later. None when it was over before.
fn kill_the_writer(run: &Run, after: Duration) -> Option<Process> {
    let limit = Instant::now() + Duration::from_secs(60);
    loop {
        let below = Process::of(run.pid.as_raw());
        if let Some(writer) = below.into_iter().find(|child| child.name == "qemu-img") {
            pause(after);
            return writer.kill().then_some(writer);
        }
        if !Process::all().iter().any(|one| one.pid == run.pid.as_raw()) {
            return None;
        }
        assert!(Instant::now() < limit, "it neither writes nor ends");
    }
}

#[test]
fn qemu_img_killed_while_it_writes() {
    if !ready() {
        return;
    }
    begin();
    let image = guest("debian12");
    let tally = Tally::default();
    for (part, point) in [(0, Point::JournalNamed), (1, Point::Detached)] {
        let mode = MODES[part].0;
        let reference = Reference::make(&image, mode);
        let mut length = writing(&reference, point);
        println!("{}: qemu-img takes {length:?}", mode.name());
        let mut caught = 0;
        for _ in 0..12 {
            let trial = Trial::fresh(&reference);
            let mut run = Run::start(&trial.seal(Digest::None), Some((point, "stop")));
            run.stops().unwrap();
            run.signal(Signal::SIGCONT);
            let Some(writer) = kill_the_writer(&run, moment(length)) else {
                // The host's disk was busy when the length was measured.
                length /= 2;
                continue;
            };
            caught += 1;
            ends_well(&tally, &trial, run, &writer);
            if caught == 2 {
                break;
            }
        }
        assert!(caught >= 2, "qemu-img was caught only {caught} times");
    }
    tally.report();
}

/// How long qemu-img lives after the point.
fn writing(reference: &Reference, point: Point) -> Duration {
    let trial = Trial::fresh(reference);
    let mut run = Run::start(&trial.seal(Digest::None), Some((point, "stop")));
    run.stops().unwrap();
    run.signal(Signal::SIGCONT);
    let writers =
        || Process::of(run.pid.as_raw()).into_iter().filter(|child| child.name == "qemu-img").count();
    while writers() == 0 {}
    let began = Instant::now();
    while writers() > 0 {}
    let length = began.elapsed();
    assert!(run.end().is_good());
    length
}
