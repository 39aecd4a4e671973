//! What the machine starts with: guestseal itself as its first process, the kernel's modules, and this host's tools for
//! filesystems and for what lies below them. All of it is put into one archive, which is kept and made anew when
//! one of its parts changes.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::cache::{Cache, Kept, Key};
use super::kernel::Kernel;
use super::library::Program;
use super::modules::{Modules, flat};
use super::unpack::unpack;
use crate::cpio::Archive;
use crate::error::{Context, Error, Result};
use crate::sys::sandbox::BWRAP;
use crate::sys::tool::Tool;

/// Where the machine has its modules, with the lists about them.
pub(super) const MODULES: &str = "/modules";
/// Modules without which there is no machine: loaded before anything is said.
pub(super) const BASE: [&str; 2] = ["virtio_pci", "virtio_console"];
/// Loaded when the machine is told of its disks.
pub(super) const DISK_DRIVER: &str = "virtio_blk";
/// Loaded when the machine has a network.
pub(super) const NETWORK_DRIVER: &str = "virtio_net";

const PLAIN_MODULES: [&str; 15] = [
    "loop",
    "ext4",
    "xfs",
    "btrfs",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_iso8859_1",
    "nls_utf8",
    "crc32c_generic",
    "libcrc32c",
    "xxhash_generic",
    "sha256_generic",
    "blake2b_generic",
    "crc32_generic",
];
const PLAIN_PROGRAMS: [&str; 10] = [
    "e2fsck",
    "tune2fs",
    "resize2fs",
    "xfs_repair",
    "xfs_db",
    "btrfs",
    "btrfstune",
    "fsck.fat",
    BWRAP,
    "swaplabel",
];
const STACK_MODULES: [&str; 42] = [
    "dm_mod",
    "dm_crypt",
    "dm_integrity",
    "dm_snapshot",
    "dm_thin_pool",
    "dm_cache",
    "dm_cache_smq",
    "dm_writecache",
    "dm_mirror",
    "dm_raid",
    "dm_zero",
    "md_mod",
    "linear",
    "raid0",
    "raid1",
    "raid10",
    "raid456",
    "aes_generic",
    "aesni_intel",
    "xts",
    "cbc",
    "ecb",
    "ctr",
    "cmac",
    "essiv",
    "hmac",
    "authenc",
    "sha1_generic",
    "sha512_generic",
    "rmd160",
    "wp512",
    "serpent_generic",
    "twofish_generic",
    "camellia_generic",
    "adiantum",
    "af_alg",
    "algif_skcipher",
    "algif_hash",
    "algif_aead",
    "cryptd",
    "crypto_simd",
    "xor",
];
const STACK_PROGRAMS: [&str; 7] =
    ["lvm", "dmsetup", "cryptsetup", "mdadm", "thin_check", "thin_repair", "cache_check"];
/// Opened by name at run time, so no list of libraries has them: OpenSSL's older digests, for LUKS.
const PROVIDERS: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/ossl-modules/legacy.so", "/usr/lib64/ossl-modules/legacy.so"];
/// For a system without udev, whose volume groups nobody else uses.
const LVM_CONF: &str = "activation { udev_sync = 0 udev_rules = 0 monitoring = 0 }\n\
    backup { backup = 0 archive = 0 }\n\
    devices { obtain_device_list_from_udev = 0 external_device_info_source = \"none\" use_devicesfile = 0 issue_discards = 1 }\n\
    global { use_lvmpolld = 0 use_lvmlockd = 0 }\n";

/// How much the machine has with it. Every megabyte takes time to unpack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contents {
    /// Filesystems and their tools.
    Plain,
    /// And LVM, LUKS and MD.
    Stack,
}

impl Contents {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Stack => "stack",
        }
    }

    fn modules(self) -> impl Iterator<Item = &'static str> {
        let stack: &[&str] = if self == Self::Stack { &STACK_MODULES } else { &[] };
        BASE.iter().chain([&DISK_DRIVER, &NETWORK_DRIVER]).chain(&PLAIN_MODULES).chain(stack).copied()
    }

    fn programs(self) -> impl Iterator<Item = &'static str> {
        let stack: &[&str] = if self == Self::Stack { &STACK_PROGRAMS } else { &[] };
        PLAIN_PROGRAMS.iter().chain(stack).copied()
    }
}

/// The archive for this kernel, from the cache when nothing has changed. `program` is guestseal.
///
/// # Errors
/// When the modules without which there is no machine are missing, or something cannot be read or kept.
pub fn archive(cache: &Cache, kernel: &Kernel, program: &Path, contents: Contents) -> Result<Kept> {
    let tools: Vec<(&str, Option<Tool>)> =
        contents.programs().map(|name| (name, Tool::find(name).ok())).collect();
    let mut key = Key::new().with(contents.name()).with_file(program);
    for name in ["modules.dep", "modules.alias", "modules.builtin"] {
        key = key.with_file(&kernel.modules.join(name));
    }
    // Libraries come and go with a run of ldconfig.
    key = key.with_file(Path::new("/etc/ld.so.cache"));
    for (name, tool) in &tools {
        key = key.with(name);
        key = tool.iter().fold(key, |key, tool| key.with_file(tool.path()));
    }
    let kind = format!("initramfs-{}", contents.name());
    cache.file(&kind, &key, || make(kernel, program, contents, &tools))
}

fn make(
    kernel: &Kernel,
    program: &Path,
    contents: Contents,
    tools: &[(&str, Option<Tool>)],
) -> Result<Vec<u8>> {
    let mut builder = Builder::default();
    builder.program(program, Path::new("/init"))?;
    builder.modules(kernel, contents)?;
    for (name, tool) in tools {
        let Some(tool) = tool else { continue };
        builder.tool(tool.path(), &Path::new("/usr/sbin").join(name))?;
    }
    if contents == Contents::Stack {
        for provider in PROVIDERS.map(Path::new).into_iter().filter(|provider| provider.is_file()) {
            builder.tool(provider, provider)?;
        }
        builder.archive.file(Path::new("/etc/lvm/lvm.conf"), false, LVM_CONF.as_bytes())?;
    }
    for folder in ["/dev", "/proc", "/sys", "/run", "/tmp", "/mnt"] {
        builder.archive.folder(Path::new(folder))?;
    }
    builder.archive.link(Path::new(super::init::MODPROBE), Path::new("/init"))?;
    builder.archive.link(Path::new("/etc/mtab"), Path::new("/proc/self/mounts"))?;
    builder.archive.finish()
}

#[derive(Debug, Default)]
struct Builder {
    archive: Archive,
    loader: Option<PathBuf>,
    /// Where each tool lies in the machine, by its real path here.
    tools: BTreeMap<PathBuf, PathBuf>,
}

impl Builder {
    fn program(&mut self, path: &Path, place: &Path) -> Result<()> {
        let Program { bytes, libraries } = Program::read(path, self.loader.as_deref())?;
        self.loader = self.loader.take().or_else(|| libraries.last().cloned());
        self.archive.file(place, true, &bytes)?;
        for library in libraries.iter().filter(|library| !self.archive.has(library)).collect::<Vec<_>>() {
            let bytes = fs::read(library).context(|| format!("cannot read {}", library.display()))?;
            let bytes = super::elf::Elf::new(&bytes).map_or(bytes.clone(), super::elf::Elf::stripped);
            self.archive.file(library, true, &bytes)?;
        }
        Ok(())
    }

    /// A tool that this host has. One that cannot run here either is left out: what needs it will say so.
    fn tool(&mut self, path: &Path, place: &Path) -> Result<()> {
        let Ok(real) = path.canonicalize() else { return Ok(()) };
        // One program may have many names.
        if let Some(first) = self.tools.get(&real) {
            return self.archive.link(place, first);
        }
        if Program::read(&real, self.loader.as_deref()).is_err() {
            return Ok(());
        }
        self.program(&real, place)?;
        self.tools.insert(real, place.to_path_buf());
        Ok(())
    }

    fn modules(&mut self, kernel: &Kernel, contents: Contents) -> Result<()> {
        let read = |name: &str| {
            let path = kernel.modules.join(name);
            fs::read_to_string(&path).context(|| format!("cannot read {}", path.display()))
        };
        // The last one names what is optional, so it may be missing.
        let builtin = read("modules.builtin").unwrap_or_default();
        let modules =
            Modules::parse(&read("modules.dep")?, &builtin, &read("modules.alias").unwrap_or_default());
        let lacking = modules.resolve(BASE.into_iter().chain([DISK_DRIVER])).unknown;
        if !lacking.is_empty() {
            return Err(Error::host_lacks(format!(
                "the kernel {} cannot be a virtual machine's: it has no {}",
                kernel.version,
                lacking.join(", ")
            ))
            .hint("name another kernel with --kernel, such as that of Debian's linux-image-amd64"));
        }
        let files = modules.resolve(contents.modules()).files;
        let folder = Path::new(MODULES);
        for file in &files {
            let path = kernel.modules.join(file);
            let bytes = fs::read(&path).context(|| format!("cannot read {}", path.display()))?;
            self.archive.file(
                &folder.join(flat(file)),
                false,
                &unpack(&bytes, &path.display().to_string())?,
            )?;
        }
        let lists = [
            ("modules.dep", modules.dependencies_of(&files)),
            ("modules.alias", modules.aliases_of(&files)),
            ("modules.builtin", builtin),
        ];
        lists
            .iter()
            .try_for_each(|(name, text)| self.archive.file(&folder.join(name), false, text.as_bytes()))
    }
}
