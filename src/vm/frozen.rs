//! Machines that need not start. Under emulation a kernel's start takes seconds, and it is always the same: so one machine
//! is started without disks of anybody's, stopped when it is ready, and kept. Each run then goes on from there, on a
//! private view of the kept memory, and is told at once what may not be the same twice: the time, random numbers, its disks.
//!
//! To keep one takes some seconds more than to start one, so it is done when the same machine is wanted a second time: where
//! nothing stays from one run to the next, nothing is kept.
//!
//! One file has it all, so that no two can be mixed: first the memory, which is mapped and not read, behind it the state of
//! the devices.

#![forbid(unsafe_code)]

use std::fs::File;
use std::time::Duration;

use super::cache::Key;
use super::kvm::Accelerator;
use super::monitor::Monitor;
use super::protocol::{Ready, VERSION};
use super::qemu::{self, Mode, Parts};
use super::{Machine, MachineSpec};
use crate::error::{Context, Error, ErrorKind, Result};
use crate::sys::tool::Tool;

const KIND: &str = "frozen";
const REFUSED: &str = "refused";
const WANTED: &str = "wanted";
/// How long a kept machine may take to go on: it is a fraction of a second, unless the host is very busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// The descriptors of a kept machine, both of one file.
#[derive(Debug)]
pub(super) struct Image {
    /// Its memory.
    pub(super) memory: File,
    /// Opened for the state only: for writing when it is frozen, for reading when it is thawed.
    pub(super) state: File,
}

/// A machine that goes on from where one was kept; None when that cannot be done here, or nobody has wanted it before.
///
/// # Errors
/// When a signal stopped the run, or the cache cannot be used.
pub(super) fn machine(qemu: &Tool, spec: &MachineSpec<'_>, parts: &Parts) -> Result<Option<Machine>> {
    let key = key(qemu, spec, parts);
    if spec.cache.text(REFUSED, &key).is_some() {
        return Ok(None);
    }
    if spec.cache.find(KIND, &key).is_none() {
        if spec.cache.find(WANTED, &key).is_none() {
            spec.cache.replace(WANTED, &key, b"once")?;
            return Ok(None);
        }
        match freeze(qemu, spec, parts, &key) {
            Err(error) if error.kind() == ErrorKind::Failed => {
                // Another qemu may be able to: its key is another.
                spec.cache.replace(REFUSED, &key, error.chain().as_bytes())?;
                return Ok(None);
            }
            done => done?,
        }
    }
    // Until it has its disks it has written nothing to them, so another one may be started instead.
    match thaw(qemu, spec, parts, &key).and_then(|machine| machine.wake(spec, spec.patience.min(PATIENCE))) {
        Err(error) if error.kind() == ErrorKind::Failed => {
            spec.cache.remove(KIND, &key)?;
            Ok(None)
        }
        done => done.map(Some),
    }
}

fn key(qemu: &Tool, spec: &MachineSpec<'_>, parts: &Parts) -> Key {
    let numbers = format!("{} {} {}", spec.memory, spec.processors, spec.disks.len());
    let key = Key::new().with(&numbers).with_file(qemu.path()).with_file(&parts.kernel.path);
    key.with_file(&parts.archive.path)
        .with(&qemu::fixed_options(qemu, Accelerator::Emulation, true).join(" "))
}

fn freeze(qemu: &Tool, spec: &MachineSpec<'_>, parts: &Parts, key: &Key) -> Result<()> {
    let draft = spec.cache.draft()?;
    let failed = || "cannot keep a machine";
    draft.as_file().set_len(u64::from(spec.memory) << 20).context(failed)?;
    let image = Image {
        memory: draft.as_file().try_clone().context(failed)?,
        state: File::options().write(true).open(draft.path()).context(failed)?,
    };
    let (mut machine, monitor) =
        qemu::start(qemu, spec, parts, (Accelerator::Emulation, Mode::Freeze(image)))?;
    let ready: Ready = machine.hear(spec.patience)?;
    if ready.version != VERSION {
        return Err(Error::failed("the machine is not the one that was started"));
    }
    let mut monitor = Monitor::open(monitor)?;
    monitor.execute("stop", &serde_json::Value::Null)?;
    monitor.move_state("migrate", &place(spec))?;
    monitor.execute("quit", &serde_json::Value::Null)?;
    machine.wait_for_end()?;
    spec.cache.keep_draft(draft, KIND, key)
}

fn thaw(qemu: &Tool, spec: &MachineSpec<'_>, parts: &Parts, key: &Key) -> Result<Machine> {
    let open = || spec.cache.open_kept(KIND, key);
    let image = Image { memory: open()?, state: open()? };
    let (mut machine, monitor) = qemu::start(qemu, spec, parts, (Accelerator::Emulation, Mode::Thaw(image)))?;
    let thawed = Monitor::open(monitor).and_then(|mut monitor| {
        monitor.move_state("migrate-incoming", &place(spec))?;
        monitor.execute("cont", &serde_json::Value::Null)
    });
    thawed.map_err(|error| machine.blame(error))?;
    machine.thawed = true;
    Ok(machine)
}

/// Where the state is: in the file of descriptor set 1, behind the memory.
fn place(spec: &MachineSpec<'_>) -> String {
    format!("file:/dev/fdset/{},offset={}", qemu::STATE_SET, u64::from(spec.memory) << 20)
}
