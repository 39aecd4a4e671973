//! The host's side of a running machine: messages in time, its console, its end.

#![forbid(unsafe_code)]

use std::io::{self, ErrorKind as IoKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::StartTimes;
use super::console::Console;
use super::kvm::Accelerator;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::sys::child::{Child, Exit};
use crate::sys::interrupt;
use crate::sys::wait::ready_within;
use crate::worker::protocol::{Broken, read_message, write_data, write_message};

/// How long a machine may take to power off when its work is done, with all that qemu then writes to the disks.
const END_PATIENCE: Duration = Duration::from_secs(60);
/// How long qemu may take from closing its sockets to its end.
const LAST_MOMENTS: Duration = Duration::from_secs(5);
/// The most that is heard from one machine, in bytes.
const SPEECH_LIMIT: u64 = 1 << 30;
/// What is read of the console at once.
const PIECE: usize = 16 << 10;

/// A running machine. Dropping it ends it at once, as pulling the plug does.
#[derive(Debug)]
#[must_use = "dropping a machine kills it"]
pub struct Machine {
    child: Child,
    channel: UnixStream,
    /// None when qemu has closed it.
    console_socket: Option<UnixStream>,
    console: Console,
    left: u64,
    accelerator: Accelerator,
    pub(super) times: StartTimes,
    pub(super) thawed: bool,
    pub(super) started: Instant,
    pub(super) disks: Vec<u64>,
}

/// The channel, for the time that one message may take.
#[derive(Debug)]
pub struct Channel<'m> {
    machine: &'m mut Machine,
    until: Instant,
}

impl Machine {
    pub(super) fn new(
        child: Child,
        channel: UnixStream,
        console: UnixStream,
        accelerator: Accelerator,
    ) -> Self {
        let console_socket = Some(console);
        let (console, times) = (Console::default(), StartTimes::default());
        let (started, disks) = (Instant::now(), Vec::new());
        Self {
            child,
            channel,
            console_socket,
            console,
            left: SPEECH_LIMIT,
            accelerator,
            times,
            thawed: false,
            started,
            disks,
        }
    }

    /// Who runs its instructions.
    pub fn accelerator(&self) -> Accelerator {
        self.accelerator
    }

    /// How long its start took.
    pub fn times(&self) -> StartTimes {
        self.times
    }

    /// The lengths of its disks in bytes, as it sees them.
    pub fn disks(&self) -> &[u64] {
        &self.disks
    }

    /// Whether it went on from a machine that was kept, rather than being started anew.
    pub fn is_thawed(&self) -> bool {
        self.thawed
    }

    /// qemu's process id.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// The channel for one message, which must be through within `patience`. Its errors hold one of this crate's
    /// ([`Machine::understand`] takes it out): the time is over, the machine is gone, or a signal stopped the run.
    pub fn channel(&mut self, patience: Duration) -> Channel<'_> {
        Channel { until: Instant::now() + patience, machine: self }
    }

    /// Says one message.
    ///
    /// # Errors
    /// When the machine is gone or does not listen in time, with its last words.
    pub fn say(&mut self, message: &impl Serialize, patience: Duration) -> Result<()> {
        write_message(&mut self.channel(patience), message).map_err(|error| self.blame(error))
    }

    /// Gives bytes as they are.
    ///
    /// # Errors
    /// As [`Machine::say`].
    pub fn say_data(&mut self, bytes: &[u8], patience: Duration) -> Result<()> {
        write_data(&mut self.channel(patience), bytes).map_err(|error| self.blame(error))
    }

    /// Hears one message.
    ///
    /// # Errors
    /// When the machine is gone, says nothing in time, or something that is no such message; with its last words.
    pub fn hear<T: DeserializeOwned>(&mut self, patience: Duration) -> Result<T> {
        read_message(&mut self.channel(patience)).map_err(|broken| self.understand(broken))
    }

    /// What a message that could not be read means.
    pub fn understand(&mut self, broken: Broken) -> Error {
        let error = match broken {
            Broken::Read(error) => match error.downcast::<Error>() {
                Ok(error) => error,
                Err(error) => Error::failed("cannot hear the virtual machine").caused_by(error),
            },
            Broken::Ended => Error::failed("the virtual machine went away in the middle of its work"),
            broken @ Broken::Protocol(_) => {
                Error::failed("the virtual machine is not understood").caused_by(broken)
            }
        };
        self.blame(error)
    }

    /// The same failure with what is known of the machine: how it ended, and the last that its console said. A signal that
    /// stopped the run stays what it is.
    #[must_use]
    pub fn blame(&mut self, error: Error) -> Error {
        if error.kind() == ErrorKind::Stopped {
            return error;
        }
        // Not longer than a moment: the error is there, this is only about why.
        let gone = self.channel_is_closed();
        let exit = self.child.exit_within(if gone { LAST_MOMENTS } else { Duration::ZERO });
        self.listen_to_console();
        let mut told = Vec::new();
        if let Ok(Some(exit)) = exit {
            told.push(told_exit(&exit));
        }
        match self.console.last_lines() {
            lines if lines.is_empty() => {}
            lines => told.push(format!("its console said last:\n{lines}")),
        }
        if told.is_empty() { error } else { error.and_also(Error::failed(told.join("; "))) }
    }

    /// Waits for the machine to power off, which its work does when it is done; one that does not is ended.
    ///
    /// # Errors
    /// When it does not, or qemu could not write what the machine wrote: then the disks are not whole.
    pub fn close(self) -> Result<()> {
        // To a machine that waits for more this is the end.
        let _ = self.channel.shutdown(Shutdown::Write);
        self.wait_for_end()
    }

    pub(super) fn wait_for_end(mut self) -> Result<()> {
        let until = Instant::now() + END_PATIENCE;
        loop {
            if self.child.exit_within(Duration::ZERO)?.is_some() {
                self.listen_to_console();
                let Self { child, .. } = self;
                return child.wait()?.success_without_complaint(&[]);
            }
            if let Err(error) = self.wait(until, Wanted::End) {
                return Err(self.blame(error.within("the virtual machine did not power off")));
            }
        }
    }

    fn channel_is_closed(&self) -> bool {
        crate::sys::wait::is_hung_up(self.channel.as_fd()).unwrap_or(true)
    }

    /// Waits until the channel can be used, or qemu has ended, and hears the console meanwhile.
    fn wait(&mut self, until: Instant, wanted: Wanted) -> Result<()> {
        let failed = || "cannot wait for the virtual machine";
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::failed("the virtual machine does not answer in time"));
            }
            let mut polled = vec![(self.child.pidfd(), PollFlags::POLLIN)];
            polled.extend(wanted.flags().map(|flags| (self.channel.as_fd(), flags)));
            let others = polled.len();
            polled.extend(self.console_socket.iter().map(|socket| (socket.as_fd(), PollFlags::POLLIN)));
            polled.extend(interrupt::fd().map(|fd| (fd, PollFlags::POLLIN)));
            let ready = ready_within(&polled, left).context(failed)?;
            interrupt::check()?;
            if self.console_socket.is_some() && ready[others] {
                self.hear_console_once();
            }
            if ready[..others].contains(&true) {
                return Ok(());
            }
        }
    }

    /// One piece of what the console says; false when there is nothing now.
    fn hear_console_once(&mut self) -> bool {
        let Some(socket) = &mut self.console_socket else { return false };
        let mut piece = [0; PIECE];
        match socket.read(&mut piece) {
            Ok(length @ 1..) => self.console.hear(&piece[..length]),
            Err(error) if matches!(error.kind(), IoKind::WouldBlock | IoKind::Interrupted) => return false,
            Ok(_) | Err(_) => self.console_socket = None,
        }
        self.console_socket.is_some()
    }

    /// What is there of the console now, but of a flood no more than is kept.
    fn listen_to_console(&mut self) {
        for _ in 0..16 {
            if !self.hear_console_once() {
                return;
            }
        }
    }
}

/// What is waited for.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    Speech,
    Room,
    End,
}

impl Wanted {
    fn flags(self) -> Option<PollFlags> {
        match self {
            Self::Speech => Some(PollFlags::POLLIN),
            Self::Room => Some(PollFlags::POLLOUT),
            Self::End => None,
        }
    }
}

fn told_exit(exit: &Exit) -> String {
    let colon = if exit.stderr.is_empty() { "" } else { ": " };
    format!("qemu ended with {}{colon}{}", exit.status, exit.stderr)
}

impl Channel<'_> {
    fn attempt(
        &mut self,
        wanted: Wanted,
        mut work: impl FnMut(&mut UnixStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        loop {
            if self.until <= Instant::now() {
                return Err(io::Error::other(Error::failed("the virtual machine does not answer in time")));
            }
            match work(&mut self.machine.channel) {
                Err(error) if error.kind() == IoKind::Interrupted => {}
                Err(error) if error.kind() == IoKind::WouldBlock => {
                    self.machine.wait(self.until, wanted).map_err(io::Error::other)?;
                    // qemu's end closes the channel, which the next attempt sees.
                }
                done => return done,
            }
        }
    }
}

impl Read for Channel<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let length = self.attempt(Wanted::Speech, |channel| channel.read(bytes))?;
        let machine = &mut *self.machine;
        let left = machine.left.checked_sub(length as u64);
        machine.left =
            left.ok_or_else(|| io::Error::other(Error::failed("the virtual machine says too much")))?;
        Ok(length)
    }
}

impl Write for Channel<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.attempt(Wanted::Room, |channel| channel.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
