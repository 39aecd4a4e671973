//! A small virtual machine of our own, for what must not, or cannot, be done on the host's kernel: guests of strangers,
//! volume groups, encrypted volumes, and all of it without being root. [`Machine`] is the host's side; [`init`] is what runs
//! inside, where guestseal is the first and only program.
//!
//! The machine has the disks, one channel for messages, a network if programs of the guest are to have one, and nothing
//! else. What comes over the channel is held against its
//! form; a machine that dies, says too much or nothing at all is an error within the time that it was given.

#![forbid(unsafe_code)]

pub mod cache;
mod channel;
pub mod console;
pub mod elf;
mod frozen;
pub mod init;
pub mod initramfs;
pub mod kernel;
pub mod kvm;
pub mod library;
pub mod modules;
mod monitor;
pub mod protocol;
mod qemu;
#[cfg(feature = "fault-points")]
pub mod trial;
pub mod unpack;

use std::path::Path;
use std::time::{Duration, Instant};

pub use channel::{Channel, Machine};
use jiff::Timestamp;

use crate::attach::ImageSpec;
use crate::error::{Context, Error, ErrorKind, Result};
use crate::sys::tool::Tool;
use cache::{Cache, Kept, Key};
use elf::Elf;
use initramfs::Contents;
use kernel::Kernel;
use kvm::{Accelerator, Experience};
use protocol::{Hello, Ready, VERSION, Wake};
use qemu::{Mode, Parts};

/// How long a machine may take from its start to its first word: on a loaded host without KVM it is some seconds.
pub const START_PATIENCE: Duration = Duration::from_secs(90);
/// Memory of a machine in megabytes, enough for guests of most sizes.
pub const MEMORY: u32 = 256;
/// Bytes of randomness that a machine gets.
const SEED: usize = 64;

/// What a machine is made of.
#[derive(Debug)]
pub struct MachineSpec<'a> {
    /// Its kernel.
    pub kernel: &'a Kernel,
    /// guestseal itself, which will be the first process: `/proc/self/exe` for guestseal.
    pub program: &'a Path,
    /// Where what takes long to make is kept; this user's own.
    pub cache: &'a Cache,
    /// Its disks, in this order.
    pub disks: &'a [ImageSpec],
    /// What it has with it.
    pub contents: Contents,
    /// Memory in megabytes: see [`MEMORY`].
    pub memory: u32,
    /// How many processors.
    pub processors: u32,
    /// Whether it has this host's network, by qemu's own stack. Such a machine is never kept.
    pub network: bool,
    /// Words for its work: see [`init::Inside::has_word`].
    pub words: &'a [&'a str],
    /// Whether a machine that is ready may be kept, and gone on from by the next run: under emulation.
    pub keep: bool,
    /// How long it may take to its first word.
    pub patience: Duration,
}

/// How long the parts of a start took.
#[derive(Debug, Clone, Copy, Default)]
pub struct StartTimes {
    /// Until kernel and archive were there, from the cache or made, and a kept machine if there is to be one.
    pub parts: Duration,
    /// From qemu's start until the machine had its disks.
    pub boot: Duration,
}

impl Machine {
    /// Starts a machine and waits for its first word.
    ///
    /// # Errors
    /// [`crate::ErrorKind::HostLacks`] without qemu or a fitting kernel; failed when the machine does not start in time,
    /// with its last words.
    pub fn start(spec: &MachineSpec<'_>) -> Result<Self> {
        let started = Instant::now();
        let qemu = qemu::find()?;
        let parts = Parts {
            kernel: kernel_to_start(spec.cache, spec.kernel)?,
            archive: initramfs::archive(spec.cache, spec.kernel, spec.program, spec.contents)?,
        };
        let experience = Experience::read(&qemu, spec.cache);
        if let Some(patience) = experience.patience(spec.patience) {
            let booted = Self::boot(&qemu, spec, &parts, (Accelerator::Kvm, patience));
            match booted.and_then(|machine| machine.wake(spec, patience)) {
                // It has said nothing yet, so it has written nothing either.
                Err(error) if error.kind() == ErrorKind::Failed => experience.learn(false)?,
                result => {
                    return result
                        .and_then(|machine| experience.learn(true).map(|()| machine.after(started)));
                }
            }
        }
        if spec.keep
            && !spec.network
            && let Some(machine) = frozen::machine(&qemu, spec, &parts)?
        {
            return Ok(machine.after(started));
        }
        let machine = Self::boot(&qemu, spec, &parts, (Accelerator::Emulation, spec.patience))?;
        machine.wake(spec, spec.patience).map(|machine| machine.after(started))
    }

    fn boot(
        qemu: &Tool,
        spec: &MachineSpec<'_>,
        parts: &Parts,
        (accelerator, patience): (Accelerator, Duration),
    ) -> Result<Self> {
        let (mut machine, _monitor) = qemu::start(qemu, spec, parts, (accelerator, Mode::Boot))?;
        let ready = machine.hear(patience).map_err(|error| error.within("the virtual machine did not start"));
        let Ready { version } = ready?;
        machine.check(version == VERSION)?;
        Ok(machine)
    }

    /// Tells a machine what is of this run alone, and waits until it has its disks.
    fn wake(mut self, spec: &MachineSpec<'_>, patience: Duration) -> Result<Self> {
        let mut seed = vec![0; SEED];
        getrandom::fill(&mut seed).context(|| "the kernel gives no random numbers")?;
        let time = Timestamp::now();
        let wake = Wake {
            disks: spec.disks.len(),
            time: (time.as_second(), time.subsec_nanosecond().into()),
            seed,
            words: spec
                .network
                .then_some(&init::NETWORK)
                .into_iter()
                .chain(spec.words)
                .map(|word| (*word).to_owned())
                .collect(),
        };
        self.say(&wake, patience)?;
        let hello: Hello = self
            .hear(patience)
            .map_err(|error| error.within("the virtual machine did not find its disks"))?;
        self.check(hello.version == VERSION && hello.disks.len() == spec.disks.len())?;
        self.disks = hello.disks;
        Ok(self)
    }

    fn check(&mut self, is_ours: bool) -> Result<()> {
        let other = "the virtual machine is not the one that was started";
        if is_ours { Ok(()) } else { Err(self.blame(Error::failed(other))) }
    }

    fn after(mut self, begun: Instant) -> Self {
        self.times = StartTimes { parts: self.started - begun, boot: self.started.elapsed() };
        self
    }
}

/// The kernel as qemu starts it fastest: uncompressed, where it has an entry for that. Unpacking it is what takes longest
/// in a start without KVM, so it is done once, here.
fn kernel_to_start(cache: &Cache, kernel: &Kernel) -> Result<Kept> {
    let key = Key::new().with_file(&kernel.path);
    cache.file("kernel", &key, || {
        let mut packed = Vec::new();
        let failed = || format!("cannot read {}", kernel.path.display());
        std::io::Read::read_to_end(&mut kernel::open(&kernel.path)?, &mut packed).context(failed)?;
        Ok(uncompressed(&packed).unwrap_or(packed))
    })
}

/// None when it has no entry for that, is packed in a way that is not known, or the tool to unpack it is missing: then it
/// is started as it is.
fn uncompressed(packed: &[u8]) -> Option<Vec<u8>> {
    let payload = kernel::parse_header(packed)?.payload;
    let (start, end) = (usize::try_from(payload.start).ok()?, usize::try_from(payload.end).ok()?);
    let payload = packed.get(start..end)?;
    // Behind all but gzip's stands its length, which the tools do not know.
    let payload = match unpack::Packing::of(payload) {
        unpack::Packing::Gzip => payload,
        _ => payload.get(..payload.len().checked_sub(4)?)?,
    };
    let kernel = unpack::unpack(payload, "the kernel").ok()?;
    Elf::new(&kernel).filter(|elf| elf.has_pvh_entry())?;
    Some(kernel)
}
