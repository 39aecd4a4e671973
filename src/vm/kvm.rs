//! Whether this host runs machines itself (KVM) or qemu has to play the processor. There are hosts where /dev/kvm opens,
//! and even runs a few instructions, but no kernel comes to its end. So the first start of a machine is the trial: when it
//! says nothing in time with KVM, it is started again without. What came of it is kept until the host is started anew.

#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use super::cache::{Cache, Key};
use crate::error::Result;
use crate::sys::tool::Tool;

/// The device.
pub(super) const DEVICE: &str = "/dev/kvm";
/// How long the first machine may take to its first word with KVM, which is a fraction of a second where it works.
const PATIENCE: Duration = Duration::from_secs(4);
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const KIND: &str = "kvm";

/// Who runs the machine's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The host's processor.
    Kvm,
    /// qemu, many times slower.
    Emulation,
}

impl Accelerator {
    /// As qemu's `-accel` takes it.
    pub(super) fn options(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Emulation => "tcg,thread=single",
        }
    }

    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "KVM",
            Self::Emulation => "emulation",
        }
    }
}

/// What is known of KVM with one qemu since the host was started.
#[derive(Debug)]
pub struct Experience<'c> {
    cache: &'c Cache,
    key: Key,
    known: Option<bool>,
}

impl<'c> Experience<'c> {
    /// Looks up what earlier runs found.
    pub fn read(qemu: &Tool, cache: &'c Cache) -> Self {
        Self::of(qemu.path(), Path::new(DEVICE), cache)
    }

    fn of(qemu: &Path, device: &Path, cache: &'c Cache) -> Self {
        let boot = fs::read_to_string(BOOT_ID).unwrap_or_default();
        let key = Key::new().with(&boot).with_file(qemu).with_file(device);
        let known = if File::options().read(true).write(true).open(device).is_ok() {
            cache.text(KIND, &key).map(|text| text == "works")
        } else {
            Some(false)
        };
        Self { cache, key, known }
    }

    /// How long a start with KVM may take, of at most `patience`; None when it need not be tried.
    pub fn patience(&self, patience: Duration) -> Option<Duration> {
        match self.known {
            Some(true) => Some(patience),
            Some(false) => None,
            None => Some(patience.min(PATIENCE)),
        }
    }

    /// Keeps what came of a start with KVM.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn learn(&self, works: bool) -> Result<()> {
        if self.known == Some(works) {
            return Ok(());
        }
        let text: &[u8] = if works { b"works" } else { b"hangs" };
        self.cache.replace(KIND, &self.key, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learnt_is_known_until_something_changes() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("cache")).unwrap();
        let (qemu, device) = (folder.path().join("qemu"), folder.path().join("kvm"));
        [&qemu, &device].into_iter().for_each(|path| fs::write(path, "1").unwrap());
        let long = Duration::from_secs(100);
        let patience = || Experience::of(&qemu, &device, &cache).patience(long);
        assert_eq!(patience(), Some(PATIENCE));
        Experience::of(&qemu, &device, &cache).learn(true).unwrap();
        assert_eq!(patience(), Some(long));
        Experience::of(&qemu, &device, &cache).learn(false).unwrap();
        assert_eq!(patience(), None);
        fs::write(&qemu, "another").unwrap();
        assert_eq!(patience(), Some(PATIENCE));
        fs::remove_file(&device).unwrap();
        assert_eq!(patience(), None);
    }
}
