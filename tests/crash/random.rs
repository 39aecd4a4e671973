//! guestseal is killed at moments that nobody chose, over the whole length of a run; every tenth time one of its
//! children is.

use std::time::Duration;

use crate::check::{State, Trial};
use crate::common::ready;
use crate::mode::{Commit, Digest, Mode, Reference};
use crate::process::Process;
use crate::run::{Run, chance, moment, pause};
use crate::tally::{Tally, share};
use crate::traces::begin;
use crate::{guest, variable};

use nix::sys::signal::Signal;

/// A kill at a random moment of a run that would take this long.
fn strike(tally: &Tally, trial: &mut Trial<'_>, number: usize, lengths: &[(Digest, Duration)]) {
    let (digest, length) = lengths[number % lengths.len()];
    let run = Run::start(&trial.seal(digest), None);
    let session = run.pid.as_raw();
    pause(moment(length));
    let children = if number % 10 == 9 { Process::of(session) } else { Vec::new() };
    let victim = usize::try_from(chance(children.len() as u64)).ok().and_then(|index| children.get(index));
    let fault = match victim {
        Some(child) => {
            // It may just have ended by itself: that is a trial too.
            child.kill();
            "SIGKILL of a child at a random moment"
        }
        None => {
            run.signal(Signal::SIGKILL);
            "SIGKILL at a random moment"
        }
    };
    let end = run.end();
    let state = tally.trial(fault, (trial, session), || {
        let state = trial.judge(&end);
        trial.seals_again(state);
        state
    });
    // What was not changed is good for the next one; what is written in place is opened half edited by the next.
    let goes_on = match state {
        Some(State::Untouched) => trial.is_alone(),
        Some(State::Open) => !number.is_multiple_of(20),
        _ => false,
    };
    if !goes_on {
        *trial = Trial::fresh(trial.reference);
    }
}

/// Kills so many runs, unless `GUESTSEAL_KILLS` says another number.
pub(crate) fn killed(variant: &str, mode: Mode, usual: usize) {
    if !ready() {
        return;
    }
    begin();
    let reference = Reference::make(&guest(variant), mode);
    let lengths = [Digest::None, Digest::Sha256].map(|digest| (digest, reference.duration(digest)));
    println!("{}: a run of {variant} takes {lengths:?}", mode.name());
    let tally = Tally::default();
    let count = variable("GUESTSEAL_KILLS").map_or(usual, |text| text.parse().unwrap());
    let jobs: Vec<usize> = (0..count).collect();
    share(
        &jobs,
        &tally,
        || Trial::fresh(&reference),
        |trial, number| strike(&tally, trial, *number, &lengths),
    );
    tally.report();
}

#[test]
fn killed_over_an_overlay() {
    killed("debian12", Mode::new("qcow2", "fuse", Commit::Overlay), 16);
}

#[test]
fn killed_over_an_overlay_of_a_raw_image() {
    killed("debian12", Mode::new("raw", "fuse", Commit::Overlay), 4);
}

#[test]
fn killed_while_it_writes_a_new_file() {
    killed("debian12", Mode::new("qcow2", "fuse", Commit::Output), 4);
}

#[test]
fn killed_while_it_writes_in_place() {
    killed("debian12", Mode::new("raw", "loop", Commit::InPlace), 6);
}
