//! guestseal is killed at moments that nobody chose, over the whole length of a run; every tenth time one of its
//! children is.

use std::time::Duration;

use crate::check::{State, Trial};
use crate::mode::{Commit, Digest, Mode, Reference};
use crate::process::Process;
use crate::run::{Run, chance, moment, pause};
use crate::tally::{Tally, share};
use crate::traces::begin;
use crate::{by_nbd, guest, ready, variable};

use nix::sys::signal::Signal;

/// So many kills of one mode, unless `GUESTSEAL_KILLS` says another number.
fn kills(usual: usize) -> usize {
    variable("GUESTSEAL_KILLS").map_or(usual, |text| text.parse().unwrap())
}

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
        Some(State::Open) => number % 20 != 0,
        _ => false,
    };
    if !goes_on {
        *trial = Trial::fresh(trial.reference);
    }
}

fn killed(variant: &str, mode: Mode, count: usize) {
    if !ready() {
        return;
    }
    begin();
    let reference = Reference::make(&guest(variant), mode);
    let lengths = [Digest::None, Digest::Sha256].map(|digest| (digest, reference.duration(digest)));
    println!("{}: a run of {variant} takes {lengths:?}", mode.name());
    let tally = Tally::default();
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
fn killed_at_random_moments() {
    let (way, usual) = if by_nbd() { ("nbd", 40) } else { ("fuse", 200) };
    killed("debian12", Mode::new("qcow2", way, Commit::Overlay), kills(usual));
}

#[test]
fn killed_at_random_moments_over_a_raw_image() {
    let way = if by_nbd() { "nbd" } else { "fuse" };
    killed("debian12", Mode::new("raw", way, Commit::Overlay), kills(20));
}

#[test]
fn killed_at_random_moments_while_it_writes_in_place() {
    killed("debian12", Mode::new("raw", "loop", Commit::InPlace), kills(40));
}

#[test]
fn killed_at_random_moments_while_it_writes_a_new_file() {
    let way = if by_nbd() { "nbd" } else { "fuse" };
    killed("debian12", Mode::new("qcow2", way, Commit::Output), kills(20));
}
