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
use crate::sys::child::Child;
use crate::sys::interrupt;
use crate::sys::qmp;
use crate::sys::tool::Tool;
use crate::sys::wait::is_hung_up;

/// How long the daemon may take to write what it holds and end, once told to.
const PATIENCE: Duration = Duration::from_secs(600);
const WHO: &str = "the export daemon";

/// An image that a daemon of this run shows as a raw file.
#[derive(Debug)]
pub struct FuseDisk {
    file: PathBuf,
    read_only: bool,
    daemon: Option<Daemon>,
}

#[derive(Debug)]
struct Daemon {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl FuseDisk {
    /// Starts the daemon and waits until the export is there. Its greeting on the monitor is that event: options are
    /// carried out in order, and the monitor comes after the export.
    ///
    /// # Errors
    /// When the daemon is missing, cannot open the image, or the kernel has no FUSE.
    pub fn attach(spec: &ImageSpec, folder: &Path) -> Result<Self> {
        let tool = Tool::find("qemu-storage-daemon")?;
        if !Path::new("/dev/fuse").exists() {
            return Err(Error::host_lacks("this host has no /dev/fuse")
                .hint("load the module `fuse`, or use --attach nbd"));
        }
        let file = folder.join("disk");
        fs::write(&file, b"").context(|| format!("cannot make {}", file.display()))?;
        let mut layers = spec.layers.clone();
        layers["node-name"] = "disk".into();
        let export = json!({
            "type": "fuse", "id": "disk", "node-name": "disk", "mountpoint": file,
            "writable": !spec.read_only, "allow-other": "off",
        });
        let mut child = tool
            .spawn()
            .args(["--blockdev", &layers.to_string(), "--export", &export.to_string()])
            .args(["--chardev", "stdio,id=monitor", "--monitor", "chardev=monitor"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (input, output) = (child.take_stdin(), child.take_stdout());
        let (Some(input), Some(output)) = (input, output) else {
            return Err(Error::failed("the export daemon has no monitor"));
        };
        interrupt::until_readable(output.as_fd())?;
        let mut daemon = Daemon { child, input, output: BufReader::new(output) };
        match qmp::message(&mut daemon.output, WHO)? {
            Some(greeting) if greeting.get("QMP").is_some() => {
                Ok(Self { file, read_only: spec.read_only, daemon: Some(daemon) })
            }
            _ => Err(daemon
                .died("cannot show the image as a file")
                .hint("the image itself may be damaged: qemu-img check IMAGE tells more")),
        }
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
        let Some(daemon) = &self.daemon else { return Ok(()) };
        let cut = is_hung_up(daemon.output.get_ref().as_fd()).context(|| "cannot watch the export daemon")?;
        // A dying daemon gives up its export, then its pipe, and then it has ended.
        let patience = if cut { LAST_MOMENTS } else { Duration::from_millis(100) };
        let exit = daemon.child.exit_within(patience)?;
        exit.map_or(Ok(()), |exit| Err(server_lost("qemu-storage-daemon", Ok(exit))))
    }

    /// Tells the daemon to end, which writes everything to the image, and waits for that. Nothing may use the file.
    ///
    /// # Errors
    /// When the daemon is dead, reports an error, or ends badly: then the image is not whole.
    pub fn close(mut self) -> Result<()> {
        self.stop()
    }

    fn stop(&mut self) -> Result<()> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        for command in ["qmp_capabilities", "quit"] {
            if let Err(error) = daemon.execute(command) {
                return Err(daemon.died("was gone before it could be told to end").and_also(error));
            }
        }
        let mut rest = Vec::new();
        daemon
            .output
            .take(qmp::MESSAGE_LIMIT)
            .read_to_end(&mut rest)
            .context(|| "cannot read the export daemon's last words")?;
        drop(daemon.input);
        let exit = daemon.child.wait_within(PATIENCE)?;
        if self.read_only { exit.success() } else { judge_end(exit) }
    }
}

impl Daemon {
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
