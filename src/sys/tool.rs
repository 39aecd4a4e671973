//! The host's programs that guestseal runs: looked up in a fixed list of folders, never through `$PATH`, because we
//! run as root.

use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use super::child::Spawn;
use crate::error::{Context, Error, Result};

const FOLDERS: [&str; 7] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/libexec"];

/// A program of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool {
    path: PathBuf,
}

impl Tool {
    /// Finds the program.
    ///
    /// # Errors
    /// [`crate::ErrorKind::HostLacks`] naming the package when it is not installed.
    pub fn find(name: &str) -> Result<Self> {
        FOLDERS
            .iter()
            .map(|folder| Path::new(folder).join(name))
            .find(|path| path.is_file())
            .map(|path| Self { path })
            .ok_or_else(|| {
                Error::host_lacks(format!("the program {name} is not installed"))
                    .hint(format!("install {}", package_of(name)))
            })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Prepares a run of it.
    pub fn spawn(&self) -> Spawn {
        Spawn::new(&self.path)
    }
}

fn package_of(program: &str) -> &'static str {
    match program {
        "qemu-img" | "qemu-nbd" => {
            "qemu-utils (Debian, Ubuntu), qemu-img (Fedora, RHEL) or qemu-tools (SUSE)"
        }
        "qemu-storage-daemon" => {
            "qemu-utils (Debian 13), qemu-system-common (Debian 12, Ubuntu), qemu-kvm-tools (RHEL) or qemu-tools (Fedora, SUSE)"
        }
        "qemu-system-x86_64" => {
            "qemu-system-x86 (Debian, Ubuntu), qemu-system-x86-core (Fedora), qemu-kvm (RHEL) or qemu-x86 (SUSE)"
        }
        "virsh" => "libvirt-clients (Debian, Ubuntu) or libvirt-client (Fedora, RHEL, SUSE)",
        "bwrap" => "bubblewrap",
        "modprobe" => "kmod",
        "xz" => "xz-utils (Debian, Ubuntu) or xz",
        "e2fsck" | "tune2fs" | "resize2fs" => "e2fsprogs",
        "xfs_repair" | "xfs_db" => "xfsprogs",
        "btrfstune" => "btrfs-progs",
        "swaplabel" => "util-linux",
        "cryptsetup" => "cryptsetup-bin (Debian, Ubuntu) or cryptsetup",
        _ => "the package that has it",
    }
}

/// The most that a tool may say.
const OUTPUT_LIMIT: u64 = 64 << 20;
/// How many of its last lines an error repeats.
const LAST_LINES: usize = 6;

/// Runs a tool on a device, with an answer to what it asks: its exit code and the last that it said.
///
/// # Errors
/// When it is not installed, cannot be run, or is ended by a signal.
pub fn run_on(program: &str, options: &[&str], node: &Path, answer: &[u8]) -> Result<(i32, String)> {
    let mut answers = tempfile::tempfile().context(|| "cannot make a temporary file")?;
    answers.write_all(answer).and_then(|()| answers.rewind()).context(|| "cannot write a temporary file")?;
    let tool = Tool::find(program)?.spawn().env("DM_DISABLE_UDEV", "1");
    let (exit, output) = tool.args(options).arg(node).stdin(answers).output(OUTPUT_LIMIT)?;
    let code =
        exit.status.code().ok_or_else(|| Error::failed(format!("{program} ended with {}", exit.status)))?;
    let said = [String::from_utf8_lossy(&output).trim(), exit.stderr.as_str()].join("\n");
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    Ok((code, lines[lines.len().saturating_sub(LAST_LINES)..].join("; ")))
}

/// Runs a script of the host with `folder` as its working directory, as virt-sysprep's `--script` does.
///
/// # Errors
/// When it cannot be started or ends with anything but 0.
pub fn run_script(script: &Path, folder: &Path) -> Result<()> {
    let (exit, _) = Spawn::new(script).folder(folder).output(1 << 20)?;
    exit.success()
}

/// Whether the kernel has this module, loading it when that is all that is missing.
pub fn has_module(name: &str) -> bool {
    let loaded = || Path::new("/sys/module").join(name).is_dir();
    if loaded() {
        return true;
    }
    let Ok(kernel) = nix::sys::utsname::uname() else { return false };
    // Without this folder there is nothing that modprobe could load.
    if !Path::new("/lib/modules").join(kernel.release()).is_dir() {
        return false;
    }
    Tool::find("modprobe").and_then(|modprobe| modprobe.spawn().args(["-q", name]).output(0)).is_ok()
        && loaded()
}

/// Whether the kernel can mount this type of filesystem, now or with a module.
pub fn has_filesystem(name: &str) -> bool {
    let listed = std::fs::read_to_string("/proc/filesystems")
        .is_ok_and(|list| list.split_whitespace().any(|word| word == name));
    listed || has_module(name)
}
