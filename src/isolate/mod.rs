//! A guest in a virtual machine of its own: when that is needed, and both sides of the work there. [`agent`] runs inside;
//! [`host`] asks it.

#![forbid(unsafe_code)]

pub mod agent;
pub mod host;
pub mod protocol;

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::attach::ImageSpec;
use crate::disk::{Content, Storage};
use crate::error::{Error, Result};
use crate::inspect::layout::volume_name;
use crate::mount::options::{Access, options};
use crate::report::{Event, Observer, Stage};
use crate::stack::key::Key;
use crate::sys::{privilege, tool};
use crate::uuids::Kind;
use crate::vm::cache::Cache;
use crate::vm::initramfs::Contents;
use crate::vm::kernel::Kernel;
use crate::vm::{MEMORY, Machine, MachineSpec, START_PATIENCE};
use host::Prepared;
use protocol::Prepare;

/// How reports and records call it.
pub const WAY: &str = "vm";
/// Memory of a machine that opens encrypted volumes, in megabytes.
const MEMORY_WITH_KEYS: u32 = 1536;

/// Whether guests are worked on in a machine of their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Isolate {
    /// Where this host cannot mount them: without root, for LVM, encryption and RAID, for filesystems its kernel lacks.
    #[default]
    Auto,
    /// Always.
    Vm,
    /// Never.
    Never,
}

/// What the user wants of machines.
#[derive(Debug, Clone, Default)]
pub struct Isolation {
    /// When there is one.
    pub isolate: Isolate,
    /// Its kernel; none for the host's own.
    pub kernel: Option<PathBuf>,
    /// Where what takes long to make is kept.
    pub cache: PathBuf,
    /// Keys for encrypted volumes.
    pub keys: Vec<Key>,
    /// Whether arrays that lack a member are taken.
    pub degraded: bool,
    /// Whether filesystems get new UUIDs.
    pub fs_uuids: bool,
    /// Whether programs of the guest are to have this host's network.
    pub network: bool,
}

impl Isolation {
    /// Why a machine is needed before anything is known of the guest; none when the host does, or may do.
    pub fn from_the_start(&self, attach_asked: bool) -> Option<&'static str> {
        match self.isolate {
            Isolate::Vm => Some("as asked"),
            Isolate::Auto if !attach_asked => privilege::cannot_mount(),
            Isolate::Auto | Isolate::Never => None,
        }
    }

    /// Why a machine is needed for what is on the disks; none when the host does.
    pub fn for_storage(&self, storage: &Storage) -> Option<String> {
        if self.isolate != Isolate::Auto {
            return None;
        }
        let volumes = storage.volumes.iter().filter_map(|volume| Some((volume, volume.superblock.as_ref()?)));
        volumes.into_iter().find_map(|(volume, superblock)| {
            let content = superblock.content;
            if content.is_layered() {
                return Some(format!("there is {content} on {}", volume_name(volume)));
            }
            // btrfstune takes any device that looks like one of the filesystem's, also that of another run.
            if self.fs_uuids && superblock.btrfs.as_ref().is_some_and(|device| device.devices > 1) {
                return Some(format!("a {content} on several devices is to have another UUID"));
            }
            let name = options(content, Access::Look, None)?.fs_type;
            // What boots the guest may name UUIDs there.
            let needed = content.is_linux_filesystem() || (self.fs_uuids && content == Content::Vfat);
            (needed && !tool::has_filesystem(name)).then(|| format!("this host's kernel has no {name}"))
        })
    }

    /// Starts a machine with these disks and has it open what lies on them.
    ///
    /// # Errors
    /// [`crate::ErrorKind::HostLacks`] without qemu or a kernel; failed when it does not start.
    pub fn start(&self, disks: &[ImageSpec], reason: &str, observer: &mut dyn Observer) -> Result<Prepared> {
        let why = |error: Error| error.within(format!("a virtual machine is needed ({reason})"));
        let machine = self.boot(disks, observer).map_err(why)?;
        observer.event(Event::Attached { way: WAY, reason });
        observer.event(Event::Stage(Stage::OpeningVolumes));
        let files = disks.iter().map(|disk| disk.files.clone()).collect();
        let read_only = disks.iter().all(|disk| disk.read_only);
        Prepared::new(machine, files, self.prepare(read_only, Vec::new()), observer)
    }

    /// How a machine opens the disks; `new_uuids`: what of it gets new ones.
    pub fn prepare(&self, read_only: bool, new_uuids: Vec<Kind>) -> Prepare {
        let keys = self.keys.iter().map(Into::into).collect();
        Prepare { keys, degraded: self.degraded, read_only, new_uuids }
    }

    fn boot(&self, disks: &[ImageSpec], observer: &mut dyn Observer) -> Result<Machine> {
        observer.event(Event::Stage(Stage::PreparingMachine));
        let kernel = Kernel::find(self.kernel.as_deref())?;
        let cache = Cache::open(&self.cache)?;
        let machine = Machine::start(&MachineSpec {
            kernel: &kernel,
            program: Path::new("/proc/self/exe"),
            cache: &cache,
            disks,
            contents: Contents::Stack,
            // Key derivation takes what memory it was told to when the volume was made, most often a gigabyte.
            memory: if self.keys.is_empty() { MEMORY } else { MEMORY_WITH_KEYS },
            processors: 1,
            network: self.network,
            words: &[],
            keep: true,
            patience: START_PATIENCE,
        })?;
        observer.event(Event::StageBegan { stage: Stage::StartingMachine, ago: machine.times().boot });
        Ok(machine)
    }
}
