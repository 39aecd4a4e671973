//! qemu's command line. The machine has no network, no display, and no file of the host: what it needs is opened here and
//! handed over, so that qemu runs as a user who owns nothing, and filtered by its own sandbox.

#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::Value;

use super::kvm::{Accelerator, DEVICE};
use super::{Machine, MachineSpec, init, protocol};
use crate::attach::ImageSpec;
use crate::error::{Context, Error, Result};
use crate::sys::child::Spawn;
use crate::sys::tool::Tool;
use crate::sys::unprivileged;

/// The first descriptor that a child inherits.
const FIRST: usize = 3;
/// As many as there are slots for, with room for other devices.
const DISKS: usize = 24;
/// A firmware that only starts a kernel; qemu finds it by its name.
const QBOOT: &str = "qboot.rom";
const QBOOT_PLACES: [&str; 2] = ["/usr/share/qemu/qboot.rom", "/usr/share/qboot/qboot.rom"];
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";
/// What takes time in a kernel's start and is of no use here: tests of its own algorithms, tracing, keys for modules that
/// others signed, a network. A kernel that lacks one of these functions passes its name over.
const SKIPPED: &str =
    "initcall_blacklist=cubictcp_register,crypto_kdf108_init,load_system_certificate_list,init_kprobe_trace";
const KERNEL_OPTIONS: &str = "console=ttyS0 quiet panic=-1 cryptomgr.notests tsc=reliable no_timer_check mitigations=off random.trust_cpu=on";

/// What a machine starts from.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) kernel: File,
    pub(super) archive: File,
}

/// The program that runs machines.
pub(super) fn find() -> Result<Tool> {
    if !cfg!(target_arch = "x86_64") {
        return Err(Error::host_lacks("guestseal's virtual machine runs on x86-64 hosts only"));
    }
    // RHEL has it under this name only, out of everybody's way.
    Tool::find("qemu-system-x86_64").or_else(|error| Tool::find("qemu-kvm").map_err(|_| error))
}

/// The kind of machine: the one that starts fastest; RHEL's qemu has another one only.
pub(super) fn machine(qemu: &Tool) -> &'static str {
    if qemu.path().ends_with("qemu-kvm") { "q35" } else { "pc" }
}

/// Starts the machine.
pub(super) fn start(
    qemu: &Tool,
    spec: &MachineSpec<'_>,
    parts: &Parts,
    accelerator: Accelerator,
) -> Result<Machine> {
    let ((channel, their_channel), (console, their_console)) = (socket()?, socket()?);
    let mut files = Files::default();
    let mut spawn = qemu.spawn().args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
    spawn = spawn.args(["-sandbox", SANDBOX, "-machine", machine(qemu), "-accel", accelerator.options()]);
    let processor = if accelerator == Accelerator::Kvm { "host" } else { "max" };
    spawn = spawn.args(["-cpu", processor, "-smp", &spec.processors.to_string()]);
    spawn = spawn.args(["-m", &spec.memory.to_string()]);
    if QBOOT_PLACES.iter().any(|place| Path::new(place).is_file()) {
        spawn = spawn.args(["-bios", QBOOT]);
    }
    let words = format!("{KERNEL_OPTIONS} {SKIPPED} {}", init::command_line(spec.disks.len(), spec.words));
    spawn =
        spawn.args(["-kernel", &files.by_path(&parts.kernel)?, "-initrd", &files.by_path(&parts.archive)?]);
    spawn = spawn.args(["-append", &words]);
    for (id, socket) in [("console", their_console), ("channel", their_channel)] {
        let fd = files.add(socket);
        spawn = spawn.args(["-chardev", &format!("socket,id={id},fd={fd}")]);
    }
    spawn = spawn.args(["-serial", "chardev:console", "-device", "virtio-serial-pci"]);
    spawn = spawn.args(["-device", &format!("virtserialport,chardev=channel,name={}", protocol::PORT)]);
    for (number, disk) in spec.disks.iter().enumerate() {
        spawn = add_disk(spawn, number, disk, &mut files)?;
    }
    let spawn = files.0.into_iter().fold(spawn, Spawn::inherit);
    let child = spawn.as_user(unprivileged::user(Path::new(DEVICE))).spawn()?;
    Ok(Machine::new(child, channel, console, accelerator))
}

/// A pair of connected sockets: ours, which never blocks, and the machine's.
fn socket() -> Result<(UnixStream, UnixStream)> {
    let failed = || "cannot make a channel to the virtual machine";
    let (ours, theirs) = UnixStream::pair().context(failed)?;
    ours.set_nonblocking(true).context(failed)?;
    Ok((ours, theirs))
}

fn add_disk(spawn: Spawn, number: usize, disk: &ImageSpec, files: &mut Files) -> Result<Spawn> {
    if number == DISKS {
        return Err(Error::unsupported(format!("a virtual machine takes {DISKS} disks at most")));
    }
    let (name, mut layers) = (protocol::serial(number), disk.layers.clone());
    let mut sets = Vec::new();
    hand_over(&mut layers, files, &mut sets)?;
    layers["node-name"] = name.clone().into();
    layers["read-only"] = disk.read_only.into();
    let sets = sets.iter().flat_map(|set| ["-add-fd".to_owned(), set.clone()]);
    let device = format!("virtio-blk-pci,drive={name},serial={name},discard=on,write-zeroes=on");
    Ok(spawn.args(sets).args(["-blockdev", &layers.to_string(), "-device", &device]))
}

/// What is handed over to qemu, in the order of its descriptors.
#[derive(Debug, Default)]
struct Files(Vec<OwnedFd>);

impl Files {
    fn add(&mut self, file: impl Into<OwnedFd>) -> usize {
        self.0.push(file.into());
        FIRST + self.0.len() - 1
    }

    /// The name by which qemu opens it again.
    fn by_path(&mut self, file: &File) -> Result<String> {
        let file = file.try_clone().context(|| "cannot hand a file over")?;
        Ok(format!("/proc/self/fd/{}", self.add(file)))
    }
}

/// Opens each file of a node tree and puts the name of its descriptor set in place of its own. Each is opened anew: an open
/// file that was shared would share its locks, and qemu gives back what guestseal holds.
fn hand_over(node: &mut Value, files: &mut Files, sets: &mut Vec<String>) -> Result<()> {
    let Some(fields) = node.as_object_mut() else { return Ok(()) };
    if let Some(name) = fields.get("filename").and_then(Value::as_str).map(str::to_owned) {
        let read_only = fields.get("read-only").and_then(Value::as_bool).unwrap_or(false);
        let file = File::options().read(true).write(!read_only).open(&name);
        let fd = files.add(file.context(|| format!("cannot open {name}"))?);
        sets.push(format!("fd={fd},set={fd}"));
        fields.insert("filename".into(), format!("/dev/fdset/{fd}").into());
    }
    fields.values_mut().try_for_each(|value| hand_over(value, files, sets))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use serde_json::json;

    use super::*;

    #[test]
    fn every_file_of_a_tree_is_opened_as_it_is_used() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"content").unwrap();
        let mut tree = json!({
            "driver": "qcow2", "file": { "driver": "file", "filename": file.path() },
            "backing": { "driver": "raw", "file": { "driver": "file", "filename": file.path(), "read-only": true } },
        });
        let (mut files, mut sets) = (Files::default(), Vec::new());
        hand_over(&mut tree, &mut files, &mut sets).unwrap();
        // Fields come in their order.
        assert_eq!(sets, ["fd=3,set=3", "fd=4,set=4"]);
        assert_eq!(tree["file"]["filename"], "/dev/fdset/3");
        assert_eq!(tree["backing"]["file"]["filename"], "/dev/fdset/4");
        let mut files = files.0.into_iter().map(File::from);
        let (mut written, mut read) = (files.next().unwrap(), files.next().unwrap());
        written.write_all(b"changed").unwrap();
        assert!(read.write_all(b"x").is_err());
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "changed");
        let missing =
            hand_over(&mut json!({ "filename": "/no/such/image" }), &mut Files::default(), &mut sets);
        assert!(missing.unwrap_err().chain().contains("cannot open /no/such/image"));
    }
}
