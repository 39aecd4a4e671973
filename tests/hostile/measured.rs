//! Runs of the program with a limit of time and the peak of memory that it and its children took.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common::{GUESTSEAL, Ran, command, finish};

/// Starts the rest of its arguments and writes the peak of their memory, in KiB, to the file that the first one names.
const WRAPPER: &str = "import os, sys
pid = os.spawnv(os.P_NOWAIT, '/usr/bin/timeout', ['timeout', '--kill-after=5'] + sys.argv[2:])
status, usage = os.wait4(pid, 0)[1:]
open(sys.argv[1], 'w').write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status))";

/// How a run ended and what it took.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) ran: Ran,
    pub(crate) took: Duration,
    pub(crate) mib: u64,
}

/// Runs guestseal; longer than this many seconds is a failure.
#[track_caller]
pub(crate) fn guestseal(words: &[OsString], image: &Path, seconds: u64, scratch: &Path) -> Measured {
    let peak: PathBuf = scratch.join("peak");
    let mut python = command("python3");
    python.args(["-c", WRAPPER]).arg(&peak).arg(seconds.to_string()).arg(GUESTSEAL).args(words).arg(image);
    let start = Instant::now();
    let ran = finish(python);
    let took = start.elapsed();
    let kib: u64 = std::fs::read_to_string(&peak).unwrap().parse().unwrap();
    std::fs::remove_file(peak).unwrap();
    Measured { ran, took, mib: kib / 1024 }
}
