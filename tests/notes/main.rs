//! Command lines of older notes, which people copy from each other: each runs as it is written there, in a folder with
//! the guest as disk.img, and then the guest is looked at without guestseal. Needs root.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on fails or says so")]

#[path = "../images/common.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod common;
#[path = "../images/guests.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod guests;
#[path = "../images/mounts.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod mounts;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::{GUESTSEAL, Ran, command, finish, on_path, ready, require, tool};
use crate::guests::guest;
use crate::mounts::{Access, export, with_guest};

/// A folder with a copy of a guest, and what the notes name beside it.
struct Folder(TempDir);

impl Folder {
    fn new(variant: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("guestseal-notes-").tempdir_in("/var/tmp").unwrap();
        copy(&guest(variant).image, &folder.path().join("disk.img"));
        for (name, text) in [("bob.pub", "ssh-ed25519 AAAA bob@notes\n"), ("secret", "correct horse\n")] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        symlink(GUESTSEAL, folder.path().join("virt-sysprep")).unwrap();
        symlink(GUESTSEAL, folder.path().join("guestseal")).unwrap();
        Self(folder)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs a line of the notes. A word with blanks stands in quotes.
    #[track_caller]
    fn run(&self, line: &str) -> Ran {
        let mut parts = line.split('"').enumerate().flat_map(|(index, part)| {
            if index % 2 == 1 { vec![part] } else { part.split_whitespace().collect() }
        });
        let mut run = command("timeout");
        run.current_dir(self.0.path())
            .args(["--kill-after=5", "240"])
            .arg(self.at(parts.next().unwrap()))
            .args(parts);
        finish(run)
    }

    /// Looks at the guest's files.
    fn with_files<T: Send>(&self, format: &str, access: Access, work: impl FnOnce(&Path) -> T + Send) -> T {
        let inspection = self.run("guestseal inspect --json --enable machine-id disk.img").expect(0).result();
        with_guest(&export(&self.at("disk.img"), format), &inspection["inspection"], access, work)
    }
}

fn copy(from: &Path, to: &Path) {
    tool("cp", [Path::new("--sparse=always"), Path::new("--reflink=auto"), from, to]);
}

fn text(root: &Path, path: &str) -> String {
    fs::read_to_string(root.join(path)).unwrap_or_default()
}

fn there(root: &Path, path: &str) -> bool {
    root.join(path).symlink_metadata().is_ok()
}

fn shadow_of(root: &Path, user: &str) -> String {
    let line = text(root, "etc/shadow")
        .lines()
        .find(|line| line.starts_with(&format!("{user}:")))
        .unwrap()
        .to_owned();
    line.split(':').nth(1).unwrap().to_owned()
}

const HOST_KEY: &str = "etc/ssh/ssh_host_ed25519_key";
const HISTORY: &str = "root/.bash_history";
const SYSLOG: &str = "var/log/syslog.1";

/// What must be true of the guest afterwards.
type Look = fn(&Path);

/// A line of the notes, and what comes of it in Alpine.
const LINES: [(&str, Look); 13] = [
    ("guestseal --image disk.img", |root| {
        assert!(!there(root, HOST_KEY) && !there(root, HISTORY) && text(root, "etc/machine-id").is_empty());
    }),
    ("guestseal -a disk.img --remove ssh", |root| {
        assert!(!there(root, HOST_KEY) && there(root, HISTORY) && there(root, SYSLOG));
    }),
    ("guestseal --image disk.img --remove logs", |root| {
        assert!(there(root, HOST_KEY) && there(root, HISTORY) && !there(root, SYSLOG));
    }),
    ("guestseal --image disk.img --remove user --remove device", |root| {
        assert!(!there(root, HISTORY) && there(root, SYSLOG) && text(root, "etc/machine-id").is_empty());
    }),
    ("guestseal --delete --image disk.img", |root| {
        assert!(text(root, "etc/machine-id").is_empty() && there(root, HISTORY) && there(root, SYSLOG));
    }),
    ("guestseal disk.img --delete /etc/app.conf --enable machine-id", |root| {
        assert!(!there(root, "etc/app.conf") && there(root, "etc/app.conf~") && there(root, HISTORY));
    }),
    (
        "guestseal --root-password notes-word --timezone Europe/Berlin --hostname web disk.img --enable machine-id",
        |root| {
            assert!(
                shadow_of(root, "root").starts_with('$') && !text(root, "etc/shadow").contains("notes-word")
            );
            assert_eq!(text(root, "etc/hostname"), "web\n");
            assert!(fs::read_link(root.join("etc/localtime")).unwrap().ends_with("zoneinfo/Europe/Berlin"));
        },
    ),
    ("virt-sysprep --image disk.img --enable machine-id --add user:mary", |root| {
        assert!(text(root, "etc/passwd").contains("\nmary:x:1002:1002::/home/mary:/bin/sh\n"));
        assert_eq!(
            (shadow_of(root, "mary").as_str(), root.join("home/mary").metadata().unwrap().uid()),
            ("*", 1002)
        );
    }),
    (
        "guestseal --add user:mary:groups=wheel,adm:shell=/bin/sh:key=file:bob.pub:password=file:secret -a disk.img",
        |root| {
            assert!(
                text(root, "etc/group").contains("wheel:x:10:alice,mary\n")
                    && text(root, "etc/gshadow").contains("\nmary:!::\n")
            );
            assert_eq!(text(root, "home/mary/.ssh/authorized_keys"), "ssh-ed25519 AAAA bob@notes\n");
            assert!(shadow_of(root, "mary").starts_with('$') && !text(root, "etc/shadow").contains("horse"));
        },
    ),
    (
        "guestseal --operations defaults,user-account --add \"user:mary:comment=Mary M.:key=string:ssh-ed25519 BBBB m\" disk.img",
        |root| {
            assert!(
                text(root, "etc/passwd").contains(":Mary M.:/home/mary:")
                    && !text(root, "etc/passwd").contains("alice:")
            );
            assert_eq!(text(root, "home/mary/.ssh/authorized_keys"), "ssh-ed25519 BBBB m\n");
        },
    ),
    ("guestseal --enable machine-id --add network:dhcp disk.img", |root| {
        assert_eq!(text(root, "etc/network/interfaces"), "auto eth0\niface eth0 inet dhcp\n");
    }),
    (
        "guestseal --enable machine-id --add network:192.0.2.10/24:gateway=192.0.2.1:dns=192.0.2.53:interface=eth0 -a disk.img",
        |root| {
            let stanza = "auto eth0\niface eth0 inet static\n    address 192.0.2.10/24\n    gateway 192.0.2.1\n    dns-nameservers 192.0.2.53\n";
            assert_eq!(text(root, "etc/network/interfaces"), stanza);
            assert_eq!(text(root, "etc/resolv.conf"), "nameserver 192.0.2.53\n");
        },
    ),
    (
        "virt-sysprep --enable machine-id --add network:2001:db8::10/64:gateway=fe80::1 --add disk.img --add user:eve",
        |root| {
            assert!(
                text(root, "etc/network/interfaces")
                    .contains("iface eth0 inet6 static\n    address 2001:db8::10/64\n    gateway fe80::1\n")
            );
            assert!(there(root, "home/eve"));
        },
    ),
];

/// Alpine's networking service is switched on in every real one; the small guest has none.
fn alpine() -> Folder {
    let folder = Folder::new("alpine");
    folder.with_files("raw", Access::Write, |root| {
        fs::create_dir_all(root.join("etc/runlevels/boot")).unwrap();
        symlink("/etc/init.d/networking", root.join("etc/runlevels/boot/networking")).unwrap();
    });
    folder
}

fn record(folder: &Folder) -> Value {
    serde_json::from_slice(&fs::read(folder.at("disk.img.seal.json")).unwrap()).unwrap()
}

#[test]
fn every_line_of_the_notes_runs_as_it_is_written() {
    if !ready() {
        return;
    }
    let folder = alpine();
    copy(&folder.at("disk.img"), &folder.at("fresh.img"));
    for (line, look) in LINES {
        copy(&folder.at("fresh.img"), &folder.at("disk.img"));
        let ran = folder.run(line).expect(0);
        assert!(!ran.stderr.contains("notes-word") && !ran.stderr.contains("horse"), "{ran:#?}");
        assert_eq!(
            ran.stderr.contains("stands on the command line"),
            line.contains("notes-word"),
            "{ran:#?}"
        );
        let recorded = record(&folder).to_string();
        assert!(
            !recorded.contains("notes-word")
                && !recorded.contains("horse")
                && !recorded.contains("password=")
        );
        println!("{line}");
        folder.with_files("raw", Access::Look, look);
        folder.run("guestseal verify disk.img").expect(0);
    }
}

#[test]
fn a_record_knows_of_accounts_and_networks() {
    if !ready() {
        return;
    }
    let folder = alpine();
    folder.run("guestseal --digest none --enable machine-id --add user:mary:groups=wheel --add network:dhcp disk.img").expect(0);
    let seen = |change: fn(&Path), words: &str| {
        folder.with_files("raw", Access::Write, change);
        let ran = folder.run("guestseal verify disk.img").expect(5);
        assert!(ran.stdout.contains(words), "{ran:#?}");
    };
    folder.run("guestseal verify disk.img").expect(0);
    seen(
        |root| fs::write(root.join("etc/network/interfaces"), "auto lo\n").unwrap(),
        "/etc/network/interfaces",
    );
    seen(|root| fs::remove_dir_all(root.join("home/mary")).unwrap(), "/home/mary");
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    if !ready() {
        return;
    }
    let folder = Folder::new("alpine");
    let before = common::fingerprint(&folder.at("disk.img"));
    for (line, code, words) in [
        ("guestseal --no-shutdown disk.img", 2, "none is named"),
        ("guestseal --expand /dev/sda1 disk.img", 2, "is no size"),
        ("guestseal --add network:dhcp disk.img", 6, "no service that sets up"),
        ("guestseal --add user:mary:groups=sudo disk.img", 2, "no group sudo"),
        ("guestseal --add user:Mary disk.img", 2, "--add user:bob:groups="),
        ("guestseal --add network:dchp disk.img", 2, "--add network:dhcp"),
        ("guestseal --add user:alice --remove-user-accounts alice disk.img", 2, "both added and removed"),
        ("guestseal -a ./user:alice", 1, "user:alice"),
        ("guestseal --remove keys disk.img", 2, "ssh, logs, user, device"),
        ("guestseal --delete disk.img --image disk.img", 2, "starts with `/`"),
    ] {
        folder.run(line).expect(code).says(&[words]);
        assert_eq!(common::fingerprint(&folder.at("disk.img")), before, "{line}");
    }
}

#[test]
fn a_real_debian_gets_an_account_that_its_own_checks_find_right() {
    if !ready() || !require(on_path("pwck"), "needs pwck") {
        return;
    }
    let folder = Folder::new("debian12");
    let line = "guestseal --add user:mary:groups=sudo:key=file:bob.pub:password=file:secret \
        --add network:192.0.2.10/24:gateway=192.0.2.1:interface=ens3 --digest none -a disk.img";
    folder.run(line).expect(0);
    folder.with_files("qcow2", Access::Look, |root| {
        for check in ["pwck", "grpck"] {
            let mut run = command(check);
            run.args(["-r", "-R"]).arg(root);
            let ran = finish(run);
            assert!(!format!("{}{}", ran.stdout, ran.stderr).contains("mary"), "{ran:#?}");
        }
        let passwd = text(root, "etc/passwd");
        let line: Vec<&str> =
            passwd.lines().find(|line| line.starts_with("mary:")).unwrap().split(':').collect();
        assert_eq!(&line[5..], ["/home/mary", "/bin/bash"]);
        let uid: u32 = line[2].parse().unwrap();
        for path in ["home/mary", "home/mary/.bashrc", "home/mary/.ssh/authorized_keys"] {
            assert_eq!(root.join(path).metadata().unwrap().uid(), uid, "{path}");
        }
        assert_eq!(text(root, "home/mary/.bashrc"), text(root, "etc/skel/.bashrc"));
        assert!(text(root, "etc/subuid").contains("mary:"));
        assert!(
            text(root, "etc/network/interfaces")
                .contains("auto ens3\niface ens3 inet static\n    address 192.0.2.10/24\n")
        );
    });
    folder.run("guestseal verify disk.img").expect(0);
}
