//! What qemu's programs say on their monitor (QMP): one JSON document in each line. `who` names the program in errors.

#![forbid(unsafe_code)]

use std::io::{BufRead, Read};

use serde_json::Value;

use crate::error::{Context, Error, Result};

/// The most that is read of one message, in bytes.
pub const MESSAGE_LIMIT: u64 = 1 << 20;

/// One message; None at the end.
///
/// # Errors
/// When it cannot be read, or is none.
pub fn message(monitor: &mut impl BufRead, who: &str) -> Result<Option<Value>> {
    let mut line = Vec::new();
    let mut limited = Read::take(&mut *monitor, MESSAGE_LIMIT);
    limited.read_until(b'\n', &mut line).context(|| format!("cannot hear {who}"))?;
    if line.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&line).map(Some).context(|| format!("cannot understand {who}"))
}

/// Waits for the answer to a command that was sent; events that come before it are passed over.
///
/// # Errors
/// When the command is refused, and when the program ends instead of answering.
pub fn answer(monitor: &mut impl BufRead, who: &str, command: &str) -> Result<()> {
    loop {
        match message(monitor, who)? {
            Some(answer) if answer.get("return").is_some() => return Ok(()),
            Some(answer) if answer.get("error").is_some() => {
                let why = &answer["error"]["desc"];
                return Err(Error::failed(format!("{who} refused {command}: {why}")));
            }
            Some(_) => {}
            None => return Err(Error::failed(format!("{who} ended at {command}"))),
        }
    }
}
