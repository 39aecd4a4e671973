//! Inside the machine: guestseal as its first process. It mounts what a kernel shows of itself, loads drivers, finds the
//! channel and says that it is ready. Here it may be frozen, and thawed many times. Woken, it finds its disks, says hello,
//! does its work, and powers off.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use nix::unistd::{chdir, chroot};

use super::initramfs::{BASE, DISK_DRIVER, MODULES, NETWORK_DRIVER};
use super::modules::{Modules, Resolved};
use super::protocol::{Hello, PORT, Ready, VERSION, Wake, serial};
use crate::error::{Context, Error, Result};
use crate::sys::interface;
use crate::sys::ioctl::renew_random_numbers;
use crate::sys::uevent::Uevents;
use crate::worker::protocol::{read_message, write_message};

/// The one argument of the machine's first process.
pub const ARGUMENT: &str = "--guestseal-machine";
/// The name by which the kernel calls guestseal when it wants a module.
pub const MODPROBE: &str = "/sbin/modprobe";
/// On the kernel's command line, so that no other machine is taken for ours.
const MARK: &str = "guestseal.machine";
/// On the kernel's command line: load all modules, for a machine that will be kept.
const ALL_MODULES: &str = "guestseal.all-modules";
/// The host's word for a machine with a network.
pub(super) const NETWORK: &str = "network";
/// How long drivers may take to show their devices.
const PATIENCE: Duration = Duration::from_secs(30);

/// A disk of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its device node.
    pub path: PathBuf,
    /// Its length in bytes.
    pub bytes: u64,
    /// Whether it can only be read.
    pub read_only: bool,
}

/// What the work inside the machine has.
#[derive(Debug)]
pub struct Inside {
    /// The channel to the host. It reads as ended when the host has closed it.
    pub channel: File,
    /// The disks in the host's order.
    pub disks: Vec<Disk>,
    /// The modules that came with the machine.
    pub modules: Loader,
    words: Vec<String>,
}

impl Inside {
    /// Whether the host gave this word.
    pub fn has_word(&self, word: &str) -> bool {
        self.words.iter().any(|other| other == word)
    }
}

/// Loads modules.
#[derive(Debug)]
pub struct Loader {
    modules: Modules,
}

impl Loader {
    fn read() -> Result<Self> {
        let read = |name: &str| {
            let path = Path::new(MODULES).join(name);
            fs::read_to_string(&path).context(|| format!("cannot read {}", path.display()))
        };
        let (dependencies, builtin, aliases) =
            (read("modules.dep")?, read("modules.builtin")?, read("modules.alias")?);
        Ok(Self { modules: Modules::parse(&dependencies, &builtin, &aliases) })
    }

    /// Loads all that there are, but for the driver of the disks: those of a kept machine come later. What this kernel or
    /// processor refuses is told when it is wanted.
    fn load_all(&self) {
        for name in self.modules.names().filter(|name| *name != DISK_DRIVER) {
            let _ = self.load(&[name]);
        }
    }

    /// Loads these modules, by name or alias, and those that they need. What is loaded already stays.
    ///
    /// # Errors
    /// When one did not come with the machine, or the kernel refuses it.
    pub fn load(&self, names: &[&str]) -> Result<()> {
        let Resolved { files, unknown } = self.modules.resolve(names.iter().copied());
        for file in files {
            let path = Path::new(MODULES).join(&file);
            let failed = || format!("cannot load the kernel module {file}");
            let opened = File::open(&path).context(failed)?;
            match finit_module(&opened, c"", ModuleInitFlags::empty()) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno).context(failed),
            }
        }
        if unknown.is_empty() {
            return Ok(());
        }
        Err(Error::host_lacks(format!("the machine's kernel has no module {}", unknown.join(", ")))
            .hint("name another kernel with --kernel, such as that of Debian's linux-image-amd64"))
    }
}

/// The words on the kernel's command line by which init knows its machine.
pub(super) fn command_line(all_modules: bool) -> String {
    let all = if all_modules { ALL_MODULES } else { "" };
    format!("{MARK} {all} -- {ARGUMENT}")
}

/// Loads the module that the kernel asks for, as modprobe(8) does: its arguments are `-q -- NAME`.
///
/// # Errors
/// As [`Loader::load`].
pub fn modprobe(name: &OsStr) -> Result<()> {
    Loader::read()?.load(&[&*name.to_string_lossy()])
}

/// Makes this first process of a machine ready, says hello and has the work done. Power the machine off afterwards.
///
/// # Errors
/// When this is no machine, something of it is missing, and those of the work.
pub fn run(work: impl FnOnce(Inside) -> Result<()>) -> Result<()> {
    if std::process::id() != 1 {
        return Err(Error::usage(format!("{ARGUMENT} is for the first process of a virtual machine")));
    }
    leave_rootfs()?;
    mount_all()?;
    let line = fs::read_to_string("/proc/cmdline").context(|| "cannot read the kernel's command line")?;
    let all_modules =
        parse_command_line(&line).ok_or_else(|| Error::usage("this is no machine of guestseal's"))?;
    let events = Uevents::listen()?;
    let modules = Loader::read()?;
    modules.load(&BASE)?;
    fs::write("/proc/sys/kernel/modprobe", MODPROBE).context(|| "cannot have modules loaded")?;
    if all_modules {
        modules.load_all();
    }
    let port = events.until(PATIENCE, find_port)?;
    let port = port.ok_or_else(|| Error::failed("the machine's channel is missing"))?;
    let opened = File::options().read(true).write(true).open(&port);
    let mut channel = opened.context(|| format!("cannot open the channel {}", port.display()))?;
    write_message(&mut channel, &Ready { version: VERSION })?;
    let wake: Wake = read_message(&mut channel).context(|| "the host is not understood")?;
    reseed(&wake.seed)?;
    let time = TimeSpec::new(wake.time.0, wake.time.1);
    clock_settime(ClockId::CLOCK_REALTIME, time).context(|| "cannot set the clock")?;
    modules.load(&[DISK_DRIVER])?;
    let disks = events.until(PATIENCE, || find_disks(wake.disks))?;
    let disks = disks.ok_or_else(|| Error::failed("a disk of the machine is missing"))?;
    if wake.words.iter().any(|word| word == NETWORK) {
        modules.load(&[NETWORK_DRIVER])?;
        let name = events.until(PATIENCE, interface::find)?;
        interface::set_up(&name.ok_or_else(|| Error::failed("the machine's network is missing"))?)?;
    }
    let hello = Hello { version: VERSION, disks: disks.iter().map(|disk| disk.bytes).collect() };
    write_message(&mut channel, &hello)?;
    work(Inside { channel, disks, modules, words: wake.words })
}

/// Makes the random numbers of this machine its own.
fn reseed(seed: &[u8]) -> Result<()> {
    let failed = || "cannot seed the machine's random numbers";
    let mut random = File::options().read(true).write(true).open("/dev/urandom").context(failed)?;
    random.write_all(seed).context(failed)?;
    renew_random_numbers(&random).context(failed)
}

/// Writes everything and ends the machine.
///
/// # Errors
/// Returns only when that fails.
pub fn power_off() -> Result<()> {
    nix::unistd::sync();
    match reboot(RebootMode::RB_POWER_OFF) {
        Ok(never) => match never {},
        Err(errno) => Err(errno).context(|| "cannot power off"),
    }
}

/// Moves to a mount of the same files above that which the kernel began with: that one cannot be moved away (see
/// pivot_root(2)), as the sandbox of the guest's programs does.
fn leave_rootfs() -> Result<()> {
    let failed = || "cannot leave the first root filesystem";
    let place = |from, to, flags| mount(Some(from), to, None::<&str>, flags, None::<&str>);
    place("/", "/mnt", MsFlags::MS_BIND).context(failed)?;
    chdir("/mnt").context(failed)?;
    place(".", "/", MsFlags::MS_MOVE).context(failed)?;
    chroot(".").context(failed)?;
    chdir("/").context(failed)
}

fn mount_all() -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let devices = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let mounts = [
        ("proc", "/proc", flags),
        ("sysfs", "/sys", flags),
        ("devtmpfs", "/dev", devices),
        ("tmpfs", "/run", flags),
        ("tmpfs", "/tmp", flags),
    ];
    for (kind, place, flags) in mounts {
        mount(Some(kind), place, Some(kind), flags, None::<&str>)
            .context(|| format!("cannot mount {place}"))?;
    }
    Ok(())
}

/// Whether all modules are wanted. None when this is another's machine.
fn parse_command_line(line: &str) -> Option<bool> {
    let has = |wanted: &str| line.split_whitespace().any(|word| word == wanted);
    has(MARK).then(|| has(ALL_MODULES))
}

fn find_port() -> Result<Option<PathBuf>> {
    let ports = fs::read_dir("/sys/class/virtio-ports").context(|| "the machine has no channel")?;
    let mut names = ports
        .flatten()
        .filter(|port| fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim() == PORT));
    let path = names.next().map(|port| Path::new("/dev").join(port.file_name()));
    Ok(path.filter(|path| path.exists()))
}

/// All disks in their order; None while one is missing.
fn find_disks(count: usize) -> Result<Option<Vec<Disk>>> {
    let mut found = BTreeMap::new();
    for block in fs::read_dir("/sys/block").context(|| "cannot look for disks")?.flatten() {
        let read =
            |name: &str| fs::read_to_string(block.path().join(name)).map(|text| text.trim().to_owned());
        let (Ok(serial), Ok(sectors)) = (read("serial"), read("size")) else { continue };
        let bytes = sectors.parse::<u64>().unwrap_or(0) * 512;
        let path = Path::new("/dev").join(block.file_name());
        if path.exists() {
            found.insert(serial, Disk { path, bytes, read_only: read("ro").is_ok_and(|flag| flag == "1") });
        }
    }
    Ok((0..count).map(|number| found.remove(&serial(number))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_says_on_the_command_line_is_understood() {
        let line = |all| format!("quiet panic=-1 {}", command_line(all));
        assert!(line(true).ends_with(" -- --guestseal-machine"));
        assert_eq!([true, false].map(|all| parse_command_line(&line(all))), [Some(true), Some(false)]);
        assert_eq!(parse_command_line("quiet root=/dev/vda1"), None);
    }

    #[test]
    fn only_the_first_process_is_init() {
        let error = run(|_| Ok(())).unwrap_err();
        assert!(error.chain().contains("first process of a virtual machine"), "{error:?}");
    }
}
