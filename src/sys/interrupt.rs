//! The signals that ask a run to end. The first one of a kind is caught: the run stops at its next step, undoes what it
//! did and reports. A second one of the same kind kills at once, which is safe at any moment.
//!
//! A signal is noticed between steps ([`check`]) and while waiting ([`until_readable`]). What cannot be undone any more
//! is finished first: see [`hold`].

#![forbid(unsafe_code)]

use std::fs;
use std::io::{self, PipeReader};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use nix::libc::c_int;
use nix::poll::PollFlags;
use nix::sys::signal::Signal;
use signal_hook::{flag, low_level};

use super::wait::{self, first_readable, ready_within};
use crate::error::{Context, Error, ErrorKind, Result};

/// The signals that stop a run.
const SIGNALS: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Which of them came.
static CAUGHT: [AtomicBool; SIGNALS.len()] = [const { AtomicBool::new(false) }; SIGNALS.len()];
/// How many guards of [`hold`] there are.
static HOLDS: AtomicUsize = AtomicUsize::new(0);
/// Whether the user knows that a signal has to wait.
static TOLD: AtomicBool = AtomicBool::new(false);
static WATCH: OnceLock<Watch> = OnceLock::new();

struct Watch {
    /// Gets a byte with every signal, of which none is ever taken out.
    pipe: PipeReader,
    tell: fn(Signal),
}

/// Catches the signals from now on; once, at the start of the program. One that was ignored stays so, as nohup(1)
/// wants it. `tell` is called once when a signal came that has to wait.
///
/// # Errors
/// When the kernel refuses.
pub fn watch(tell: fn(Signal)) -> Result<()> {
    let failed = || "cannot watch for signals";
    let ignored = ignored_signals();
    let (pipe, writer) = io::pipe().context(failed)?;
    if WATCH.set(Watch { pipe, tell }).is_err() {
        return Ok(());
    }
    for (signal, caught) in SIGNALS.iter().zip(&CAUGHT) {
        let number = *signal as c_int;
        if ignored & 1 << (number - 1) != 0 {
            continue;
        }
        // In this order: the second signal finds what the first one left.
        flag::register_conditional_default(number, caught).context(failed)?;
        flag::register(number, caught).context(failed)?;
        let end = OwnedFd::from(writer.try_clone().context(failed)?);
        low_level::pipe::register(number, end).context(failed)?;
    }
    Ok(())
}

/// The signals that whoever started us made us ignore, as a mask (proc(5), `SigIgn`).
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// The signal that came, if one did.
pub fn caught() -> Option<Signal> {
    SIGNALS
        .into_iter()
        .zip(&CAUGHT)
        .find(|(_, caught)| caught.load(Ordering::SeqCst))
        .map(|(signal, _)| signal)
}

/// A descriptor that polls readable once a signal came; never read from it. None while signals have to wait, and when
/// nobody watches for them.
pub fn fd() -> Option<BorrowedFd<'static>> {
    if is_held() { None } else { WATCH.get().map(|watch| watch.pipe.as_fd()) }
}

/// Goes on unless a signal came.
///
/// # Errors
/// [`ErrorKind::Stopped`] when one did.
pub fn check() -> Result<()> {
    check_with(|signal| format!("the run was stopped by {signal}"))
}

/// The same, and says what was not begun any more.
///
/// # Errors
/// As [`check`].
pub fn check_before(step: &str) -> Result<()> {
    check_with(|signal| format!("the run was stopped by {signal} before {step}"))
}

fn check_with(sentence: impl FnOnce(Signal) -> String) -> Result<()> {
    match caught() {
        None => Ok(()),
        Some(signal) if is_held() => {
            tell_once(signal);
            Ok(())
        }
        Some(signal) => Err(Error::new(ErrorKind::Stopped, sentence(signal))),
    }
}

/// Waits until `fd` polls readable, in error or hung up.
///
/// # Errors
/// [`ErrorKind::Stopped`] when a signal came first, unless signals have to wait; and when the kernel refuses to wait.
pub fn until_readable(fd: BorrowedFd<'_>) -> Result<()> {
    let failed = || "cannot wait for a child";
    if let Some(watch) = WATCH.get()
        && first_readable([watch.pipe.as_fd(), fd]).context(failed)? == 0
    {
        check()?;
        first_readable([fd]).context(failed)?;
    } else {
        first_readable([fd]).context(failed)?;
    }
    Ok(())
}

/// The same for as long as there is `patience`; false when that is over.
///
/// # Errors
/// As [`until_readable`].
pub fn readable_within(fd: BorrowedFd<'_>, patience: Duration) -> Result<bool> {
    let failed = || "cannot wait for a child";
    let Some(signals) = self::fd() else { return wait::readable_within(fd, patience).context(failed) };
    let watched = [(signals, PollFlags::POLLIN), (fd, PollFlags::POLLIN)];
    let ready = ready_within(&watched, patience).context(failed)?;
    check()?;
    Ok(ready[1])
}

/// While this lives, signals have to wait: what is being done cannot be undone any more and is better finished.
#[derive(Debug)]
#[must_use = "signals wait for as long as this lives"]
pub struct Hold(());

/// Makes signals wait.
pub fn hold() -> Hold {
    HOLDS.fetch_add(1, Ordering::SeqCst);
    Hold(())
}

impl Drop for Hold {
    fn drop(&mut self) {
        HOLDS.fetch_sub(1, Ordering::SeqCst);
    }
}

fn is_held() -> bool {
    HOLDS.load(Ordering::SeqCst) > 0
}

fn tell_once(signal: Signal) {
    if let Some(watch) = WATCH.get()
        && !TOLD.swap(true, Ordering::SeqCst)
    {
        (watch.tell)(signal);
    }
}

/// Ends the program by the signal that came, so that whoever waits for it sees that. Returns when none came, and in the
/// first process of a container, which no signal of its own can end: then the code with which shells stand for it.
pub fn end() -> Option<u8> {
    let signal = caught()? as c_int;
    if std::process::id() != 1 {
        // It returns for signals that it does not know, and it knows all of ours.
        let _ = low_level::emulate_default_handler(signal);
    }
    u8::try_from(128 + signal).ok()
}
