//! Programs that use an image: guests of a real qemu, its other programs, and runs of guestseal that are held still.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::json;

use crate::common::{GUESTSEAL, command};
use crate::stage::Stage;

const QUIT: &[u8] = b"{\"execute\":\"quit\"}\n";

/// A program of qemu that has an image open. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Holder {
    child: Child,
    last_words: &'static [u8],
    /// The one client of qemu-nbd.
    client: Option<UnixStream>,
}

impl Holder {
    /// A guest without firmware, paused before its first instruction; what qemu said when it could not open the image.
    pub(crate) fn guest(stage: &Stage, format: &str, drive: &str, device: &str) -> Result<Self, String> {
        let mut qemu = limited("qemu-system-x86_64");
        qemu.args(["-M", "microvm,x-option-roms=off", "-accel", "tcg", "-m", "32", "-S", "-nodefaults"]);
        qemu.args(["-nographic", "-qmp", "stdio", "-drive"]);
        qemu.arg(format!("if=none,id=d,format={format},file={}{drive}", stage.image.display()));
        qemu.args(["-device", &format!("virtio-blk-device,drive=d{device}")]);
        // The devices are there before the monitor answers.
        Self::start(qemu, b"{\"execute\":\"qmp_capabilities\"}\n", "\"return\"", QUIT)
    }

    /// qemu-storage-daemon with an NBD export of the image.
    pub(crate) fn daemon(stage: &Stage, format: &str, writable: bool) -> Self {
        let node = json!({
            "driver": format, "node-name": "n", "read-only": !writable,
            "file": { "driver": "file", "filename": stage.image, "read-only": !writable },
        });
        let socket = stage.path("daemon.socket");
        let mut daemon = limited("qemu-storage-daemon");
        daemon.args(["--blockdev", &node.to_string(), "--nbd-server"]);
        daemon.arg(format!("addr.type=unix,addr.path={}", socket.display()));
        daemon
            .arg("--export")
            .arg(json!({ "type": "nbd", "id": "e", "node-name": "n", "writable": writable }).to_string());
        daemon.args(["--chardev", "stdio,id=m", "--monitor", "chardev=m"]);
        Self::start(daemon, b"{\"execute\":\"qmp_capabilities\"}\n", "\"return\"", QUIT).unwrap()
    }

    /// qemu-nbd with one client.
    pub(crate) fn nbd(stage: &Stage, format: &str, options: &[&str]) -> Self {
        let socket = stage.path("nbd.socket");
        let mut server = limited("qemu-nbd");
        let child =
            server.args(options).args(["-f", format, "-k"]).arg(&socket).arg(&stage.image).spawn().unwrap();
        let mut client = loop {
            match UnixStream::connect(&socket) {
                Ok(client) => break client,
                Err(_) => std::thread::yield_now(),
            }
        };
        let mut greeting = [0; 8];
        client.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"NBDMAGIC");
        Self { child, last_words: b"", client: Some(client) }
    }

    /// qemu-io after one command on 512 bytes. It takes no second line that comes with the first.
    pub(crate) fn io(stage: &Stage, format: &str, options: &[&str], first: &str) -> Self {
        let mut io = limited("qemu-io");
        io.args(options).args(["-f", format]).arg(&stage.image);
        // Its answer comes after the image is open.
        Self::start(io, format!("{first}\n").as_bytes(), " 512/512 bytes", b"quit\n").unwrap()
    }

    fn start(
        mut program: Command,
        first: &[u8],
        sign: &str,
        last_words: &'static [u8],
    ) -> Result<Self, String> {
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = program.spawn().unwrap();
        // One that ended at once does not read.
        let _ = child.stdin.as_mut().unwrap().write_all(first);
        let mut output = BufReader::with_capacity(1, child.stdout.as_mut().unwrap());
        let mut said = String::new();
        while !said.contains(sign) {
            if output.read_line(&mut said).unwrap() == 0 {
                let ended = child.wait_with_output().unwrap();
                return Err(String::from_utf8_lossy(&ended.stderr).into_owned());
            }
        }
        Ok(Self { child, last_words, client: None })
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if self.client.take().is_some() {
            // A client that has not negotiated does not end qemu-nbd; `timeout` passes the signal on.
            let _ = kill(Pid::from_raw(self.child.id().try_into().unwrap()), Signal::SIGTERM);
        }
        if let Some(mut input) = self.child.stdin.take() {
            let _ = input.write_all(self.last_words);
        }
        let _ = self.child.wait();
    }
}

/// The program with a time limit.
fn limited(program: &str) -> Command {
    let mut limited = command("timeout");
    limited.args(["--kill-after=5", "240", program]);
    limited
}

/// A run of guestseal that stands still at a fault point, until it is told to go on.
#[derive(Debug)]
pub(crate) struct Stopped(Child);

impl Stopped {
    pub(crate) fn at(stage: &Stage, point: &str, words: &str) -> Self {
        let mut run = command(GUESTSEAL);
        run.env("GUESTSEAL_FAULT", format!("{point}=stop")).args(words.split_whitespace()).arg(&stage.image);
        let run = Self(run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
        let state = waitpid(run.pid(), Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert!(matches!(state, WaitStatus::Stopped(..)), "it did not reach {point}: {state:?}");
        run
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().try_into().unwrap())
    }

    /// Lets it run to its end; its exit code and what it complained of.
    pub(crate) fn go_on(self) -> (i32, String) {
        kill(self.pid(), Signal::SIGCONT).unwrap();
        let ended = self.0.wait_with_output().unwrap();
        (ended.status.code().unwrap_or(-1), String::from_utf8_lossy(&ended.stderr).into_owned())
    }
}
