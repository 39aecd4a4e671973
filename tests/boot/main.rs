//! The proof of the pudding: sealed guests are cloned and booted under qemu's software emulation. Needs root, qemu and
//! some minutes, so the tests are ignored unless asked for: `cargo test --test boot -- --ignored`.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test drives the program from outside")]
mod layouts;

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

/// A sealed guest in a folder of its own.
struct Sealed {
    folder: tempfile::TempDir,
    /// The guest as it was, beside whose image kernel and initrd lie.
    original: PathBuf,
}

impl Sealed {
    fn new(variant: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("guestseal-boot-").tempdir_in("/var/tmp").unwrap();
        let made = run(Command::new(format!("{SCRIPTS}/make-guest")).arg(variant));
        let original = PathBuf::from(String::from_utf8(made.stdout).unwrap().trim());
        let image = folder.path().join("template.qcow2");
        std::fs::copy(&original, &image).unwrap();
        let secret = folder.path().join("password");
        std::fs::write(&secret, PASSWORD).unwrap();
        let mut seal = Command::new(env!("CARGO_BIN_EXE_guestseal"));
        seal.args([
            "seal",
            "--hostname",
            "clone.example.net",
            "--timezone",
            "Europe/Berlin",
            "--root-password",
        ]);
        run(seal.arg(format!("file:{}", secret.display())).arg(&image));
        run(Command::new(env!("CARGO_BIN_EXE_guestseal")).arg("verify").arg(&image));
        Self { folder, original }
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("template.qcow2")
    }

    /// Boots a thin clone, waits until it is fully up, and returns what each command printed.
    fn boot(&self, commands: &[&str]) -> Vec<String> {
        boot(&self.image(), &self.original, &[], commands)
    }
}

/// boot-guest itself takes an overlay, so each call is a clone.
fn boot(image: &Path, beside: &Path, options: &[String], commands: &[&str]) -> Vec<String> {
    let mut boot = Command::new(format!("{SCRIPTS}/boot-guest"));
    boot.args(["--json", "--timeout", "570", "--password", PASSWORD, "--guest"]).arg(beside);
    let report = run(boot.args(options).arg(image).args(commands)).stdout;
    let report: Value = serde_json::from_slice(&report).unwrap();
    let done = report["commands"].as_array().unwrap();
    done.iter().map(|done| done["output"].as_str().unwrap().trim().to_owned()).collect()
}

const UP: &str = "systemctl is-system-running --wait";
const FAILED: &str = "systemctl --failed --no-legend --plain";
const KEYS: &str = "cat /etc/ssh/ssh_host_*_key.pub | cut -d' ' -f2 | sort";
const SSHD: &str = "timeout 20 bash -c 'exec 3<>/dev/tcp/127.0.0.1/22 && head -c 7 <&3'";

#[test]
#[ignore = "boots two guests: minutes"]
fn clones_differ_where_they_must_and_are_as_asked() {
    let sealed = Sealed::new("debian12");
    let commands = [
        UP,
        "cat /etc/machine-id",
        KEYS,
        FAILED,
        SSHD,
        "hostname",
        "readlink /etc/localtime",
        "date +%Z",
        "readlink /var/lib/dbus/machine-id || cat /var/lib/dbus/machine-id",
        "ls /etc/systemd/system/guestseal* 2>/dev/null",
        "stat -c '%a %U %G' /var/log/wtmp /var/log/btmp /var/log/journal",
    ];
    let clones = thread::scope(|scope| {
        let boots = [(); 2].map(|()| scope.spawn(|| sealed.boot(&commands)));
        boots.map(|boot| boot.join().unwrap())
    });
    for said in &clones {
        let [up, id, keys, failed, sshd, hostname, localtime, zone, dbus, unit, logs] = said.as_slice()
        else {
            panic!("{said:?}")
        };
        assert_eq!((up.as_str(), failed.as_str()), ("running", ""), "{said:#?}");
        assert!(id.len() == 32 && id.bytes().all(|letter| letter.is_ascii_hexdigit()), "{id}");
        assert!(keys.lines().count() >= 3, "{keys}");
        assert_eq!(sshd, "SSH-2.0", "sshd does not answer");
        assert_eq!(hostname, "clone.example.net");
        assert_eq!((localtime.as_str(), zone.as_str()), ("/usr/share/zoneinfo/Europe/Berlin", "CET"));
        assert!(dbus == "/etc/machine-id" || dbus == id, "{dbus}");
        assert_eq!(unit, "", "the unit that made the keys is still there");
        assert_eq!(logs, "664 root utmp\n660 root utmp\n2755 root systemd-journal");
    }
    assert_ne!(clones[0][1], clones[1][1], "both clones have the same machine id");
    assert_ne!(clones[0][2], clones[1][2], "both clones have the same ssh host keys");
}

#[test]
#[ignore = "boots two guests: minutes"]
fn every_way_of_making_host_keys_works() {
    // Debian 13 has a unit that runs on a first boot only; the cloud variant leaves it to cloud-init, or to nobody.
    let variants = ["debian13", "debian12-cloud"];
    thread::scope(|scope| {
        for boot in variants.map(|variant| {
            scope.spawn(move || (variant, Sealed::new(variant).boot(&[UP, KEYS, FAILED, SSHD])))
        }) {
            let (variant, said) = boot.join().unwrap();
            assert!(said[1].lines().count() >= 2, "{variant}: {said:#?}");
            assert_eq!((said[2].as_str(), said[3].as_str()), ("", "SSH-2.0"), "{variant}: {said:#?}");
        }
    });
}

#[test]
#[ignore = "boots two guests: minutes"]
fn erased_guests_on_xfs_and_btrfs_are_as_they_were() {
    // All others are on ext4. None of them says how much is erased: everything is.
    let variants = ["debian12-xfs", "debian12-btrfs"];
    thread::scope(|scope| {
        for boot in variants
            .map(|variant| scope.spawn(move || (variant, Sealed::new(variant).boot(&[UP, FAILED, SSHD]))))
        {
            let (variant, said) = boot.join().unwrap();
            assert_eq!(said, ["running", "", "SSH-2.0"], "{variant}");
        }
    });
}

#[test]
#[ignore = "boots a guest, then checks its image"]
fn a_guest_without_systemd_makes_its_keys_and_a_boot_shows_in_verify() {
    let sealed = Sealed::new("debian12-sysvinit");
    let said =
        sealed.boot(&["ls /etc/ssh/ssh_host_*_key | wc -l", "grep -c guestseal /etc/default/ssh", SSHD]);
    assert!(said[0].parse::<u32>().unwrap() >= 2, "{said:#?}");
    assert_eq!((said[1].as_str(), said[2].as_str()), ("0", "SSH-2.0"));
    let mut boot = Command::new(format!("{SCRIPTS}/boot-guest"));
    boot.args(["--write", "--timeout", "570", "--password", PASSWORD, "--guest"]).arg(&sealed.original);
    run(boot.arg(sealed.image()).arg("true"));
    let verify =
        Command::new(env!("CARGO_BIN_EXE_guestseal")).arg("verify").arg(sealed.image()).output().unwrap();
    assert_eq!(
        verify.status.code(),
        Some(5),
        "a booted template passed: {}",
        String::from_utf8_lossy(&verify.stdout)
    );
    assert!(String::from_utf8_lossy(&verify.stdout).contains("ssh-hostkeys"));
}
