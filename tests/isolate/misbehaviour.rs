//! Machines that do what they must not.

use std::time::{Duration, Instant};

use guestseal::Error;
use guestseal::vm::Machine;
use guestseal::vm::initramfs::Contents;
use guestseal::vm::trial::{Answer, Ask};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::rig::{kernel, start};

/// Has a machine misbehave; tells what came of it and how long that took.
fn misbehave(patience: Duration, what: impl FnOnce(&mut Machine)) -> Option<(Error, Duration)> {
    let mut machine = start(&kernel()?, &[], Contents::Plain).unwrap();
    what(&mut machine);
    let started = Instant::now();
    let error = machine.hear::<Answer>(patience).unwrap_err();
    let pid = machine.pid();
    drop(machine);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    Some((error, started.elapsed()))
}

fn told(error: &Error) -> String {
    format!("{error:?}")
}

#[test]
fn one_that_never_answers_and_floods_its_console_is_an_error_in_time() {
    let patience = Duration::from_secs(4);
    let ask = |machine: &mut Machine| machine.say(&Ask::FloodConsole, patience).unwrap();
    let Some((error, taken)) = misbehave(patience, ask) else { return };
    assert!(told(&error).contains("does not answer in time"), "{error:?}");
    // What it said is told, and no terminal obeys it.
    assert!(told(&error).contains("\\u{1b}[31mflood") && !told(&error).contains('\x1b'), "{error:?}");
    assert!(taken < patience + Duration::from_secs(6), "{taken:?}");
}

#[test]
fn one_that_says_what_is_no_message_is_an_error() {
    let ask = |machine: &mut Machine| machine.say(&Ask::Flood, Duration::from_secs(5)).unwrap();
    let Some((error, _)) = misbehave(Duration::from_secs(60), ask) else { return };
    assert!(told(&error).contains("is too long"), "{error:?}");
}

#[test]
fn one_that_dies_is_an_error_with_its_last_words() {
    let ask = |machine: &mut Machine| machine.say(&Ask::Die, Duration::from_secs(5)).unwrap();
    let Some((error, _)) = misbehave(Duration::from_secs(60), ask) else { return };
    assert!(told(&error).contains("went away") && told(&error).contains("dies as it was told"), "{error:?}");
    assert!(told(&error).contains("Kernel panic"), "{error:?}");
}

#[test]
fn one_that_is_killed_is_an_error_and_one_that_does_not_end_is_ended() {
    let end =
        |machine: &mut Machine| kill(Pid::from_raw(machine.pid().cast_signed()), Signal::SIGKILL).unwrap();
    let Some((error, taken)) = misbehave(Duration::from_secs(60), end) else { return };
    assert!(told(&error).contains("SIGKILL"), "{error:?}");
    assert!(taken < Duration::from_secs(10), "{taken:?}");
}
