//! qemu's command line. The machine has no display, no file of the host, and no network unless one was asked for: what it needs is opened here and
//! handed over, so that qemu runs as a user who owns nothing, and filtered by its own sandbox.

#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

use super::cache::Kept;
use super::frozen::Image;
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
/// others signed, one of TCP's ways of sending. A kernel that lacks one of these functions passes its name over.
const SKIPPED: &str =
    "initcall_blacklist=cubictcp_register,crypto_kdf108_init,load_system_certificate_list,init_kprobe_trace";
const KERNEL_OPTIONS: &str = "console=ttyS0 quiet panic=-1 cryptomgr.notests tsc=reliable no_timer_check mitigations=off random.trust_cpu=on";

/// The descriptor set of a kept machine's state.
pub(super) const STATE_SET: usize = 1000;

/// What a machine starts from.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) kernel: Kept,
    pub(super) archive: Kept,
}

/// How a machine is started.
#[derive(Debug)]
pub(super) enum Mode {
    /// To be used at once.
    Boot,
    /// To be kept: without anybody's disks, its memory in a file.
    Freeze(Image),
    /// From what was kept.
    Thaw(Image),
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

/// The options that are the same for every machine.
pub(super) fn fixed_options(qemu: &Tool, accelerator: Accelerator, all_modules: bool) -> Vec<String> {
    let processor = if accelerator == Accelerator::Kvm { "host" } else { "max" };
    let mut options =
        vec!["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-sandbox", SANDBOX];
    options.extend(["-accel", accelerator.options(), "-cpu", processor]);
    if QBOOT_PLACES.iter().any(|place| Path::new(place).is_file()) {
        options.extend(["-bios", QBOOT]);
    }
    let mut options: Vec<String> = options.into_iter().map(str::to_owned).collect();
    let words = format!("{KERNEL_OPTIONS} {SKIPPED} {}", init::command_line(all_modules));
    options.extend(["-machine".into(), machine(qemu).into(), "-append".into(), words]);
    options
}

/// Starts the machine; returns it with the socket of qemu's monitor.
pub(super) fn start(
    qemu: &Tool,
    spec: &MachineSpec<'_>,
    parts: &Parts,
    (accelerator, mode): (Accelerator, Mode),
) -> Result<(Machine, UnixStream)> {
    let mut files = Files::default();
    let all_modules = !matches!(mode, Mode::Boot);
    let mut spawn = qemu.spawn().args(fixed_options(qemu, accelerator, all_modules));
    spawn = spawn.args(["-smp", &spec.processors.to_string(), "-m", &spec.memory.to_string()]);
    let (kernel, archive) = (files.by_path(&parts.kernel.file)?, files.by_path(&parts.archive.file)?);
    spawn = spawn.args(["-kernel", &kernel, "-initrd", &archive]);
    let [console, channel, monitor] = [socket()?, socket()?, socket()?];
    for (id, (_, theirs)) in [("console", &console), ("channel", &channel), ("monitor", &monitor)] {
        let fd = files.add(theirs.try_clone().context(|| "cannot hand a socket over")?);
        spawn = spawn.args(["-chardev", &format!("socket,id={id},fd={fd}")]);
    }
    spawn = spawn.args(["-mon", "chardev=monitor,mode=control"]);
    spawn = spawn.args(["-serial", "chardev:console", "-device", "virtio-serial-pci"]);
    spawn = spawn.args(["-device", &format!("virtserialport,chardev=channel,name={}", protocol::PORT)]);
    for (number, disk) in spec.disks.iter().enumerate() {
        spawn = match mode {
            Mode::Freeze(_) => add_disk(spawn, number, &nobodys(), &mut files)?,
            Mode::Boot | Mode::Thaw(_) => add_disk(spawn, number, disk, &mut files)?,
        };
    }
    if spec.network {
        // Its own stack in this process: connections are this user's, and nothing comes in.
        spawn = spawn.args(["-netdev", "user,id=network,ipv6=off"]);
        spawn = spawn.args(["-device", "virtio-net-pci,netdev=network,romfile="]);
    }
    let spawn = mode.add_memory(spawn, spec.memory, &mut files)?;
    let spawn = files.0.into_iter().fold(spawn, Spawn::inherit);
    let child = spawn.as_user(unprivileged::user(Path::new(DEVICE))).spawn()?;
    Ok((Machine::new(child, channel.0, console.0, accelerator), monitor.0))
}

impl Mode {
    fn add_memory(self, spawn: Spawn, megabytes: u32, files: &mut Files) -> Result<Spawn> {
        // What is kept is written through to the file; what goes on from it has a view of its own.
        let (image, sharing) = match self {
            Self::Boot => return Ok(spawn),
            Self::Freeze(image) => (image, "share=on"),
            Self::Thaw(image) => (image, "share=off,readonly=on,rom=off"),
        };
        let is_thawed = sharing != "share=on";
        let (memory, state) = (files.by_path(&image.memory)?, files.add(image.state));
        let memory = format!("memory-backend-file,id=ram,size={megabytes}M,mem-path={memory},{sharing}");
        let spawn = spawn.args(["-machine", "memory-backend=ram", "-object", &memory]);
        let spawn = spawn.args(["-add-fd", &format!("fd={state},set={STATE_SET}")]);
        Ok(if is_thawed { spawn.args(["-incoming", "defer"]) } else { spawn })
    }
}

/// The disk of a machine that is kept: nothing of it is ever read.
fn nobodys() -> ImageSpec {
    ImageSpec {
        layers: json!({ "driver": "null-co", "size": 1 << 20, "read-zeroes": true }),
        read_only: false,
        files: None,
    }
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
