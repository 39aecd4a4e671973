//! Guests on LVM, in LUKS and on RAID, sealed in a machine of guestseal's own, start from their sealed disks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use serde_json::Value;

use crate::{FAILED, KEYS, PASSWORD, SCRIPTS, SSHD, UP, boot, run};

/// What the root is on once the guest runs, from top to bottom.
const BELOW_ROOT: &str = "lsblk --inverse --noheadings --raw --output TYPE $(findmnt -n -o SOURCE /) | xargs";

/// The guests, and what their roots are on.
const GUESTS: [(&str, &str); 3] = [
    ("debian-lvm-on-luks", "lvm crypt part disk"),
    ("debian-md-raid1", "raid1 part disk part disk"),
    ("debian-lvm", "lvm part disk part disk"),
];

/// A sealed copy of one of them.
struct Sealed {
    folder: tempfile::TempDir,
    disks: Vec<PathBuf>,
    /// The passphrase, for guests that have one.
    key: Option<PathBuf>,
}

impl Sealed {
    fn new(made: &Path, name: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("guestseal-boot-").tempdir_in("/var/tmp").unwrap();
        let originals = (1..).map(|number| made.join(format!("{name}-{number}.qcow2")));
        let copy = |(index, original): (usize, PathBuf)| {
            let disk = folder.path().join(format!("disk-{index}.qcow2"));
            fs::copy(original, &disk).unwrap();
            disk
        };
        let disks = originals.take_while(|disk| disk.exists()).enumerate().map(copy).collect();
        let key = Some(made.join(format!("{name}.key"))).filter(|key| key.exists());
        let secret = folder.path().join("password");
        fs::write(&secret, PASSWORD).unwrap();
        let sealed = Self { folder, disks, key };
        let password = format!("file:{}", secret.display());
        let report = run(sealed.guestseal("seal").args(["--json", "--root-password", &password])).stdout;
        let report: Value = serde_json::from_slice(&report).unwrap();
        assert_eq!(report["images"][0]["attached"]["way"], "vm", "{report:#}");
        run(&mut sealed.guestseal("verify"));
        sealed
    }

    fn guestseal(&self, command: &str) -> Command {
        let mut guestseal = Command::new(env!("CARGO_BIN_EXE_guestseal"));
        guestseal.args([command, "--kernel"]).arg(crate::cache().join("kernel/vmlinuz"));
        if let Some(key) = &self.key {
            guestseal.args(["--key", &format!("all:file:{}", key.display())]);
        }
        for disk in &self.disks {
            guestseal.arg("-a").arg(disk);
        }
        guestseal
    }

    fn boot(&self, beside: &Path, commands: &[&str]) -> Vec<String> {
        let mut options = Vec::new();
        for disk in &self.disks[1..] {
            options.extend(["--disk".to_owned(), disk.display().to_string()]);
        }
        if let Some(key) = &self.key {
            options.extend(["--passphrase".to_owned(), key.display().to_string()]);
        }
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        boot(&self.disks[0], beside, &options, commands)
    }
}

/// Seals, verifies and boots one guest.
fn seals_and_starts(made: &Path, (name, below): (&str, &str)) {
    let canaries = fs::read_to_string(made.join(format!("{name}.canaries"))).unwrap();
    let planted = |kind: &str| {
        let mut rows = canaries.lines().map(|line| line.split('\t').collect::<Vec<_>>());
        rows.find(|row| row[1] == kind).unwrap()[0].to_owned()
    };
    let sealed = Sealed::new(made, name);
    let commands = [UP, FAILED, SSHD, BELOW_ROOT, KEYS, "cat /etc/machine-id", "cat /etc/ssh/ssh_host_*_key"];
    let said = sealed.boot(&made.join(format!("{name}.cmdline")), &commands);
    let [up, failed, sshd, devices, keys, id, private] = said.as_slice() else { panic!("{said:?}") };
    assert_eq!(
        (up.as_str(), failed.as_str(), sshd.as_str()),
        ("running", "", "SSH-2.0"),
        "{name}: {said:#?}"
    );
    assert_eq!(devices, below, "{name}");
    assert!(keys.lines().count() >= 3, "{name}: {keys}");
    assert!(!private.contains(&planted("ssh-private-key")), "{name}: its host key is the old one");
    assert!(id.len() == 32 && id.bytes().all(|letter| letter.is_ascii_hexdigit()), "{name}: {id}");
    assert_ne!(*id, planted("machine-id"), "{name}: its machine id is the old one");
    drop(sealed.folder);
}

#[test]
#[ignore = "boots three guests: minutes"]
fn guests_on_lvm_luks_and_raid_start_when_they_are_sealed() {
    let made = run(Command::new(format!("{SCRIPTS}/make-layouts")).arg("--bootable"));
    let made = PathBuf::from(String::from_utf8(made.stdout).unwrap().trim());
    let waiting = Mutex::new(GUESTS.into_iter());
    let next = || waiting.lock().unwrap().next();
    thread::scope(|scope| {
        let both = [(); 2].map(|()| {
            scope.spawn(|| {
                while let Some(guest) = next() {
                    seals_and_starts(&made, guest);
                }
            })
        });
        both.map(|lane| lane.join().unwrap())
    });
}
