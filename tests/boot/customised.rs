//! What a customisation asks for is there once the guest runs: its name, zone, passwords, keys and accounts, and scripts
//! that ran once, with each init system.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{FAILED, Guest, KEYS, SSHD, UP, boot, both, run};

/// What the scripts of the first boot wrote; the second one ends with 3.
const RAN: &str = "cat /root/ran";
const ALL_RAN: &str = "one\ntwo as root\nthree";
/// The log of the first boot, each script by its number and without the time.
const LOG: &str = r"sed -E 's/^=== ([0-9]+)[^ ]* (.*), .*/\1 \2/' /var/log/guestseal-firstboot.log";
const LOGGED: &str = "0001 begins\n0001 ended with 0\n0002 begins\nwhat it says\n0002 ended with 3\n\
    0003 begins\n0003 ended with 0";
/// What is left of the service that ran them.
const LEFT: &str = "find /etc /usr/lib -name '*guestseal*'; grep -s guestseal /etc/init.d/.depend.start";

impl Guest {
    /// Options for three scripts.
    fn first_boot(&self) -> Vec<String> {
        let second = self.at("second script.sh");
        fs::write(&second, "#!/bin/sh\necho two as $(id -un) >>/root/ran\necho what it says\nexit 3\n")
            .unwrap();
        let (one, three) = ("echo one >>/root/ran", "echo three >>/root/ran");
        ["--firstboot-command", one, "--firstboot", &second, "--firstboot-command", three]
            .map(str::to_owned)
            .into()
    }

    /// An option that brings a repository of one package, made here, as the guest's only one, and two more that have it
    /// installed at the first boot.
    fn first_boot_install(&self) -> Vec<String> {
        let control =
            "Package: guestseal-probe\nVersion: 1\nArchitecture: all\nMaintainer: nobody\nDescription: x\n";
        fs::create_dir_all(self.at("probe/DEBIAN")).unwrap();
        fs::create_dir(self.at("repository")).unwrap();
        fs::write(self.at("probe/DEBIAN/control"), control).unwrap();
        let package = self.at("repository/probe.deb");
        run(Command::new("dpkg-deb").args(["--build", "--root-owner-group", &self.at("probe"), &package]));
        let sum = run(Command::new("sha256sum").arg(&package)).stdout;
        let sum = String::from_utf8(sum).unwrap();
        let size = fs::metadata(&package).unwrap().len();
        let file = format!("Filename: ./probe.deb\nSize: {size}\nSHA256: {}\n", &sum[..64]);
        fs::write(self.at("repository/Packages"), format!("{control}{file}")).unwrap();
        let source = "/etc/apt/sources.list:deb [trusted=yes] file:/srv/repository ./\n";
        let bring = format!("{}:/srv", self.at("repository"));
        ["--copy-in", &bring, "--write", source, "--firstboot-install", "guestseal-probe"]
            .map(str::to_owned)
            .into()
    }

    /// A new pair of keys; its private part.
    fn key(&self) -> String {
        let key = self.at("key");
        run(Command::new("ssh-keygen").args([
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            "who logs in",
            "-f",
            &key,
        ]));
        key
    }
}

fn strs(options: &[String]) -> Vec<&str> {
    options.iter().map(String::as_str).collect()
}

/// What the guest's own programs find wrong with its accounts.
const CHECKED: &str = "pwck -r; echo $?; grpck -r; echo $?";

/// A template as its owner left it: what is checked once more in its clones was checked before, and a user has rights.
fn with_users(guest: &Guest) {
    let check = format!("{{ {CHECKED}; }} >/root/checked 2>&1");
    let rule = "/etc/sudoers.d/20-team:alice ALL=(ALL) NOPASSWD: ALL\nbob ALL=(ALL) ALL\n";
    let mut customise = guest.guestseal("seal");
    customise.args(["--operations", "customize", "--erase", "none", "--run-command", &check]);
    run(customise.args(["--write", rule, "--chmod", "0440:/etc/sudoers.d/20-team"]));
}

#[test]
#[ignore = "boots two guests, one of them twice: minutes"]
fn clones_differ_where_they_must_and_are_as_asked() {
    let guest = Guest::copy_of("debian12");
    with_users(&guest);
    let key = guest.key();
    let (password, inject) = (format!("bob:file:{}", guest.at("password")), format!("root:file:{key}.pub"));
    let names = ["--hostname", "clone.example.net", "--timezone", "Europe/Berlin"];
    let users = ["--keep-user-accounts", "bob", "--password", &password, "--ssh-inject", &inject];
    let (scripts, install) = (guest.first_boot(), guest.first_boot_install());
    guest.seal(&[&names[..], &users, &strs(&scripts), &strs(&install)].concat());

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
        LEFT,
        "stat -c '%a %U %G' /var/log/wtmp /var/log/btmp /var/log/journal",
        RAN,
    ];
    let clone = guest.thin_clone();
    let twice = || {
        let boot = |commands: &[&str]| boot(&clone, &guest.original, &["--write"], commands);
        let said = boot(&commands);
        // What ran is not run again, and nothing of it is missed.
        assert_eq!(boot(&[UP, FAILED, RAN]), ["running", "", ALL_RAN]);
        said
    };
    let over_ssh = || {
        let more = [&commands[..], &ACCOUNTS].concat();
        let mut said = boot(&guest.image(), &guest.original, &["--ssh", &key, "id -un"], &more);
        accounts_are_as_asked(&said.split_off(commands.len()));
        said
    };
    let clones = both(twice, over_ssh);
    for said in &clones {
        let [up, id, keys, failed, sshd, hostname, localtime, zone, dbus, left, logs, ran] = said.as_slice()
        else {
            panic!("{said:?}")
        };
        assert!(id.len() == 32 && id.bytes().all(|letter| letter.is_ascii_hexdigit()), "{id}");
        assert!(keys.lines().count() >= 3, "{keys}");
        assert_eq!(sshd, "SSH-2.0", "sshd does not answer");
        assert_eq!(hostname, "clone.example.net");
        assert_eq!((localtime.as_str(), zone.as_str()), ("/usr/share/zoneinfo/Europe/Berlin", "CET"));
        assert!(dbus == "/etc/machine-id" || dbus == id, "{dbus}");
        assert_eq!(logs, "664 root utmp\n660 root utmp\n2755 root systemd-journal");
        assert_eq!(ran, ALL_RAN, "{said:#?}");
        assert_eq!(left, "", "what ran once is still there");
        // One of the scripts failed, and that is to be seen.
        assert_eq!(up, "degraded");
        assert!(failed.starts_with("guestseal-firstboot.service") && failed.lines().count() == 1, "{failed}");
    }
    assert_ne!(clones[0][1], clones[1][1], "both clones have the same machine id");
    assert_ne!(clones[0][2], clones[1][2], "both clones have the same ssh host keys");
}

/// Of the one user who went, and of the one who stays. The last one is said by the session that came over the network.
const ACCOUNTS: [&str; 6] = [
    LOG,
    "dpkg-query -W guestseal-probe",
    // Files of nobody, and what still names who went.
    "find / -xdev '(' -nouser -o -nogroup ')'; grep -rlw alice /etc /var/mail /var/spool; ls -d /home/alice",
    "{ pwck -r; echo $?; grpck -r; echo $?; } 2>&1 | diff /root/checked -",
    "for word in 'a new Secret!9' guestseal; do printf '%s\\0' \"$word\" | unix_chkpwd bob nonull; echo $?; done",
    "ls /srv/home /root/.ssh; cat /etc/sudoers.d/20-team; cut -d: -f1 /etc/subuid",
];

fn accounts_are_as_asked(said: &[String]) {
    let [log, package, left, checked, passwords, stays, over_ssh] = said else { panic!("{said:?}") };
    let rest = log.strip_prefix(LOGGED).unwrap_or_else(|| panic!("{log}"));
    assert!(rest.starts_with("\n0004 begins\n") && rest.ends_with("\n0004 ended with 0"), "{log}");
    assert_eq!(package, "guestseal-probe\t1");
    assert_eq!(left, "ls: cannot access '/home/alice': No such file or directory");
    assert_eq!(checked, "", "the guest finds its accounts worse than before");
    // 7 is PAM_AUTH_ERR of the old password.
    assert_eq!(passwords, "0\n7");
    assert_eq!(stays, "/root/.ssh:\nauthorized_keys\n\n/srv/home:\nbob\nbob ALL=(ALL) ALL\nbob");
    assert_eq!(over_ssh, "root");
}

/// Boots twice, the second time to see that nothing runs again. What the commands of the first boot print comes back.
fn boots_twice(image: &Path, guest: &Guest, commands: &[&str]) -> Vec<String> {
    let boot = |commands: &[&str]| boot(image, &guest.original, &["--write"], commands);
    let mut said = boot(&[&[RAN, LOG, LEFT], commands].concat());
    assert_eq!(said[..3], [ALL_RAN, LOGGED, ""]);
    assert_eq!(boot(&[RAN, LOG]), [ALL_RAN, LOGGED]);
    said.split_off(3)
}

#[test]
#[ignore = "boots two guests twice, then checks the image of one: minutes"]
fn guests_without_systemd_run_scripts_and_make_keys_and_a_boot_shows_in_verify() {
    let commands =
        ["ls /etc/ssh/ssh_host_*_key | wc -l", "grep -c guestseal /etc/default/ssh", SSHD, "hostname"];
    let sysvinit = || {
        let guest = Guest::copy_of("debian12-sysvinit");
        let scripts = guest.first_boot();
        guest.seal(&[&["--hostname", "clone"][..], &strs(&scripts)].concat());
        let said = boots_twice(&guest.image(), &guest, &commands);
        let verify = guest.guestseal("verify").output().unwrap();
        let words = String::from_utf8_lossy(&verify.stdout);
        assert_eq!(verify.status.code(), Some(5), "a booted template passed: {words}");
        assert!(words.contains("ssh-hostkeys"), "{words}");
        said
    };
    let openrc = || {
        let guest = Guest::copy_of("debian12-sysvinit");
        let packages = format!("{}:/srv", crate::cache().join("openrc").display());
        let install = "rm /etc/init.d/rc /etc/init.d/rcS; dpkg --force-confmiss,confnew -i /srv/openrc/*.deb";
        let steps = ["--copy-in", &packages, "--run-command", install];
        run(guest.guestseal("seal").args(["--operations", "customize", "--erase", "none"]).args(steps));
        let scripts = guest.first_boot();
        guest.seal(&[&["--hostname", "clone"][..], &strs(&scripts)].concat());
        let commands = [&commands[..], &["rc-status --runlevel"]].concat();
        let mut said = boots_twice(&guest.thin_clone(), &guest, &commands);
        assert_eq!(said.pop().unwrap(), "default");
        said
    };
    for said in both(sysvinit, openrc) {
        assert!(said[0].parse::<u32>().unwrap() >= 2, "{said:#?}");
        assert_eq!(said[1..], ["0", "SSH-2.0", "clone"], "{said:#?}");
    }
}
