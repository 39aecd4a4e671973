//! qemu's monitor (QMP), for the moments in which a machine is frozen or thawed.

#![forbid(unsafe_code)]

use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::error::{Context, Error, Result};
use crate::sys::qmp;

/// How long one step may take: writing or reading a megabyte, on a busy host.
const PATIENCE: Duration = Duration::from_secs(30);
const WHO: &str = "qemu";

/// A conversation with qemu itself.
#[derive(Debug)]
pub(super) struct Monitor {
    socket: BufReader<UnixStream>,
}

impl Monitor {
    /// Waits for the greeting and begins.
    pub(super) fn open(socket: UnixStream) -> Result<Self> {
        let failed = || "cannot speak with qemu";
        socket.set_nonblocking(false).context(failed)?;
        socket.set_read_timeout(Some(PATIENCE)).context(failed)?;
        socket.set_write_timeout(Some(PATIENCE)).context(failed)?;
        let mut monitor = Self { socket: BufReader::new(socket) };
        if monitor.line()?.get("QMP").is_none() {
            return Err(Error::failed("qemu's monitor does not greet"));
        }
        monitor.execute("qmp_capabilities", &Value::Null)?;
        let capabilities =
            ["x-ignore-shared", "events"].map(|name| json!({ "capability": name, "state": true }));
        monitor.execute("migrate-set-capabilities", &json!({ "capabilities": capabilities }))?;
        Ok(monitor)
    }

    /// Has qemu do something.
    pub(super) fn execute(&mut self, command: &str, arguments: &Value) -> Result<()> {
        self.send(command, arguments)?;
        qmp::answer(&mut self.socket, WHO, command)
    }

    /// Has qemu write or read a machine's state, and waits until that is done.
    pub(super) fn move_state(&mut self, command: &str, place: &str) -> Result<()> {
        self.execute(command, &json!({ "uri": place }))?;
        loop {
            let event = self.line()?;
            if event["event"] == "MIGRATION" {
                match event["data"]["status"].as_str() {
                    Some("completed") => return Ok(()),
                    Some("failed" | "cancelled") => {
                        return Err(Error::failed(format!("qemu could not finish {command}")));
                    }
                    _ => {}
                }
            }
        }
    }

    fn send(&mut self, command: &str, arguments: &Value) -> Result<()> {
        let mut message = json!({ "execute": command });
        if !arguments.is_null() {
            message["arguments"] = arguments.clone();
        }
        let socket = self.socket.get_mut();
        writeln!(socket, "{message}").context(|| format!("cannot send {command} to qemu"))
    }

    fn line(&mut self) -> Result<Value> {
        let message = qmp::message(&mut self.socket, WHO)?;
        message.ok_or_else(|| Error::failed("qemu has closed its monitor"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_waited_for_and_refusals_told() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let said = [
            r#"{"QMP": {}}"#,
            r#"{"return": {}}"#,
            r#"{"return": {}}"#,
            r#"{"event": "STOP"}"#,
            r#"{"return": {}}"#,
            r#"{"event": "MIGRATION", "data": {"status": "active"}}"#,
            r#"{"event": "MIGRATION", "data": {"status": "completed"}}"#,
            r#"{"error": {"class": "GenericError", "desc": "no"}}"#,
        ];
        theirs.write_all((said.join("\n") + "\n").as_bytes()).unwrap();
        let mut monitor = Monitor::open(ours).unwrap();
        monitor.move_state("migrate", "file:x").unwrap();
        let error = monitor.execute("cont", &Value::Null).unwrap_err();
        assert_eq!(error.chain(), "qemu refused cont: \"no\"");
        drop(theirs);
        assert!(monitor.execute("cont", &Value::Null).is_err());
    }
}
