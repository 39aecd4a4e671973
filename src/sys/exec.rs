//! What happens in a child between fork and exec. Only async-signal-safe calls are allowed there (signal-safety(7)),
//! so all memory is made ready before the fork and the child only fills in its own process id.
#![expect(unsafe_code, reason = "pre_exec, execve and raw descriptors have no safe form")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::ptr;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{self, c_char, pid_t};
use nix::unistd::getpid;

/// The first descriptor after the standard three, and of socket activation (sd_listen_fds(3)).
const FIRST_INHERITED: RawFd = 3;
/// Sets the signal for readiness (fcntl(2), asm-generic/fcntl.h); the libc crate lacks it for glibc.
const F_SETSIG: libc::c_int = 10;
/// Room for the decimal digits of any process id; they are written right-aligned over zeros.
const PID_DIGITS: &str = "LISTEN_PID=0000000000";

/// A user that a child becomes for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub user: u32,
    /// Group id.
    pub group: u32,
    /// Ids of the other groups.
    pub groups: Vec<u32>,
}

/// Descriptors on their way to a child, where they become 3 and so on.
struct Inherited {
    /// Duplicates above every target number, so that moving one never overwrites another.
    above: Vec<OwnedFd>,
    /// Duplicates that keep the target numbers taken, so that the pipe on which `Command` reports a failed exec is
    /// not opened at one of them.
    _taken: Vec<OwnedFd>,
}

/// A program with its arguments and environment in the form of execve(2), and the descriptors it inherits.
pub(super) struct Image {
    program: CString,
    _args: Vec<CString>,
    env: Vec<Vec<u8>>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    inherited: Inherited,
    activated: bool,
    leash: Option<RawFd>,
    own_mounts: bool,
    user: Option<User>,
    parent: pid_t,
}

// SAFETY: the pointers go to heap buffers that this value owns and never moves or frees while it lives.
unsafe impl Send for Image {}
// SAFETY: as above; nothing is changed through a shared reference.
unsafe impl Sync for Image {}

impl Image {
    /// Makes everything ready: `listen` is for socket activation, `inherited` comes behind that; with a `leash`, the reading end of a pipe, the child
    /// dies when the pipe has no writer left, and without one by the parent-death signal. Fails with
    /// `InvalidInput` when a string holds a NUL byte.
    pub(super) fn new(
        program: &Path,
        args: &[Vec<u8>],
        env: &[(String, String)],
        (listen, inherited): (&[OwnedFd], &[OwnedFd]),
        leash: Option<&OwnedFd>,
    ) -> io::Result<Self> {
        let program = CString::new(program.as_os_str().as_bytes())?;
        let args =
            args.iter().map(|arg| Ok(CString::new(arg.as_slice())?)).collect::<io::Result<Vec<_>>>()?;
        let mut env = env
            .iter()
            .map(|(name, value)| Ok(CString::new(format!("{name}={value}"))?.into_bytes_with_nul()))
            .collect::<io::Result<Vec<_>>>()?;
        let activated = !listen.is_empty();
        if activated {
            env.insert(0, CString::new(PID_DIGITS)?.into_bytes_with_nul());
            env.push(CString::new(format!("LISTEN_FDS={}", listen.len()))?.into_bytes_with_nul());
        }
        let argv = [program.as_ptr()]
            .into_iter()
            .chain(args.iter().map(|arg| arg.as_ptr()))
            .chain([ptr::null()])
            .collect();
        let envp = env.iter().map(|entry| entry.as_ptr().cast()).chain([ptr::null()]).collect();
        let leash_fd = match leash {
            Some(_) => {
                let before = RawFd::try_from(listen.len() + inherited.len()).map_err(io::Error::other)?;
                Some(FIRST_INHERITED + before)
            }
            None => None,
        };
        let fds: Vec<_> = listen.iter().chain(inherited).chain(leash).collect();
        Ok(Self {
            program,
            _args: args,
            env,
            argv,
            envp,
            inherited: Inherited::new(&fds)?,
            activated,
            leash: leash_fd,
            own_mounts: false,
            user: None,
            parent: getpid().as_raw(),
        })
    }

    /// Gives the child a mount namespace of its own.
    pub(super) fn with_own_mounts(self, own_mounts: bool) -> Self {
        Self { own_mounts, ..self }
    }

    /// Gives the child another user.
    pub(super) fn with_user(self, user: Option<User>) -> Self {
        Self { user, ..self }
    }

    /// Runs in the child: drops stray descriptors, puts the others in place, ties it to its parent, and becomes the
    /// program. Returns only the error that stopped it.
    fn become_program(&mut self) -> io::Error {
        match self.prepare() {
            Err(error) => error,
            Ok(()) => {
                // SAFETY: program, argv and envp are NUL-terminated and owned by self, which outlives the call.
                unsafe { libc::execve(self.program.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
                io::Error::last_os_error()
            }
        }
    }

    fn prepare(&mut self) -> io::Result<()> {
        // SAFETY: these calls take integers only and are async-signal-safe.
        unsafe {
            // Descriptors that our own caller leaked into us stay out of the child. Kernels before 5.11 lack the
            // flag; there they are merely inherited.
            let last = libc::c_uint::MAX;
            libc::syscall(libc::SYS_close_range, FIRST_INHERITED, last, libc::CLOSE_RANGE_CLOEXEC);
            for (target, fd) in (FIRST_INHERITED..).zip(&self.inherited.above) {
                check(libc::dup2(fd.as_raw_fd(), target))?;
            }
            // Before it is tied: a change of user unties it (prctl(2)).
            if let Some(user) = &self.user {
                user.become_it()?;
            }
            match self.leash {
                Some(pipe) => {
                    check(libc::fcntl(pipe, libc::F_SETOWN, libc::getpid()))?;
                    check(libc::fcntl(pipe, F_SETSIG, libc::SIGKILL))?;
                    check(libc::fcntl(pipe, libc::F_SETFL, libc::O_ASYNC))?;
                }
                None => check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?,
            }
            // The parent may have died before it was tied; then no signal will ever come.
            if libc::getppid() != self.parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
        }
        if self.own_mounts {
            // SAFETY: the strings are constants, the null pointers stand for arguments that this change ignores.
            unsafe {
                check(libc::unshare(libc::CLONE_NEWNS))?;
                let (all, none) = (libc::MS_REC | libc::MS_PRIVATE, c"none".as_ptr());
                check(libc::mount(none, c"/".as_ptr(), ptr::null(), all, ptr::null()))?;
            }
        }
        if self.activated {
            write_decimal(&mut self.env[0], getpid().as_raw());
            self.envp[0] = self.env[0].as_ptr().cast();
        }
        Ok(())
    }
}

/// Arranges for `command` to become `image` in place of what `command` itself names.
pub(super) fn run_image(command: &mut Command, mut image: Image) {
    // SAFETY: become_program makes only async-signal-safe calls and touches memory made ready before the fork.
    unsafe { command.pre_exec(move || Err(image.become_program())) };
}

/// A pidfd for our own child `pid`, which has not been reaped yet (pidfd_open(2)).
pub(super) fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: takes integers; the result is checked before it is owned.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

impl User {
    fn become_it(&self) -> io::Result<()> {
        // SAFETY: raw system calls, for the library's own would speak to threads that the child does not have; the list
        // of groups was made before the fork and is as long as is said.
        let results = unsafe {
            [
                libc::syscall(libc::SYS_setgroups, self.groups.len(), self.groups.as_ptr()),
                libc::syscall(libc::SYS_setresgid, self.group, self.group, self.group),
                libc::syscall(libc::SYS_setresuid, self.user, self.user, self.user),
                libc::c_long::from(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)),
            ]
        };
        if results.iter().all(|result| *result == 0) { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

impl Inherited {
    fn new(fds: &[&OwnedFd]) -> io::Result<Self> {
        let end = FIRST_INHERITED + RawFd::try_from(fds.len()).map_err(io::Error::other)?;
        let taken = (FIRST_INHERITED..).zip(fds).map(|(target, fd)| duplicate(fd, target));
        let taken = taken.collect::<io::Result<_>>()?;
        let above = fds.iter().map(|fd| duplicate(fd, end)).collect::<io::Result<_>>()?;
        Ok(Self { above, _taken: taken })
    }
}

fn duplicate(fd: &OwnedFd, at_least: RawFd) -> io::Result<OwnedFd> {
    let new = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(at_least))?;
    // SAFETY: fcntl has just made this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(new) })
}

/// Writes `value` over the digits before the closing NUL byte.
fn write_decimal(entry: &mut [u8], mut value: pid_t) {
    for digit in entry.iter_mut().rev().skip(1).take(10) {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
