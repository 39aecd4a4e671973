//! Shuts this process in before it edits a guest: what it may still do is change files beneath one folder. Three locks,
//! each for what the others leave open, and none can be taken off again:
//!
//! - Landlock: files are opened, made, renamed and removed beneath the folder only, whatever is mounted there included.
//! - Capabilities: those that editing needs. One of them, CAP_SYS_ADMIN, is strong: extended attributes need it.
//! - seccomp: a list of the system calls that editing makes. All others fail with EPERM, known today or not: mount,
//!   namespaces, execve, ptrace, sockets, signals to others. Landlock leaves owner, mode and attributes of a path alone
//!   (landlock(7), "limitations"), so the calls that take a path for these are off the list, and those that take an
//!   open file remain, which Landlock has let through.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope, make_bitflags,
};
use nix::libc;
use rustix::thread::{CapabilitySet, CapabilitySets};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};

/// What editing a guest needs. SYS_ADMIN: the attributes `trusted.*` are seen and set with it only, and `security.*`
/// (SELinux labels) where the host has no SELinux itself (xattr(7)). MAC_ADMIN: where it has, labels that its own policy
/// does not know.
const NEEDED: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::LINUX_IMMUTABLE)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::MAC_ADMIN);

/// The newest Landlock that is asked for; an older kernel gives what it has.
const NEWEST: ABI = ABI::V9;

/// Whether the confined process may change files, or only read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Reads files and folders.
    Read,
    /// Makes, changes and removes files, folders and links.
    Write,
}

/// What was in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Confinement {
    /// The version of Landlock's interface; none where the kernel has no Landlock.
    pub landlock: Option<u32>,
    /// Whether system calls were filtered.
    pub seccomp: bool,
    /// The capabilities that were left.
    pub capabilities: Vec<String>,
}

/// Confines this process to what is beneath `root`. It must have one thread only: others would stay free.
///
/// # Errors
/// When the kernel has a lock and refuses to close it. A kernel that lacks one is no error: see [`Confinement`].
pub fn confine(root: BorrowedFd<'_>, reach: Reach) -> Result<Confinement> {
    rustix::thread::set_no_new_privs(true).context(|| "cannot give up new privileges")?;
    let landlock = landlock(root, reach)?;
    let capabilities = drop_capabilities()?;
    let seccomp = filter_calls(reach)?;
    Ok(Confinement { landlock, seccomp, capabilities })
}

fn beneath(reach: Reach) -> BitFlags<AccessFs> {
    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    match reach {
        Reach::Read => read,
        // No devices, FIFOs and sockets: editing makes none. Refer: files are moved, but never out of the folder.
        Reach::Write => {
            read | make_bitflags!(AccessFs::{
                WriteFile | Truncate | RemoveFile | RemoveDir | MakeReg | MakeDir | MakeSym | Refer
            })
        }
    }
}

/// Refuses all that Landlock knows, but this beneath the folder.
fn landlock(root: BorrowedFd<'_>, reach: Reach) -> Result<Option<u32>> {
    let closed = || "cannot shut the worker in by Landlock";
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|rules| rules.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rule(PathBeneath::new(root, beneath(reach))))
        .and_then(landlock::RulesetCreated::restrict_self)
        .context(closed)?;
    match (status.landlock, status.ruleset) {
        (_, RulesetStatus::NotEnforced) => Ok(None),
        (LandlockStatus::Available { effective_abi, .. }, _) => Ok(Some(effective_abi as u32)),
        (_, _) => Err(Error::failed(closed())),
    }
}

/// Leaves those of [`NEEDED`] that this process has, and returns their names.
fn drop_capabilities() -> Result<Vec<String>> {
    let cut = || "cannot give up capabilities";
    let had = rustix::thread::capabilities(None).context(cut)?.permitted;
    rustix::thread::clear_ambient_capability_set().context(cut)?;
    // Without CAP_SETPCAP the bounding set stays, which only an execve could draw on, and there is none any more.
    if had.contains(CapabilitySet::SETPCAP) {
        for capability in CapabilitySet::all().difference(NEEDED).iter() {
            match rustix::thread::remove_capability_from_bounding_set(capability) {
                // EINVAL: newer than the kernel.
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(errno) => return Err(errno).context(cut),
            }
        }
    }
    let left = had & NEEDED;
    let sets = CapabilitySets { effective: left, permitted: left, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).context(cut)?;
    Ok(left.iter_names().map(|(name, _)| name.to_owned()).collect())
}

/// False where neither the kernel nor the crate knows a filter for this machine.
fn filter_calls(reach: Reach) -> Result<bool> {
    let failed = || "cannot filter the worker's system calls";
    let Ok(machine) = std::env::consts::ARCH.try_into() else { return Ok(false) };
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules(reach)?, refuse, SeccompAction::Allow, machine).context(failed)?;
    let program = BpfProgram::try_from(filter).context(failed)?;
    match seccompiler::apply_filter(&program) {
        Ok(()) => Ok(true),
        // Kernels without CONFIG_SECCOMP_FILTER.
        Err(seccompiler::Error::Seccomp(error))
            if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) =>
        {
            Ok(false)
        }
        Err(error) => Err(error).context(failed),
    }
}

/// The calls of editing, of the allocator and of the runtime's end. What looks like a path call only looks: Landlock
/// judges it when it opens.
const CALLS: [libc::c_long; 52] = [
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_ppoll,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_fstatfs,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_mkdirat,
    libc::SYS_symlinkat,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_copy_file_range,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_sched_yield,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// What changes the marks of an open file, which Landlock leaves alone however it was opened.
const MARKING_CALLS: [libc::c_long; 4] =
    [libc::SYS_fchmod, libc::SYS_fchown, libc::SYS_fsetxattr, libc::SYS_fremovexattr];

/// The same by their older numbers, which the C library still uses where they exist.
#[cfg(target_arch = "x86_64")]
const OLDER_CALLS: [libc::c_long; 12] = [
    libc::SYS_access,
    libc::SYS_dup2,
    libc::SYS_getdents,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_stat,
    libc::SYS_symlink,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER_CALLS: [libc::c_long; 0] = [];

fn rules(reach: Reach) -> Result<BTreeMap<i64, Vec<SeccompRule>>> {
    let mut rules: BTreeMap<_, _> =
        CALLS.iter().chain(&OLDER_CALLS).map(|call| (*call, Vec::new())).collect();
    // Of these only some requests: an ioctl can freeze or shut down a filesystem, F_SETOWN can send signals.
    let ioctls = [libc::FS_IOC_GETFLAGS, libc::FS_IOC_SETFLAGS, libc::FIOCLEX];
    rules.insert(libc::SYS_ioctl, any_of(1, ioctls)?);
    let fcntls =
        [libc::F_DUPFD, libc::F_DUPFD_CLOEXEC, libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_SETFL];
    rules.insert(libc::SYS_fcntl, any_of(1, fcntls.map(|command| u64::from(command.unsigned_abs())))?);
    if reach == Reach::Write {
        rules.extend(MARKING_CALLS.iter().map(|call| (*call, Vec::new())));
        // Times are set of open files only, which is what a path at address 0 means.
        rules.insert(libc::SYS_utimensat, vec![null_path()?]);
    }
    // A panic's abort: to this process alone.
    rules.insert(libc::SYS_tgkill, any_of(0, [u64::from(std::process::id())])?);
    Ok(rules)
}

fn null_path() -> Result<SeccompRule> {
    SeccompCondition::new(1, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .context(|| "cannot filter the arguments of a system call")
}

/// One rule for each value that this argument may have.
fn any_of<const N: usize>(argument: u8, values: [u64; N]) -> Result<Vec<SeccompRule>> {
    let rule = |value| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value)
            .and_then(|condition| SeccompRule::new(vec![condition]))
            .context(|| "cannot filter the arguments of a system call")
    };
    values.into_iter().map(rule).collect()
}
