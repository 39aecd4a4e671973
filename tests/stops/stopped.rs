//! A run of guestseal that stops itself at a named place, and can be looked at there.

use std::fs;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use crate::common::{GUESTSEAL, command};

/// What any one run may take.
const LIMIT: Duration = Duration::from_secs(120);

/// A run, which is killed when the test fails or takes too long.
#[derive(Debug)]
pub(crate) struct Run {
    child: Child,
    watchdog: Sender<()>,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// Starts guestseal with these words, then the paths.
    pub(crate) fn start(point: Option<&str>, words: &str, paths: &[&Path]) -> Self {
        // Whoever started the tests may have them ignore signals, which guestseal would keep to.
        let mut run = command("env");
        run.args(["--default-signal=INT,TERM,HUP", GUESTSEAL]).args(words.split_whitespace()).args(paths);
        Self::spawn(run, point)
    }

    /// Starts a command that becomes guestseal.
    pub(crate) fn spawn(mut run: Command, point: Option<&str>) -> Self {
        if let Some(point) = point {
            run.env("GUESTSEAL_FAULT", format!("{point}=stop"));
        }
        let child = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = pid_of(&child);
        let (watchdog, done) = channel();
        std::thread::spawn(move || {
            if done.recv_timeout(LIMIT) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        Self { child, watchdog }
    }

    /// The same, and waits until it has stopped at the place.
    #[track_caller]
    pub(crate) fn stop_at(point: &str, words: &str, paths: &[&Path]) -> Self {
        Self::start(Some(point), words, paths).stopped(point)
    }

    /// Waits until it has stopped at the place.
    #[track_caller]
    pub(crate) fn stopped(mut self, point: &str) -> Self {
        let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        match waitid(Id::Pid(self.pid()), flags).unwrap() {
            WaitStatus::Stopped(..) => self,
            other => {
                let said = self.words();
                panic!("it never came to {point}: {other:?} {said:?}");
            }
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        pid_of(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Sends a signal to a stopped run and lets it go on.
    #[track_caller]
    pub(crate) fn go_on_with(self, signal: Signal) -> Ended {
        self.signal(signal);
        self.signal(Signal::SIGCONT);
        self.end()
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ended {
        let (stdout, stderr) = self.words();
        let status = self.child.wait().unwrap();
        let _ = self.watchdog.send(());
        Ended { status, stdout, stderr }
    }

    fn words(&mut self) -> (String, String) {
        let (mut stdout, mut stderr) = (String::new(), String::new());
        self.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (stdout, stderr)
    }

    /// Waits until it has a child of which the command line has this word.
    #[track_caller]
    pub(crate) fn child_with(&mut self, word: &str) -> Option<Pid> {
        let deadline = Instant::now() + LIMIT;
        while self.child.try_wait().unwrap().is_none() {
            for child in children(self.pid()) {
                let line = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
                if line.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes()) {
                    return Some(child);
                }
            }
            assert!(Instant::now() < deadline, "no child with {word}");
            std::thread::yield_now();
        }
        None
    }

    /// Waits until every signal that was sent has been seen.
    pub(crate) fn has_heard(&self) {
        wait_until(|| {
            let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
            status
                .lines()
                .filter(|line| line.starts_with("SigPnd:") || line.starts_with("ShdPnd:"))
                .all(|line| line.ends_with(&"0".repeat(16)))
        });
    }
}

impl Ended {
    /// Fails unless it ended by this signal and its errors hold each of these.
    #[track_caller]
    pub(crate) fn by(self, signal: Signal, needles: &[&str]) -> Self {
        assert_eq!(self.status.signal(), Some(signal as i32), "{self:#?}");
        self.says(needles)
    }

    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Fails unless it ended with this code and its errors hold each of these.
    #[track_caller]
    pub(crate) fn with(self, code: i32, needles: &[&str]) -> Self {
        assert_eq!(self.status.code(), Some(code), "{self:#?}");
        self.says(needles)
    }

    #[track_caller]
    fn says(self, needles: &[&str]) -> Self {
        for needle in needles {
            assert!(self.stderr.contains(needle), "wanted {needle:?} in the errors\n{self:#?}");
        }
        assert!(!self.stderr.contains("panicked"), "{self:#?}");
        self
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

/// Every process that a thread of this one started.
pub(crate) fn children(of: Pid) -> Vec<Pid> {
    let threads = fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect::<Vec<_>>()
        })
        .collect()
}

/// Waits for what has no event.
#[track_caller]
pub(crate) fn wait_until(mut there: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !there() {
        assert!(Instant::now() < deadline, "it never came");
        std::thread::yield_now();
    }
}
