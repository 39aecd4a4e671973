//! libvirt, asked through virsh(1). Domains and volumes are named behind `--`, so no name is taken for an option.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use super::definition::{self, Definition};
use crate::error::{Context, Error, Result};
use crate::sys::child::{Exit, Spawn};
use crate::sys::tool::Tool;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest answer, in bytes: the definition of a machine with hundreds of devices has some hundred KiB.
const ANSWER_LIMIT: u64 = 4 << 20;
/// How long several commands may take, of which one waits for the guest, and one for what others do with it.
const LONG_PATIENCE: Duration = Duration::from_secs(180);
/// How many domains are asked for at once: the command must stay below the longest word that Linux lets a program have.
const AT_ONCE: usize = 500;
/// The longest of such answers, in bytes.
const LONG_ANSWER_LIMIT: u64 = 256 << 20;
/// What libvirt says when another domain has the name; in the C locale.
const NAME_TAKEN: &str = "already exists with uuid";
/// What virsh says when the time for an event is over; in the C locale.
const NO_EVENT: &str = "event loop timed out";

/// How to reach libvirt.
#[derive(Debug, Clone, Default)]
pub struct Libvirt {
    /// The URI; libvirt's own choice when there is none.
    pub uri: Option<String>,
    /// What virsh needs of the environment: where the user's own libvirt and its settings are.
    pub environment: Vec<(String, String)>,
}

impl Libvirt {
    /// The URI of the connection, as libvirt has it.
    ///
    /// # Errors
    /// When there is no virsh ([`crate::ErrorKind::HostLacks`]), or libvirt does not answer.
    pub fn connect(&self) -> Result<String> {
        let (exit, answer) = self.run(&["uri"], &[], PATIENCE)?;
        exit.success().map_err(|error| {
            let to = self.uri.as_ref().map_or_else(String::new, |uri| format!(" at {uri}"));
            Error::failed(format!("cannot connect to libvirt{to}"))
                .caused_by(error)
                .hint("name the connection that has the domain by -c, such as -c qemu:///system; its daemon must run")
        })?;
        Ok(answer.trim().to_owned())
    }

    /// The answer of a command about a domain.
    ///
    /// # Errors
    /// When virsh cannot be run, fails, or takes too long.
    pub fn ask(&self, command: &[&str], about: &[&str]) -> Result<String> {
        let (exit, answer) = self.run(command, about, PATIENCE)?;
        exit.success().map(|()| answer)
    }

    /// The definition that a domain has when it is started next; none when there is no such domain.
    ///
    /// # Errors
    /// As [`Libvirt::ask`].
    pub fn definition(&self, domain: &str) -> Result<Option<String>> {
        let (exit, answer) = self.run(&["dumpxml", "--inactive"], &[domain], PATIENCE)?;
        if !exit.status.success() && exit.stderr.contains("failed to get domain") {
            return Ok(None);
        }
        exit.success().map(|()| Some(answer))
    }

    /// The names of all domains.
    ///
    /// # Errors
    /// As [`Libvirt::ask`].
    pub fn names(&self) -> Result<Vec<String>> {
        let answer = self.ask(&["list", "--all", "--name"], &[])?;
        Ok(answer.lines().filter(|name| !name.is_empty()).map(str::to_owned).collect())
    }

    /// The definitions of all domains: of one that runs also the one that it runs with, which may have other disks.
    ///
    /// # Errors
    /// As [`Libvirt::ask`], and as [`definition::parse_all`].
    pub fn definitions(&self) -> Result<Vec<Definition>> {
        let answer = self.ask(&["list", "--all", "--uuid"], &[])?;
        let uuids: Vec<&str> = answer.split_whitespace().filter(|word| definition::is_uuid(word)).collect();
        let mut all = Vec::new();
        for some in uuids.chunks(AT_ONCE) {
            let commands = some.iter().map(|uuid| format!("dumpxml {uuid}; dumpxml --inactive {uuid}; "));
            let (exit, answer) =
                self.run_with(&[&commands.collect::<String>()], &[], (PATIENCE, LONG_ANSWER_LIMIT), None)?;
            // One that is gone meanwhile, or was never kept, has no such definition.
            if !exit.status.success() && !exit.stderr.contains("failed to get domain") {
                exit.success()?;
            }
            all.extend(definition::parse_all(&answer)?);
        }
        all.dedup();
        Ok(all)
    }

    /// Defines a domain, or gives one with the same name and UUID this definition.
    ///
    /// # Errors
    /// As [`Libvirt::ask`]; a usage error when another domain has the name.
    pub fn define(&self, xml: &str) -> Result<()> {
        let limits = (PATIENCE, ANSWER_LIMIT);
        let (exit, _) = self.run_with(&["define", "/dev/stdin"], &[], limits, Some(temporary(xml)?))?;
        if exit.stderr.contains(NAME_TAKEN) {
            let name = definition::name(xml)?;
            let taken = self.names()?.into_iter().filter(|other| other.starts_with(&name));
            let taken: Vec<_> = taken.take(10).collect();
            return Err(Error::usage(format!("another domain has the name {name}"))
                .hint(format!("choose another name; taken are: {}", taken.join(", "))));
        }
        exit.success()
    }

    /// Takes a domain's definition away, with its NVRAM and what libvirt saved of it; its disks stay.
    ///
    /// # Errors
    /// As [`Libvirt::ask`].
    pub fn undefine(&self, uuid: &str) -> Result<()> {
        let Some(xml) = self.definition(uuid)? else { return Ok(()) };
        // Drivers without firmware refuse even to be told.
        let nvram = definition::has_nvram(&xml)?.then_some("--nvram");
        let words = ["undefine", "--managed-save"].into_iter().chain(nvram);
        self.ask(&words.collect::<Vec<_>>(), &[uuid]).map(drop)
    }

    /// Starts a domain.
    ///
    /// # Errors
    /// As [`Libvirt::ask`].
    pub fn start(&self, uuid: &str) -> Result<()> {
        self.ask(&["start"], &[uuid]).map(drop)
    }

    /// Where a volume of a pool is.
    ///
    /// # Errors
    /// As [`Libvirt::ask`].
    pub fn volume(&self, pool: &str, volume: &str) -> Result<PathBuf> {
        // One word, so that a pool's name is no option either.
        let answer = self.ask(&["vol-path", &format!("--pool={pool}")], &[volume]).map_err(|error| {
            Error::failed(format!("cannot find the volume {volume} of the pool {pool}"))
                .caused_by(error)
                .hint(format!("the pool must be started: virsh pool-start {pool}"))
        })?;
        Ok(answer.trim_end_matches('\n').into())
    }

    /// Runs several commands in one process, the first of which gets a text by its standard input; what it prints and what it
    /// complains about. It goes on to its end when this process is killed, and is not stopped by signals that stop the run.
    ///
    /// # Errors
    /// When virsh cannot be run, or takes too long.
    pub(super) fn all_of(&self, commands: &str, input: &str) -> Result<(String, String)> {
        let input = Some(temporary(input)?);
        // Not quiet: what it did is told by lines that it leaves out then.
        let virsh = self.words(Tool::find("virsh")?.spawn()).arg(commands).on_a_leash();
        let mut child =
            virsh.stdin(input.map_or_else(Stdio::null, Stdio::from)).stdout(Stdio::piped()).spawn()?;
        child.let_go()?;
        let pipe = child.take_stdout();
        let exit = child.wait_within(LONG_PATIENCE)?;
        let mut said = String::new();
        if let Some(pipe) = pipe {
            pipe.take(ANSWER_LIMIT).read_to_string(&mut said).context(|| "cannot read what virsh prints")?;
        }
        Ok((said, exit.stderr))
    }

    /// Waits until an event of this kind comes from the domain with this UUID; false when none does within `patience`.
    ///
    /// # Errors
    /// As [`Libvirt::ask`]; also when this libvirt does not tell of events.
    pub fn event(&self, uuid: &str, kind: &str, patience: Duration) -> Result<bool> {
        let seconds = patience.as_secs().max(1).to_string();
        let words = ["event", "--domain", uuid, "--event", kind, "--timeout", &seconds];
        let (exit, answer) = self.run(&words, &[], patience + PATIENCE)?;
        if exit.status.success() {
            return Ok(true);
        }
        if answer.contains(NO_EVENT) || exit.stderr.contains(NO_EVENT) {
            return Ok(false);
        }
        exit.success().map(|()| true)
    }

    fn run(&self, command: &[&str], about: &[&str], patience: Duration) -> Result<(Exit, String)> {
        self.run_with(command, about, (patience, ANSWER_LIMIT), None)
    }

    fn run_with(
        &self,
        command: &[&str],
        about: &[&str],
        (patience, limit): (Duration, u64),
        input: Option<File>,
    ) -> Result<(Exit, String)> {
        let virsh = self.words(Tool::find("virsh")?.spawn().within(patience)).arg("-q");
        let words = virsh.args(command).args((!about.is_empty()).then_some("--")).args(about);
        let (exit, answer) = words.stdin(input.map_or_else(Stdio::null, Stdio::from)).output(limit)?;
        let answer = String::from_utf8(answer).map_err(|_| Error::failed("virsh prints no UTF-8"))?;
        Ok((exit, answer))
    }

    /// What each run of virsh is told.
    fn words(&self, virsh: Spawn) -> Spawn {
        let with = |virsh: Spawn, (name, value): &(String, String)| virsh.env(name, value);
        let virsh = self.environment.iter().fold(virsh, with);
        match &self.uri {
            Some(uri) => virsh.arg("-c").arg(uri),
            None => virsh,
        }
    }
}

/// A text in a file without a name, for us alone: other users see neither it nor the words of the command.
fn temporary(text: &str) -> Result<File> {
    let mut file = tempfile::tempfile().context(|| "cannot make a temporary file")?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.rewind());
    written.context(|| "cannot write a temporary file")?;
    Ok(file)
}
