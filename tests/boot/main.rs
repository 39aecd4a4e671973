//! The proof of the pudding: sealed guests are cloned and booted under qemu's software emulation. Needs root, qemu and
//! some minutes, so the tests are ignored unless asked for: `cargo test --test boot -- --ignored`. Each boots two guests
//! at a time.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test drives the program from outside")]
mod customised;
mod layouts;
mod uuids;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;

use serde_json::Value;

const PASSWORD: &str = "a new Secret!9";
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts");

/// Where the scripts keep what they make.
fn cache() -> PathBuf {
    std::env::var_os("GUESTSEAL_CACHE").map_or_else(|| "/var/cache/guestseal-test".into(), PathBuf::from)
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n--- stdout\n{}\n--- stderr\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// A copy of a guest in a folder of its own.
struct Guest {
    folder: tempfile::TempDir,
    /// The guest as it was, beside whose image kernel and initrd lie.
    original: PathBuf,
}

impl Guest {
    fn copy_of(variant: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("guestseal-boot-").tempdir_in("/var/tmp").unwrap();
        let made = run(Command::new(format!("{SCRIPTS}/make-guest")).arg(variant));
        let original = PathBuf::from(String::from_utf8(made.stdout).unwrap().trim());
        fs::copy(&original, folder.path().join("template.qcow2")).unwrap();
        fs::write(folder.path().join("password"), PASSWORD).unwrap();
        Self { folder, original }
    }

    /// Sealed with these options, and verified.
    fn sealed(variant: &str, options: &[&str]) -> Self {
        let guest = Self::copy_of(variant);
        guest.seal(options);
        guest
    }

    fn seal(&self, options: &[&str]) {
        let password = format!("file:{}", self.at("password"));
        run(self.guestseal("seal").args(options).args(["--root-password", &password]));
        run(&mut self.guestseal("verify"));
    }

    fn guestseal(&self, command: &str) -> Command {
        let mut guestseal = Command::new(env!("CARGO_BIN_EXE_guestseal"));
        guestseal.arg(command).arg(self.image());
        guestseal
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("template.qcow2")
    }

    /// The path of a file in the folder.
    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Boots a thin clone, waits until it is fully up, and returns what each command printed.
    fn boot(&self, commands: &[&str]) -> Vec<String> {
        boot(&self.image(), &self.original, &[], commands)
    }

    /// A thin clone that keeps what its boots write.
    fn thin_clone(&self) -> PathBuf {
        let clone = self.folder.path().join("clone.qcow2");
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b"]);
        run(create.arg(self.image()).arg(&clone));
        clone
    }
}

/// boot-guest itself takes an overlay, so each call is a clone, unless the option `--write` is among these.
fn boot(image: &Path, beside: &Path, options: &[&str], commands: &[&str]) -> Vec<String> {
    let mut boot = Command::new(format!("{SCRIPTS}/boot-guest"));
    boot.args(["--json", "--timeout", "900", "--password", PASSWORD, "--guest"]).arg(beside);
    let report = run(boot.args(options).arg(image).args(commands)).stdout;
    let report: Value = serde_json::from_slice(&report).unwrap();
    let done = report["commands"].as_array().unwrap();
    done.iter().map(|done| done["output"].as_str().unwrap().trim().to_owned()).collect()
}

/// Does both at the same time.
fn both<T: Send>(one: impl FnOnce() -> T + Send, other: impl FnOnce() -> T + Send) -> [T; 2] {
    thread::scope(|scope| {
        let one = scope.spawn(one);
        let other = other();
        [one.join().unwrap(), other]
    })
}

const UP: &str = "systemctl is-system-running --wait";
const FAILED: &str = "systemctl --failed --no-legend --plain";
const KEYS: &str = "cat /etc/ssh/ssh_host_*_key.pub | cut -d' ' -f2 | sort";
const SSHD: &str = "timeout 20 bash -c 'exec 3<>/dev/tcp/127.0.0.1/22 && head -c 7 <&3'";

#[test]
#[ignore = "boots two guests: minutes"]
fn every_way_of_making_host_keys_works() {
    // Debian 13 has a unit that runs on a first boot only; the cloud variant leaves it to cloud-init, or to nobody.
    let commands = [KEYS, FAILED, SSHD];
    let cloud = || Guest::sealed("debian12-cloud", &[]).boot(&[&[UP][..], &commands].concat()).split_off(1);
    for said in both(|| uuids::new_ones_are_booted_by("debian13", &commands), cloud) {
        assert!(said[0].lines().count() >= 2, "{said:#?}");
        assert_eq!((said[1].as_str(), said[2].as_str()), ("", "SSH-2.0"), "{said:#?}");
    }
}

#[test]
#[ignore = "boots two guests: minutes"]
fn erased_guests_on_xfs_and_btrfs_are_as_they_were() {
    // All others are on ext4. None of them says how much is erased: everything is.
    let boot = |variant| Guest::sealed(variant, &[]).boot(&[UP, FAILED, SSHD]);
    for said in both(|| boot("debian12-xfs"), || boot("debian12-btrfs")) {
        assert_eq!(said, ["running", "", "SSH-2.0"]);
    }
}
