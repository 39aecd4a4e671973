//! A disk that is not on this host, shown as a file that is only read: one daemon of qemu's has the network and nobody else
//! needs it. What everything else of guestseal opens is that file.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::fuse::{Daemon, WHO, find};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::image::uri::Remote;
use crate::sys::interrupt;
use crate::sys::namespace::{RunFolder, enter_private_mounts};
use crate::sys::qmp;

/// How long a server may take to be reached and to show the disk.
const PATIENCE: Duration = Duration::from_secs(60);
/// Debian's and Ubuntu's, SUSE's, and Fedora's package of a driver.
const PACKAGES: [(&str, &str); 5] = [
    ("ssh", "qemu-block-extra (Debian, Ubuntu), qemu-block-ssh (Fedora, SUSE)"),
    ("rbd", "qemu-block-extra (Debian, Ubuntu), qemu-block-rbd (Fedora, RHEL, SUSE)"),
    ("http", "qemu-block-extra (Debian, Ubuntu), qemu-block-curl (Fedora, RHEL, SUSE)"),
    ("https", "qemu-block-extra (Debian, Ubuntu), qemu-block-curl (Fedora, RHEL, SUSE)"),
    ("nbd", "qemu-utils or qemu-img: this one was built without it"),
];

/// A disk elsewhere while it is shown here. In the order of taking apart: the daemon is killed, for it has nothing to write, and
/// to end in order it might wait for its server.
#[derive(Debug)]
pub struct Shown {
    daemon: Daemon,
    _folder: RunFolder,
}

impl Shown {
    /// Reaches the disk and shows its bytes as a file, in a mount namespace of this run.
    ///
    /// # Errors
    /// [`ErrorKind::HostLacks`] without FUSE, root, or qemu's driver for it; failed when the server cannot be reached, or does
    /// not have the disk; [`ErrorKind::Stopped`].
    pub fn open(remote: &Remote, environment: &[(String, String)]) -> Result<(Self, File)> {
        let tool = find()?;
        enter_private_mounts()?;
        let folder = RunFolder::mount()?;
        let path = folder.folder("remote")?.join("disk");
        fs::write(&path, b"").context(|| format!("cannot make {}", path.display()))?;
        let spawn = tool.spawn();
        let spawn = environment.iter().fold(spawn, |spawn, (name, value)| spawn.env(name, value));
        let mut daemon = Daemon::start(spawn)?;
        let about = |error: Error| error.within(format!("cannot open {}", remote.shown));
        ask(&mut daemon, remote, &path).map_err(about)?;
        let file = File::open(&path).context(|| format!("cannot open {}", remote.shown))?;
        Ok((Self { daemon, _folder: folder }, file))
    }

    /// The same failure of what read the disk, as one of its daemon when that has gone.
    #[must_use]
    pub fn blame(&self, error: Error) -> Error {
        if error.kind() == ErrorKind::Stopped {
            return error;
        }
        match self.daemon.check() {
            Ok(()) => error,
            Err(lost) => lost.and_also(error),
        }
    }
}

/// By the monitor and not by the command line, which every user of this host can read.
fn ask(daemon: &mut Daemon, remote: &Remote, path: &Path) -> Result<()> {
    let mut node = remote.node.clone();
    node["node-name"] = "remote".into();
    node["read-only"] = true.into();
    let export = json!({
        "type": "fuse", "id": "remote", "node-name": "remote", "mountpoint": path, "writable": false
    });
    let deadline = Instant::now() + PATIENCE;
    execute(daemon, ("blockdev-add", node), deadline).map_err(|error| explain(error, remote.driver()))?;
    execute(daemon, ("block-export-add", export), deadline)
}

fn execute(daemon: &mut Daemon, (command, arguments): (&str, Value), deadline: Instant) -> Result<()> {
    let words = json!({ "execute": command, "arguments": arguments });
    daemon
        .input
        .write_all(words.to_string().as_bytes())
        .context(|| format!("cannot send {command} to {WHO}"))?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if daemon.output.buffer().is_empty()
            && !interrupt::readable_within(daemon.output.get_ref().as_fd(), left)?
        {
            let seconds = PATIENCE.as_secs();
            return Err(Error::failed(format!("its server did not answer within {seconds} s"))
                .hint("is it reachable from here? try again when it is"));
        }
        match qmp::message(&mut daemon.output, WHO)? {
            Some(answer) if answer.get("return").is_some() => return Ok(()),
            Some(answer) if answer.get("error").is_some() => {
                let why = answer["error"]["desc"].as_str().unwrap_or_default();
                return Err(Error::failed(why.to_owned()));
            }
            Some(_) => {}
            None => return Err(Error::failed(format!("{WHO} ended at {command}"))),
        }
    }
}

/// What to do about what qemu says. Its monitor has no other way to tell that it lacks a driver: the list of those that it knows
/// has them all.
fn explain(error: Error, driver: &str) -> Error {
    let said = error.to_string();
    if said.contains(&format!("Unknown driver '{driver}'")) {
        let package = PACKAGES.iter().find(|(name, _)| *name == driver).map(|(_, package)| *package);
        return Error::host_lacks(format!("qemu's driver for {driver} is not installed"))
            .caused_by(error)
            .hint(format!("install {}", package.unwrap_or("the package of qemu that has it")));
    }
    let hints = [
        (
            "host key",
            "ssh",
            "make sure of the server's key and put it into ~/.ssh/known_hosts: ssh HOST asks",
        ),
        (
            "authenticat",
            "ssh",
            "ssh takes the keys of an agent (SSH_AUTH_SOCK) and those of ~/.ssh, and never a password",
        ),
        ("range", "http", "the web server must serve parts of files (byte ranges)"),
        (
            "certificate",
            "http",
            "the server's certificate must be one that this host trusts (ca-certificates)",
        ),
    ];
    let fits = |words: &str, kind: &str| said.contains(words) && driver.starts_with(kind);
    match hints.iter().find(|(words, kind, _)| fits(words, kind)) {
        Some((_, _, hint)) => error.hint(*hint),
        None => error,
    }
}
