//! Processes as /proc shows them.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::run::pause;

/// A process that has not ended.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    /// Its program's name, cut to 15 letters.
    pub(crate) name: String,
    parent: i32,
    session: i32,
    /// When it began, in the kernel's ticks: a number that is used again has another one.
    pub(crate) began: u64,
    stopped: bool,
}

impl Process {
    fn read(folder: &std::path::Path) -> Option<Self> {
        let pid = folder.file_name()?.to_str()?.parse().ok()?;
        let stat = fs::read_to_string(folder.join("stat")).ok()?;
        // The name may hold anything, so what counts begins behind its last bracket (proc_pid_stat(5)).
        let (start, rest) = stat.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let ended = ["Z", "X"].contains(&fields[0]);
        let process = Self {
            pid,
            name: start.split_once('(')?.1.to_owned(),
            parent: fields[1].parse().ok()?,
            session: fields[3].parse().ok()?,
            began: fields[19].parse().ok()?,
            stopped: fields[0] == "T",
        };
        (!ended).then_some(process)
    }

    /// All there are.
    pub(crate) fn all() -> Vec<Self> {
        let folders = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        folders.filter_map(|folder| Self::read(&folder)).collect()
    }

    /// What is below `pid`, and what is in its session when it leads one.
    pub(crate) fn of(pid: i32) -> Vec<Self> {
        let all = Self::all();
        let mut found: Vec<i32> =
            all.iter().filter(|one| one.session == pid && one.pid != pid).map(|one| one.pid).collect();
        let mut parents = vec![pid];
        while let Some(parent) = parents.pop() {
            let children = all.iter().filter(|one| one.parent == parent).map(|one| one.pid);
            parents.extend(children.clone());
            found.extend(children);
        }
        all.into_iter().filter(|one| found.contains(&one.pid)).collect()
    }

    /// Its own view of what is mounted.
    pub(crate) fn mounts(&self) -> String {
        let path = PathBuf::from(format!("/proc/{}/mountinfo", self.pid));
        // It may have ended meanwhile.
        fs::read(path).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default()
    }

    /// Kills it; false when it was ending by itself. It is stopped first, since a process that has ended takes a signal
    /// too until its parent has looked.
    pub(crate) fn kill(&self) -> bool {
        let pid = Pid::from_raw(self.pid);
        let began = Instant::now();
        if kill(pid, Signal::SIGSTOP).is_err() {
            return false;
        }
        loop {
            match Self::read(&PathBuf::from(format!("/proc/{pid}"))) {
                Some(now) if now.began == self.began && now.stopped => break,
                Some(now) if now.began == self.began => pause(Duration::from_millis(1)),
                _ => return false,
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{self:?} neither stops nor ends");
        }
        kill(pid, Signal::SIGKILL).is_ok()
    }
}
