//! Attaching through qemu-storage-daemon's FUSE export: the disk of the image appears as one regular raw file. For
//! hosts whose kernel has no nbd: containers, many CI machines.

use std::fs;
use std::io::{BufReader, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::time::Duration;

use serde_json::json;

use super::{ImageSpec, LAST_MOMENTS, judge_end, server_lost};
use crate::error::{Context, Error, Result};
use crate::sys::child::{Child, Spawn};
use crate::sys::interrupt;
use crate::sys::qmp;
use crate::sys::tool::Tool;
use crate::sys::wait::is_hung_up;

/// How long the daemon may take to write what it holds and end, once told to.
const PATIENCE: Duration = Duration::from_secs(600);
pub(super) const WHO: &str = "the export daemon";

/// An image that a daemon of this run shows as a raw file.
#[derive(Debug)]
pub struct FuseDisk {
    file: PathBuf,
    read_only: bool,
    daemon: Option<Daemon>,
}

/// qemu-storage-daemon with its monitor.
#[derive(Debug)]
pub(super) struct Daemon {
    child: Child,
    pub(super) input: ChildStdin,
    pub(super) output: BufReader<ChildStdout>,
}

/// Finds the daemon, on a host that has FUSE.
pub(super) fn find() -> Result<Tool> {
    let tool = Tool::find("qemu-storage-daemon")?;
    if !Path::new("/dev/fuse").exists() {
        return Err(Error::host_lacks("this host has no /dev/fuse").hint(
            "load the module `fuse`; images of this host can be attached by nbd instead (--attach nbd)",
        ));
    }
    Ok(tool)
}

impl FuseDisk {
    /// Starts the daemon and waits until the export is there. Its greeting on the monitor is that event: options are
    /// carried out in order, and the monitor comes after the export.
    ///
    /// # Errors
    /// When the daemon is missing, cannot open the image, or the kernel has no FUSE.
    pub fn attach(spec: &ImageSpec, folder: &Path) -> Result<Self> {
        let tool = find()?;
        let file = folder.join("disk");
        fs::write(&file, b"").context(|| format!("cannot make {}", file.display()))?;
        let mut layers = spec.layers.clone();
        layers["node-name"] = "disk".into();
        let export = json!({
            "type": "fuse", "id": "disk", "node-name": "disk", "mountpoint": file,
            "writable": !spec.read_only, "allow-other": "off",
        });
        let spawn = tool.spawn().args(["--blockdev", &layers.to_string(), "--export", &export.to_string()]);
        let daemon = Daemon::start(spawn)?;
        Ok(Self { file, read_only: spec.read_only, daemon: Some(daemon) })
    }

    /// The raw file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Tells whether the daemon still serves: after an I/O error, whether this is why.
    ///
    /// # Errors
    /// When it has ended, with its last words.
    pub fn check(&self) -> Result<()> {
        self.daemon.as_ref().map_or(Ok(()), Daemon::check)
    }

    /// Tells the daemon to end, which writes everything to the image, and waits for that. Nothing may use the file.
    ///
    /// # Errors
    /// When the daemon is dead, reports an error, or ends badly: then the image is not whole.
    pub fn close(mut self) -> Result<()> {
        self.stop()
    }

    fn stop(&mut self) -> Result<()> {
        self.daemon.take().map_or(Ok(()), |daemon| daemon.stop(self.read_only))
    }
}

impl Daemon {
    /// Starts it with these words and a monitor, and waits for its greeting.
    ///
    /// # Errors
    /// When it ends instead, with its last words; and when a signal came.
    pub(super) fn start(spawn: Spawn) -> Result<Self> {
        let spawn = spawn.args(["--chardev", "stdio,id=monitor", "--monitor", "chardev=monitor"]);
        let mut child = spawn.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (input, output) = (child.take_stdin(), child.take_stdout());
        let (Some(input), Some(output)) = (input, output) else {
            return Err(Error::failed("the export daemon has no monitor"));
        };
        interrupt::until_readable(output.as_fd())?;
        let mut daemon = Self { child, input, output: BufReader::new(output) };
        match qmp::message(&mut daemon.output, WHO)? {
            Some(greeting) if greeting.get("QMP").is_some() => {
                daemon.execute("qmp_capabilities").map(|()| daemon)
            }
            _ => Err(daemon
                .died("cannot show the image as a file")
                .hint("the image itself may be damaged: qemu-img check IMAGE tells more")),
        }
    }

    /// Tells whether it still serves.
    ///
    /// # Errors
    /// When it has ended, with its last words.
    pub(super) fn check(&self) -> Result<()> {
        let cut = is_hung_up(self.output.get_ref().as_fd()).context(|| "cannot watch the export daemon")?;
        // A dying daemon gives up its export, then its pipe, and then it has ended.
        let patience = if cut { LAST_MOMENTS } else { Duration::from_millis(100) };
        let exit = self.child.exit_within(patience)?;
        exit.map_or(Ok(()), |exit| Err(server_lost("qemu-storage-daemon", Ok(exit))))
    }

    /// Tells it to end, and waits for that. Nothing may use what it shows.
    ///
    /// # Errors
    /// When it is dead, reports an error, or ends badly.
    pub(super) fn stop(mut self, read_only: bool) -> Result<()> {
        if let Err(error) = self.execute("quit") {
            return Err(self.died("was gone before it could be told to end").and_also(error));
        }
        let mut rest = Vec::new();
        self.output
            .take(qmp::MESSAGE_LIMIT)
            .read_to_end(&mut rest)
            .context(|| "cannot read the export daemon's last words")?;
        drop(self.input);
        let exit = self.child.wait_within(PATIENCE)?;
        if read_only { exit.success() } else { judge_end(exit) }
    }

    fn execute(&mut self, command: &str) -> Result<()> {
        let line = json!({ "execute": command }).to_string();
        self.input
            .write_all(line.as_bytes())
            .context(|| format!("cannot send {command} to the export daemon"))?;
        qmp::answer(&mut self.output, WHO, command)
    }

    fn died(self, what: &str) -> Error {
        let sentence = format!("qemu-storage-daemon {what}");
        match self.child.wait_within(PATIENCE) {
            Ok(exit) => exit.success().err().map_or_else(
                || Error::failed(sentence.clone()),
                |error| Error::failed(&sentence).caused_by(error),
            ),
            Err(error) => Error::failed(sentence).caused_by(error),
        }
    }
}

impl Drop for FuseDisk {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            crate::sys::trouble::note(error);
        }
    }
}
