//! Work for the tests of the machine itself: small jobs, and all that a machine must not do.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::init::Inside;
use crate::error::{Context, Result};
use crate::sys::tool::Tool;
use crate::worker::protocol::{Broken, read_message, write_message};

/// The word on the command line for which this work is done.
pub const WORD: &str = "trial";

/// What the host asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// Say this back.
    Echo(String),
    /// The first 16 bytes of this disk, in hexadecimal.
    Look(usize),
    /// Write this byte over the first 4096 of this disk, and flush it.
    Fill(usize, u8),
    /// Load these modules.
    Load(Vec<String>),
    /// What this program prints.
    Run(String, Vec<String>),
    /// What is in this file.
    Read(String),
    /// What time it is, in milliseconds since 1970.
    Time,
    /// Say something that is no message, for ever.
    Flood,
    /// The same on the console, and never answer.
    FloodConsole,
    /// End without powering off.
    Die,
}

/// What the machine answers: how it went, in words.
pub type Answer = Result<String, String>;

/// Does what the host asks until it closes the channel.
///
/// # Errors
/// When the host does not make itself understood.
pub fn serve(mut inside: Inside) -> Result<()> {
    loop {
        let ask = match read_message(&mut inside.channel) {
            Ok(ask) => ask,
            Err(Broken::Ended) => return Ok(()),
            Err(broken) => return Err(broken).context(|| "the host is not understood"),
        };
        let answer: Answer = answer(&inside, ask).map_err(|error| error.chain());
        write_message(&mut inside.channel, &answer)?;
    }
}

fn answer(inside: &Inside, ask: Ask) -> Result<String> {
    match ask {
        Ask::Echo(text) => Ok(text),
        Ask::Look(disk) => look(&inside.disks[disk].path),
        Ask::Fill(disk, byte) => fill(&inside.disks[disk].path, byte),
        Ask::Load(names) => {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            inside.modules.load(&names).map(|()| String::new())
        }
        Ask::Run(program, arguments) => run(&program, &arguments),
        Ask::Read(path) => fs::read_to_string(path).context(|| "cannot read it"),
        Ask::Time => Ok(jiff::Timestamp::now().as_millisecond().to_string()),
        Ask::Flood => loop {
            let _ = (&inside.channel).write_all(&[0xff; 4096]);
        },
        Ask::FloodConsole => loop {
            let _ = fs::write("/dev/console", "\x1b[31mflood\r\n".repeat(100));
        },
        #[expect(clippy::panic, reason = "the end of the first process is the kernel's panic")]
        Ask::Die => panic!("dies as it was told"),
    }
}

fn look(path: &Path) -> Result<String> {
    let mut bytes = [0; 16];
    let read = File::open(path).and_then(|mut disk| disk.read_exact(&mut bytes));
    read.context(|| "cannot read the disk")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn fill(path: &Path, byte: u8) -> Result<String> {
    let write = |mut disk: File| disk.write_all(&[byte; 4096]).and_then(|()| disk.sync_all());
    let written = File::options().write(true).open(path).and_then(write);
    written.context(|| "cannot write to the disk").map(|()| String::new())
}

fn run(program: &str, arguments: &[String]) -> Result<String> {
    let (exit, bytes) =
        Tool::find(program)?.spawn().env("DM_DISABLE_UDEV", "1").args(arguments).output(1 << 16)?;
    exit.success()?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
