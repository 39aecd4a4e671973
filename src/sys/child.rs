//! A child process that cannot outlive us: tied to our life by the kernel, in its own process group (a Ctrl-C on the
//! terminal is ours to handle), with a clean environment, no stray descriptors, its diagnostics kept in a bounded
//! memory file, and a pidfd to wait on.
//!
//! The tie is the parent-death signal (`PR_SET_PDEATHSIG`), which the kernel sends when the *thread* that spawned
//! ends (prctl(2)): spawn long-lived children from a thread that lives as long as they do, in practice the main
//! one. A child on a leash is tied by a pipe instead, to the process and until it is let go.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{self, ChildStdin, ChildStdout, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, Whence, lseek};

pub use super::exec::User;
use super::exec::{Image, open_pidfd, run_image};
use super::interrupt;
use super::wait::readable_within;
use crate::error::{Context, Error, ErrorKind, Result};

/// Room for a child's stderr, in bytes. What it writes beyond that is refused to it with EPERM.
const STDERR_LIMIT: u64 = 64 << 10;
/// Most of the kept stderr that goes into an error, in bytes.
const STDERR_TAIL: usize = 2 << 10;
/// How long a killed child may take to die before it is left behind, to be reaped when we are gone.
const DROP_PATIENCE: Duration = Duration::from_secs(5);

/// How to start a child. Everything is fixed before anything runs.
#[derive(Debug)]
pub struct Spawn {
    program: PathBuf,
    args: Vec<Vec<u8>>,
    env: Vec<(String, String)>,
    stdin: Stdio,
    stdout: Stdio,
    listen: Vec<OwnedFd>,
    inherited: Vec<OwnedFd>,
    user: Option<User>,
    folder: Option<PathBuf>,
    leashed: bool,
    own_mounts: bool,
    patience: Option<Duration>,
}

impl Spawn {
    /// Will run `program`, an absolute path: `$PATH` is not searched. Standard input and output are `/dev/null`
    /// unless told otherwise; stderr always goes to a memory file of 64 KiB.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let fixed =
            [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("LC_ALL", "C")];
        Self {
            program: program.into(),
            args: Vec::new(),
            env: fixed.map(|(name, value)| (name.into(), value.into())).into(),
            stdin: Stdio::null(),
            stdout: Stdio::null(),
            listen: Vec::new(),
            inherited: Vec::new(),
            user: None,
            folder: None,
            leashed: false,
            own_mounts: false,
            patience: None,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().as_bytes().to_vec());
        self
    }

    /// Adds several arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(self, args: impl IntoIterator<Item = A>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    /// Sets a variable. The child sees these, `PATH` and `LC_ALL=C`, and nothing of our own environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sets the standard input. For `Stdio::piped()` the other end is [`Child::take_stdin`].
    #[must_use]
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.stdin = stdin.into();
        self
    }

    /// Sets the standard output. For `Stdio::piped()` the other end is [`Child::take_stdout`].
    #[must_use]
    pub fn stdout(mut self, stdout: impl Into<Stdio>) -> Self {
        self.stdout = stdout.into();
        self
    }

    /// Hands over a listening socket by socket activation: the first one becomes descriptor 3, the next 4, and
    /// `LISTEN_FDS` and `LISTEN_PID` say so (sd_listen_fds(3)).
    #[must_use]
    pub fn listen_on(mut self, socket: OwnedFd) -> Self {
        self.listen.push(socket);
        self
    }

    /// Hands over an open file: the first one becomes descriptor 3, the next 4, behind those of [`Spawn::listen_on`].
    #[must_use]
    pub fn inherit(mut self, file: impl Into<OwnedFd>) -> Self {
        self.inherited.push(file.into());
        self
    }

    /// Has the child become another user before it starts, without a way back. Needs CAP_SETUID and CAP_SETGID.
    #[must_use]
    pub fn as_user(mut self, user: Option<User>) -> Self {
        self.user = user;
        self
    }

    /// Sets the working directory.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Ties the child to this process, whatever thread spawns it, until [`Child::let_go`]: for a server that must
    /// serve on for a moment when we are killed, and then ends by itself.
    #[must_use]
    pub fn on_a_leash(mut self) -> Self {
        self.leashed = true;
        self
    }

    /// Gives the child a mount namespace of its own, so that it keeps none of our later mounts alive. Needs
    /// CAP_SYS_ADMIN.
    #[must_use]
    pub fn with_own_mounts(mut self) -> Self {
        self.own_mounts = true;
        self
    }

    /// Sets how long [`Spawn::output`] waits for the child's end before it is killed; for ever when unset.
    #[must_use]
    pub fn within(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Starts the child.
    ///
    /// # Errors
    /// When the program cannot be executed, an argument holds a NUL byte, or the system lacks memory, processes or
    /// descriptors.
    pub fn spawn(self) -> Result<Child> {
        let program = self.program.clone();
        self.start().context(|| format!("cannot start {}", program.display()))
    }

    /// Runs the child to its end and returns how that was, with its standard output of at most `limit` bytes. A
    /// signal that stops the run ends the child, and all that it started and did not send away.
    ///
    /// # Errors
    /// As [`Spawn::spawn`] and [`Child::wait`], when it prints more or takes longer than [`Spawn::within`] allows, and
    /// [`ErrorKind::Stopped`]. A bad exit status is for [`Exit::success`] to judge.
    pub fn output(self, limit: u64) -> Result<(Exit, Vec<u8>)> {
        let program = self.program.clone();
        let end = End { started: Instant::now(), patience: self.patience };
        let mut child = self.stdout(Stdio::piped()).spawn()?;
        let Some(mut pipe) = child.take_stdout() else { return Ok((child.wait()?, Vec::new())) };
        let read = read_to_end(&mut pipe, limit, &program, end).and_then(|bytes| {
            end.wait(child.pidfd(), &program)?;
            Ok(bytes)
        });
        match read {
            Ok(bytes) => Ok((child.wait()?, bytes)),
            Err(error) => {
                drop(child);
                wait_for_heirs(&mut pipe);
                Err(match error.kind() {
                    ErrorKind::Stopped => error.within(format!("{} was stopped", program.display())),
                    _ => error,
                })
            }
        }
    }

    fn start(self) -> io::Result<Child> {
        let stderr = bounded_memory_file(STDERR_LIMIT)?;
        let leash = if self.leashed { Some(io::pipe()?) } else { None };
        let leash_end = leash.as_ref().map(|(reader, _)| reader.try_clone()).transpose()?.map(OwnedFd::from);
        let files = (&self.listen[..], &self.inherited[..]);
        let image = Image::new(&self.program, &self.args, &self.env, files, leash_end.as_ref())?;
        let image = image.with_own_mounts(self.own_mounts).with_user(self.user);
        #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
        let mut command = process::Command::new(&self.program);
        command.process_group(0).stdin(self.stdin).stdout(self.stdout).stderr(stderr.try_clone()?);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        run_image(&mut command, image);
        let mut inner = command.spawn()?;
        let pidfd = open_pidfd(inner.id()).inspect_err(|_| {
            // Without a pidfd it cannot be watched: better none than one unwatched.
            let _ = inner.kill();
            let _ = inner.wait();
        })?;
        Ok(Child { pidfd, inner, program: self.program, stderr, leash, reaped: false })
    }
}

/// How a child ended.
#[derive(Debug)]
pub struct Exit {
    /// Exit code or signal.
    pub status: ExitStatus,
    /// The tail of what it wrote to stderr, trimmed, at most 2 KiB.
    pub stderr: String,
    program: PathBuf,
}

impl Exit {
    /// Judges the status and the words of one of qemu's programs: they end with 0 even when they could not write the last
    /// metadata of an image, and only say so.
    ///
    /// # Errors
    /// As [`Exit::success`], and for a line on stderr that is no warning and has none of the `harmless` words.
    pub fn success_without_complaint(self, harmless: &[&str]) -> Result<()> {
        let counts =
            |line: &&str| !line.contains("warning:") && !harmless.iter().any(|words| line.contains(words));
        let complaint = self.stderr.lines().find(counts).map(str::to_owned);
        let program = self.program.display().to_string();
        self.success()?;
        let what = || Error::failed(format!("{program} complained while it closed the image"));
        complaint.map_or(Ok(()), |line| Err(what().caused_by(line)))
    }

    /// Judges the status.
    ///
    /// # Errors
    /// Every exit but 0, with program, status and the tail of stderr.
    pub fn success(self) -> Result<()> {
        if self.status.success() {
            return Ok(());
        }
        let colon = if self.stderr.is_empty() { "" } else { ": " };
        Err(Error::failed(format!(
            "{} ended with {}{colon}{}",
            self.program.display(),
            self.status,
            self.stderr
        )))
    }
}

/// A running child. Dropping it kills it and waits up to 5 seconds for its end.
#[derive(Debug)]
#[must_use = "dropping a child kills it"]
pub struct Child {
    pidfd: OwnedFd,
    inner: process::Child,
    program: PathBuf,
    stderr: File,
    /// A pipe whose reading end the child has too: when we are gone the kernel signals that as readiness, and the
    /// signal for that is SIGKILL (fcntl(2), F_SETSIG).
    leash: Option<(PipeReader, PipeWriter)>,
    reaped: bool,
}

impl Child {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.inner.id()
    }

    /// The program's path.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// A descriptor that polls readable once the child has ended (pidfd_open(2)).
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Our end of a piped stdin, once.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.inner.stdin.take()
    }

    /// Our end of a piped stdout, once.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.inner.stdout.take()
    }

    /// The tail of what it wrote to stderr so far, trimmed, at most 2 KiB.
    pub fn stderr_tail(&self) -> String {
        // The child writes through the same open file description, so its offset says how much there is.
        let end = lseek(&self.stderr, 0, Whence::SeekCur).ok().and_then(|end| usize::try_from(end).ok());
        let mut bytes = vec![0; end.unwrap_or(0).min(STDERR_TAIL)];
        let start = end.unwrap_or(0) - bytes.len();
        match u64::try_from(start)
            .map_err(io::Error::other)
            .and_then(|at| self.stderr.read_exact_at(&mut bytes, at))
        {
            Ok(()) => String::from_utf8_lossy(&bytes).trim().to_owned(),
            Err(error) => format!("(its stderr cannot be read: {error})"),
        }
    }

    /// Sends a signal to a child that has not been reaped.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let what = || format!("cannot send {signal} to {}", self.program.display());
        let pid = i32::try_from(self.pid()).context(what)?;
        kill(Pid::from_raw(pid), signal).context(what)
    }

    /// Lets a child off its leash: from now on it lives on when we are killed. Does nothing for one that is tied by
    /// the parent-death signal.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn let_go(&mut self) -> Result<()> {
        let Some((reader, _writer)) = self.leash.take() else { return Ok(()) };
        // O_ASYNC belongs to the pipe's end and not to a descriptor of it, so clearing it here clears it there.
        let cleared = fcntl(&reader, FcntlArg::F_SETFL(OFlag::empty()));
        cleared.map(drop).context(|| format!("cannot let {} go", self.program.display()))
    }

    /// Waits until it has ended or `patience` is over; true when it has ended.
    ///
    /// # Errors
    /// When the kernel refuses to wait.
    pub fn ends_within(&self, patience: Duration) -> Result<bool> {
        readable_within(self.pidfd(), patience).context(|| format!("cannot watch {}", self.program.display()))
    }

    /// How it ended, if it does before `patience` is over. It is not reaped: [`Child::wait`] tells the same again.
    ///
    /// # Errors
    /// When the kernel refuses to wait.
    pub fn exit_within(&self, patience: Duration) -> Result<Option<Exit>> {
        if !self.ends_within(patience)? {
            return Ok(None);
        }
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let status = match waitid(Id::PIDFd(self.pidfd()), flags) {
            Ok(WaitStatus::Exited(_, code)) => ExitStatus::from_raw(code << 8),
            Ok(WaitStatus::Signaled(_, signal, _)) => ExitStatus::from_raw(signal as i32),
            Ok(_) => return Ok(None),
            Err(errno) => {
                return Err(errno).context(|| format!("cannot wait for {}", self.program.display()));
            }
        };
        Ok(Some(Exit { status, stderr: self.stderr_tail(), program: self.program.clone() }))
    }

    /// Closes its stdin pipe if we still hold it, waits for its end and reaps it.
    ///
    /// # Errors
    /// When the kernel refuses to wait. A bad exit status is for [`Exit::success`] to judge.
    pub fn wait(mut self) -> Result<Exit> {
        let status = self.inner.wait().context(|| format!("cannot wait for {}", self.program.display()))?;
        self.reaped = true;
        Ok(Exit { status, stderr: self.stderr_tail(), program: self.program.clone() })
    }

    /// The same for a child that ought to end by itself: one that has not within `patience` is killed.
    ///
    /// # Errors
    /// As [`Child::wait`], and when it had to be killed.
    pub fn wait_within(mut self, patience: Duration) -> Result<Exit> {
        drop(self.take_stdin());
        if self.ends_within(patience)? {
            return self.wait();
        }
        let (program, seconds) = (self.program.display(), patience.as_secs());
        let text = format!("{program} did not end within {seconds} s and was killed");
        Err(match self.stderr_tail() {
            tail if tail.is_empty() => Error::failed(text),
            tail => Error::failed(text).caused_by(tail),
        })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        // Its whole group: what a script has started may still be at work in the guest. Errors have no reader here. A
        // child that even SIGKILL cannot end (D state) must not hang us.
        if let Ok(group) = i32::try_from(self.pid()) {
            let _ = kill(Pid::from_raw(-group), Signal::SIGKILL);
        }
        if self.ends_within(DROP_PATIENCE).unwrap_or(false) {
            let _ = self.inner.wait();
        }
    }
}

/// When the patience with a child is over.
#[derive(Debug, Clone, Copy)]
struct End {
    started: Instant,
    patience: Option<Duration>,
}

impl End {
    /// Waits until `fd` polls readable, or fails.
    fn wait(self, fd: BorrowedFd<'_>, program: &Path) -> Result<()> {
        let Some(patience) = self.patience else { return interrupt::until_readable(fd) };
        if interrupt::readable_within(fd, patience.saturating_sub(self.started.elapsed()))? {
            return Ok(());
        }
        let (program, seconds) = (program.display(), patience.as_secs());
        Err(Error::failed(format!("{program} did not end within {seconds} s and was killed")))
    }
}

/// All that comes out of a pipe, of which at most `limit` bytes may.
fn read_to_end(pipe: &mut ChildStdout, limit: u64, program: &Path, end: End) -> Result<Vec<u8>> {
    let failed = || format!("cannot read what {} prints", program.display());
    let (mut bytes, mut block) = (Vec::new(), [0; 4096]);
    loop {
        end.wait(pipe.as_fd(), program)?;
        match pipe.read(&mut block).context(failed)? {
            0 => return Ok(bytes),
            length => bytes.extend_from_slice(&block[..length]),
        }
        if u64::try_from(bytes.len()).map_or(true, |length| length > limit) {
            return Err(Error::failed(format!("{} prints more than {limit} bytes", program.display())));
        }
    }
}

/// Waits until everybody who had the pipe from a killed child is gone, and with them what they had open.
pub(super) fn wait_for_heirs(pipe: &mut ChildStdout) {
    let (started, mut block) = (Instant::now(), [0; 4096]);
    while readable_within(pipe.as_fd(), DROP_PATIENCE.saturating_sub(started.elapsed())).unwrap_or(false) {
        if pipe.read(&mut block).unwrap_or(0) == 0 {
            return;
        }
    }
}

/// A memory file that the kernel keeps from growing beyond `limit` bytes (memfd_create(2), F_SEAL_GROW).
fn bounded_memory_file(limit: u64) -> io::Result<File> {
    let file = File::from(memfd_create("stderr", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    file.set_len(limit)?;
    let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

#[cfg(test)]
#[path = "child_tests.rs"]
mod tests;
