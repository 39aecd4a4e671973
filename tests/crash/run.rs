//! A run of guestseal that is killed, or whose children are. It leads a session of its own, so that whatever it starts
//! is known as its own even when its parent is dead.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek};
use std::time::{Duration, Instant};

use guestseal::fault::{Point, VARIABLE};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::common::{GUESTSEAL, command};
use crate::process::Process;

/// What a run may take on a slow machine.
const LIMIT: Duration = Duration::from_secs(240);

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Killed,
    Exit { code: i32, said: String },
}

impl End {
    pub(crate) fn is_good(&self) -> bool {
        matches!(self, Self::Exit { code: 0, .. })
    }
}

/// A run that has started.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) pid: Pid,
    said: File,
    ended: bool,
}

impl Run {
    /// Starts guestseal with these words; at the point, if any, it does what is said: kill, stop or fail.
    pub(crate) fn start(words: &[OsString], fault: Option<(Point, &str)>) -> Self {
        Self::start_at(words, fault.map(|(point, what)| format!("{}={what}", point.name())))
    }

    #[expect(clippy::zombie_processes, reason = "waitpid(2) waits for it, which tells of its stopping too")]
    /// The same, with the fault as guestseal reads it.
    pub(crate) fn start_at(words: &[OsString], fault: Option<String>) -> Self {
        let said = tempfile::tempfile().unwrap();
        // The new program stays this process's child: setsid(1) becomes it when it leads no process group yet.
        let mut run = command("setsid");
        run.arg(GUESTSEAL).args(words).stdout(std::process::Stdio::null()).stderr(said.try_clone().unwrap());
        if let Some(fault) = fault {
            run.env(VARIABLE, fault);
        }
        let child = run.spawn().unwrap();
        Self { pid: Pid::from_raw(child.id().cast_signed()), said, ended: false }
    }

    /// Runs it to its end.
    pub(crate) fn whole(words: &[OsString], fault: Option<(Point, &str)>) -> End {
        Self::start(words, fault).end()
    }

    /// Waits until it stops (true) or ends.
    pub(crate) fn stops(&mut self) -> Result<(), End> {
        let began = Instant::now();
        loop {
            match waitpid(self.pid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)).unwrap() {
                WaitStatus::Stopped(..) => return Ok(()),
                WaitStatus::Exited(_, code) => return Err(self.ended(Some(code))),
                WaitStatus::Signaled(_, Signal::SIGKILL, _) => return Err(self.ended(None)),
                WaitStatus::StillAlive => pause(Duration::from_millis(1)),
                other => panic!("{other:?}: {}", self.words()),
            }
            assert!(
                began.elapsed() < LIMIT,
                "neither stopped nor ended: {:?}",
                Process::of(self.pid.as_raw())
            );
        }
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> End {
        match self.stops() {
            Ok(()) => panic!("stopped instead of ending"),
            Err(end) => end,
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid, signal).unwrap();
    }

    fn ended(&mut self, code: Option<i32>) -> End {
        self.ended = true;
        code.map_or(End::Killed, |code| End::Exit { code, said: self.words() })
    }

    fn words(&mut self) -> String {
        let mut said = String::new();
        self.said.rewind().unwrap();
        self.said.read_to_string(&mut said).unwrap();
        said
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // After a failure only: nothing may go on behind a test that gave up.
        if !self.ended {
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, None);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a random moment, or that something is gone, has no event")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// A number below `limit`, by chance.
pub(crate) fn chance(limit: u64) -> u64 {
    getrandom::u64().unwrap() % limit.max(1)
}

/// Some part of the time, by chance.
pub(crate) fn moment(whole: Duration) -> Duration {
    Duration::from_micros(chance(whole.as_micros().try_into().unwrap()))
}
