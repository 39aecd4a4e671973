//! Signals to this process itself: one test, for a process has its signals once.

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use guestseal::ErrorKind;
use guestseal::sys::child::Spawn;
use guestseal::sys::interrupt::{caught, check, check_before, end, fd, hold, watch};

static HEARD: AtomicUsize = AtomicUsize::new(0);

#[test]
fn a_signal_stops_what_can_be_undone_and_waits_for_what_cannot() {
    check().unwrap();
    assert!(fd().is_none() && end().is_none());
    let heard = |_| {
        HEARD.fetch_add(1, Ordering::SeqCst);
    };
    watch(heard).unwrap();
    assert!(fd().is_some() && caught().is_none());
    let folder = tempfile::tempdir().unwrap();
    let script = "sleep 1000 & echo $! >pid; kill -HUP $PPID; sleep 1000";
    let sleeper = Spawn::new("/bin/sh").args(["-c", script]).folder(folder.path());
    let started = Instant::now();
    let error = sleeper.output(100).unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(100));
    assert_eq!(error.kind(), ErrorKind::Stopped, "{error:?}");
    assert!(error.chain().contains("SIGHUP") && error.chain().contains("/bin/sh"), "{error:?}");
    // What the child had started is gone too: a process that has ended has no command line any more.
    let pid = fs::read_to_string(folder.path().join("pid")).unwrap();
    assert_eq!(fs::read_to_string(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default(), "");

    assert_eq!(caught().map(|signal| signal.as_str()), Some("SIGHUP"));
    let held = hold();
    assert!(check().is_ok() && check_before("this").is_ok() && fd().is_none());
    let (exit, bytes) = Spawn::new("/bin/echo").arg("x").output(100).unwrap();
    exit.success().unwrap();
    assert_eq!((bytes.as_slice(), HEARD.load(Ordering::SeqCst)), (&b"x\n"[..], 1));
    drop(held);
    assert!(check_before("this").unwrap_err().chain().ends_with("SIGHUP before this") && fd().is_some());
}
