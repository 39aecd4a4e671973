//! Runs a guest's own programs on its own files, with none of this host's powers: by bubblewrap (bwrap(1)), in namespaces
//! of their own for processes, mounts, network, IPC and host name, with the capabilities that package managers need, and
//! without the system calls that reach the kernel as a whole.
//!
//! They run as root, whom the files of the guest belong to, and not in a user namespace: users that it does not map could
//! own no files.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};
use std::process::{ChildStdout, Stdio};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::child::{Child, wait_for_heirs};
use super::plain::plain;
use super::tool::Tool;
use super::wait::ready_within;
use super::{interface, interrupt, refusals};
use crate::error::{Context, Error, Result};

/// The program that makes the sandbox.
pub const BWRAP: &str = "bwrap";
/// What package managers do as root: owners, modes, capabilities of files, users of their own, chroot.
const CAPABILITIES: [&str; 9] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];
/// Where the sandbox has filesystems of its own: in the guest these must be folders, for the sandbox is built from
/// outside, and would follow a link there.
const OWN: [&str; 3] = ["dev", "proc", "run"];
/// What root may read of this host there.
const HIDDEN: [&str; 5] = ["/proc/kcore", "/proc/keys", "/proc/key-users", "/proc/kmsg", "/proc/timer_list"];
/// The script, where the guest sees it.
const SCRIPT: &str = "/run/guestseal-script";
/// Descriptors that a child inherits begin here.
const FIRST_FD: usize = 3;
/// How much of a line, and how many lines, an error repeats.
const LINE: usize = 200;
const LAST_LINES: usize = 12;

/// The network of this system, as programs of a guest see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// What stands in resolv.conf(5) for them: the guest's own names servers that are not to be reached from here.
    resolver: Vec<u8>,
}

impl Network {
    /// The host's.
    ///
    /// # Errors
    /// When its resolv.conf(5) cannot be read; without one nothing is resolved.
    pub fn of_host() -> Result<Self> {
        let path = Path::new("/etc/resolv.conf");
        match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self { resolver: Vec::new() }),
            read => Ok(Self { resolver: read.context(|| format!("cannot read {}", path.display()))? }),
        }
    }

    /// A virtual machine's, which is what qemu has for each.
    pub fn of_machine() -> Self {
        Self { resolver: format!("nameserver {}\n", interface::RESOLVER).into_bytes() }
    }
}

/// How programs of a guest run.
#[derive(Debug)]
pub struct Sandbox<'a> {
    /// The folder of this host at which the guest is mounted, with its programs executable.
    pub root: &'a Path,
    /// The network that they see; none for no network at all.
    pub network: Option<&'a Network>,
    /// How long they may take.
    pub patience: Duration,
}

impl Sandbox<'_> {
    /// Runs a script with the guest's own interpreter and hands out each line that it prints, in which nothing is left
    /// that a terminal obeys.
    ///
    /// # Errors
    /// When it cannot be started, takes too long, or ends with anything but 0: with its last lines.
    pub fn run(&self, script: &str, said: &mut dyn FnMut(&str)) -> Result<()> {
        for name in OWN {
            let path = self.root.join(name);
            if !path.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
                return Err(Error::unsupported(format!("the guest's /{name} is no folder"))
                    .hint("its programs run with a /dev, /proc and /run of their own"));
            }
        }
        let mut child = self.start(script)?;
        let Some(mut pipe) = child.take_stdout() else {
            return Err(Error::failed("the sandbox has no output"));
        };
        let mut lines = Lines::default();
        match self.listen(&mut pipe, &mut lines, said) {
            Ok(()) => lines.judge(child),
            Err(error) => {
                drop(child);
                wait_for_heirs(&mut pipe);
                Err(lines.end_of(error))
            }
        }
    }

    fn start(&self, script: &str) -> Result<Child> {
        let first = if script.starts_with("#!") { "" } else { "#!/bin/sh\n" };
        let script = format!("{first}{script}");
        // What they are, and the words before and behind each one's descriptor.
        let mut files: Vec<(Vec<u8>, &[&str], &str)> =
            vec![(script.into_bytes(), &["--perms", "0700", "--ro-bind-data"], SCRIPT)];
        let place = self.network.and_then(|network| Some((network, resolver_place(self.root)?)));
        if let Some((network, place)) = &place {
            files.push((network.resolver.clone(), &["--perms", "0644", "--ro-bind-data"], place));
        }
        for filter in refusals::filters()? {
            files.push((filter, &["--add-seccomp-fd"], ""));
        }
        let mut bwrap = Tool::find(BWRAP)?.spawn().env("HOME", "/root").env("TERM", "dumb");
        bwrap = bwrap
            .args(["--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"])
            .args(["--hostname", "localhost", "--die-with-parent", "--new-session", "--chdir", "/"]);
        if self.network.is_none() {
            bwrap = bwrap.arg("--unshare-net");
        }
        bwrap = bwrap.arg("--bind").arg(self.root).arg("/");
        bwrap = bwrap.args(["--dev", "/dev", "--proc", "/proc", "--tmpfs", "/run", "--cap-drop", "ALL"]);
        let hidden = HIDDEN.iter().filter(|path| Path::new(path).exists());
        bwrap = hidden.fold(bwrap, |bwrap, path| bwrap.args(["--ro-bind", "/dev/null", path]));
        // What root owns there is this host's kernel, and writing it takes no capability: /proc/sys above all.
        bwrap = bwrap.args(["--remount-ro", "/proc"]);
        bwrap = CAPABILITIES.iter().fold(bwrap, |bwrap, name| bwrap.args(["--cap-add", name]));
        for (index, (bytes, before, behind)) in files.into_iter().enumerate() {
            bwrap = bwrap.args(before).arg((FIRST_FD + index).to_string());
            bwrap = if behind.is_empty() { bwrap } else { bwrap.arg(behind) };
            bwrap = bwrap.inherit(memory_file(&bytes)?);
        }
        // What it says on both of its outputs is one text.
        let words = ["--", "/bin/sh", "-c", "exec \"$0\" 2>&1", SCRIPT];
        bwrap.args(words).stdout(Stdio::piped()).spawn()
    }

    /// Hears all that it prints, to its end and that of all that it has started.
    fn listen(&self, pipe: &mut ChildStdout, lines: &mut Lines, said: &mut dyn FnMut(&str)) -> Result<()> {
        let failed = || "cannot read what the guest's programs print";
        let (began, mut block) = (Instant::now(), [0; 4096]);
        loop {
            let left = self.patience.saturating_sub(began.elapsed());
            let fds: Vec<_> = [Some(pipe.as_fd()), interrupt::fd()]
                .into_iter()
                .flatten()
                .map(|fd| (fd, PollFlags::POLLIN))
                .collect();
            let ready = ready_within(&fds, left).context(failed)?;
            interrupt::check()?;
            if !ready.contains(&true) {
                let seconds = self.patience.as_secs();
                return Err(Error::failed(format!("it did not end within {seconds} s and was killed")));
            }
            match pipe.read(&mut block).context(failed)? {
                0 => {
                    lines.finish(said);
                    return Ok(());
                }
                length => lines.hear(&block[..length], said),
            }
        }
    }
}

/// What was printed so far.
#[derive(Debug, Default)]
struct Lines {
    open: Vec<u8>,
    last: Vec<String>,
}

impl Lines {
    fn hear(&mut self, bytes: &[u8], said: &mut dyn FnMut(&str)) {
        for byte in bytes {
            match byte {
                b'\n' => self.finish(said),
                byte if self.open.len() < 4 * LINE => self.open.push(*byte),
                _ => {}
            }
        }
    }

    fn finish(&mut self, said: &mut dyn FnMut(&str)) {
        let open = std::mem::take(&mut self.open);
        let line = plain(String::from_utf8_lossy(&open).trim_end(), LINE);
        if line.is_empty() {
            return;
        }
        said(&line);
        if self.last.len() == LAST_LINES {
            self.last.remove(0);
        }
        self.last.push(line);
    }

    /// How a program ended that has printed this.
    fn judge(self, child: Child) -> Result<()> {
        let exit = child.wait()?;
        if exit.status.success() {
            return Ok(());
        }
        // bwrap's own complaints, when there was no script yet.
        let stderr = plain(&exit.stderr, 4 * LINE);
        let error = Error::failed(format!("it ended with {}", exit.status));
        Err(self.end_of(if stderr.is_empty() { error } else { error.caused_by(stderr) }))
    }

    fn end_of(self, error: Error) -> Error {
        if self.last.is_empty() {
            error
        } else {
            error.caused_by(format!("its last lines: {}", self.last.join(" | ")))
        }
    }
}

/// Where programs of the guest at `root` read how names are resolved: the guest's own file, or what its link names below
/// /run, which is the sandbox's own. None when it has none, or the way there leads elsewhere: the sandbox is built from
/// outside, and nothing is made in the guest for it.
fn resolver_place(root: &Path) -> Option<String> {
    let is_folder = |path: &str| root.join(path).symlink_metadata().is_ok_and(|meta| meta.is_dir());
    let path = root.join("etc/resolv.conf");
    let kind = path.symlink_metadata().ok().filter(|_| is_folder("etc"))?.file_type();
    if kind.is_file() {
        return Some("/etc/resolv.conf".into());
    }
    let target = Path::new("/etc").join(path.read_link().ok()?);
    let mut names = Vec::new();
    for part in target.components() {
        match part {
            Component::Normal(name) => names.push(name.to_str()?),
            Component::ParentDir => drop(names.pop()),
            _ => {}
        }
    }
    let below_run = names.len() > 1 && names.first() == Some(&"run");
    below_run.then(|| format!("/{}", names.join("/"))).filter(|place| place != SCRIPT)
}

fn memory_file(bytes: &[u8]) -> Result<OwnedFd> {
    let failed = || "cannot hand a file to the sandbox";
    let mut file = File::from(memfd_create("guestseal", MFdFlags::MFD_CLOEXEC).context(failed)?);
    file.write_all(bytes).context(failed)?;
    std::io::Seek::rewind(&mut file).context(failed)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn names_are_resolved_where_the_guest_looks_and_nowhere_else() {
        let place = |target: &str| {
            let root = tempfile::tempdir().unwrap();
            std::fs::create_dir(root.path().join("etc")).unwrap();
            symlink(target, root.path().join("etc/resolv.conf")).unwrap();
            resolver_place(root.path())
        };
        let stub = "/run/systemd/resolve/stub-resolv.conf";
        for target in [
            stub,
            &format!("..{stub}"),
            &format!("../../..{stub}"),
            "/run/x/../systemd/./resolve/stub-resolv.conf",
        ] {
            assert_eq!(place(target).as_deref(), Some(stub), "{target}");
        }
        for target in [
            "/oldroot/etc/shadow",
            "/run",
            "../run/../oldroot/x",
            "resolv",
            "/run/guestseal-script",
            "/var/run/x",
        ] {
            assert_eq!(place(target), None, "{target}");
        }
        let root = tempfile::tempdir().unwrap();
        assert_eq!(resolver_place(root.path()), None);
        symlink("/etc", root.path().join("etc")).unwrap();
        assert_eq!(resolver_place(root.path()), None, "the host's own");
        std::fs::remove_file(root.path().join("etc")).unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/resolv.conf"), "").unwrap();
        assert_eq!(resolver_place(root.path()).as_deref(), Some("/etc/resolv.conf"));
    }
}
