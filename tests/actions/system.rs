//! The verbs that know how distributions keep things.

use super::*;

/// What makes a tree a Debian of this version.
pub(crate) fn debian(version: &str) -> Tree {
    Tree::new(&[
        (
            "/etc/os-release",
            &format!("ID=debian\nVERSION_ID=\"{version}\"\nPRETTY_NAME=\"Debian {version}\"\n"),
        ),
        ("/usr/bin/apt-get", ""),
        ("/usr/lib/systemd/systemd", ""),
        ("/lib", "-> usr/lib"),
        ("/sbin/init", "-> /lib/systemd/systemd"),
        ("/usr/sbin/sshd", ""),
        ("/usr/bin/ssh-keygen", ""),
        ("/etc/passwd", "root:x:0:0:root:/root:/bin/bash\nbob:x:1000:1000::/home/bob:/bin/bash\n"),
        ("/etc/systemd/system/", ""),
        ("/root/", ""),
        ("/home/bob/", ""),
    ])
}

#[test]
fn the_machine_id_becomes_what_the_init_system_fills() {
    let policy = |name: &str| format!("[action.machine-id]\npolicy = \"{name}\"\n");
    let id = "0123456789abcdef0123456789abcdef\n";
    for (name, left) in [("empty", Some("")), ("first-boot", Some("uninitialized\n")), ("absent", None)] {
        let tree = debian("12");
        tree.put("/etc/machine-id", id);
        assert_eq!(tree.run(&policy(name), &[]).0.len(), 1);
        assert_eq!(fs::read_to_string(tree.at("/etc/machine-id")).ok().as_deref(), left, "{name}");
    }
    // A link is followed inside the guest, and nothing is made where there was nothing.
    let tree = debian("12");
    tree.put("/var/lib/dbus/machine-id", id);
    tree.put("/etc/machine-id", "-> /var/lib/dbus/machine-id");
    assert_eq!(tree.run(&policy("empty"), &[]).0, ["Truncate /var/lib/dbus/machine-id"]);
    assert!(debian("12").run(&policy("empty"), &[]).0.is_empty());
}

#[test]
fn the_host_name_is_where_the_distribution_keeps_it() {
    let set = |tree: &Tree| tree.run("[action.hostname]\n", &[("hostname", "web.example.org")]).0;
    let tree = debian("12");
    tree.put("/etc/hostname", "template\n");
    tree.put("/etc/hosts", "127.0.0.1 localhost\n127.0.1.1 template\n10.0.0.1 template-db\n");
    assert_eq!(set(&tree), ["Write /etc/hostname", "Write /etc/hosts"]);
    assert_eq!(tree.text("/etc/hostname"), "web.example.org\n");
    assert_eq!(
        tree.text("/etc/hosts"),
        "127.0.0.1 localhost\n127.0.1.1 web.example.org\n10.0.0.1 template-db\n"
    );

    let rhel6 = Tree::new(&[
        ("/etc/redhat-release", "Red Hat Enterprise Linux Server release 6.10 (Santiago)\n"),
        ("/etc/inittab", ""),
        ("/etc/sysconfig/network", "NETWORKING=yes\nHOSTNAME=template\n"),
    ]);
    assert_eq!(set(&rhel6), ["Write /etc/sysconfig/network"]);
    assert_eq!(rhel6.text("/etc/sysconfig/network"), "NETWORKING=yes\nHOSTNAME=web.example.org\n");

    let suse = Tree::new(&[
        ("/usr/lib/systemd/systemd", ""),
        ("/etc/hostname", "old\n"),
        ("/etc/HOSTNAME", "old\n"),
    ]);
    assert_eq!(set(&suse), ["Write /etc/hostname", "Write /etc/HOSTNAME"]);
    let linked = Tree::new(&[
        ("/usr/lib/systemd/systemd", ""),
        ("/etc/hostname", "old\n"),
        ("/etc/HOSTNAME", "-> hostname"),
    ]);
    assert_eq!(set(&linked), ["Write /etc/hostname"]);

    let pretty = Tree::new(&[
        ("/usr/lib/systemd/systemd", ""),
        ("/etc/hostname", "web.example.org\n"),
        ("/etc/machine-info", "PRETTY_HOSTNAME=\"The template\"\nDEPLOYMENT=staging\n"),
    ]);
    assert_eq!(set(&pretty), ["Write /etc/machine-info"]);
    assert_eq!(pretty.text("/etc/machine-info"), "PRETTY_HOSTNAME=web.example.org\nDEPLOYMENT=staging\n");
    debian("12").refuses("[action.hostname]\n", &[("hostname", "no_name")], ErrorKind::Usage, "no host name");
}

#[test]
fn the_time_zone_must_be_one_of_the_guests() {
    let tree = debian("12");
    tree.put("/usr/share/zoneinfo/Europe/Berlin", "TZif");
    tree.put("/etc/localtime", "-> ../usr/share/zoneinfo/Etc/UTC");
    tree.put("/etc/timezone", "Etc/UTC\n");
    tree.put("/etc/sysconfig/clock", "ZONE=\"Etc/UTC\"\n");
    let (changed, _) = tree.run("[action.timezone]\n", &[("timezone", "Europe/Berlin")]);
    assert_eq!(changed, ["Link /etc/localtime", "Write /etc/timezone", "Write /etc/sysconfig/clock"]);
    assert_eq!(
        fs::read_link(tree.at("/etc/localtime")).unwrap(),
        Path::new("../usr/share/zoneinfo/Europe/Berlin")
    );
    assert_eq!(
        tree.text("/etc/timezone") + &tree.text("/etc/sysconfig/clock"),
        "Europe/Berlin\nZONE=\"Europe/Berlin\"\n"
    );
    for (zone, words) in [("Europe/Atlantis", "has no time zone"), ("../../etc/passwd", "is no time zone")] {
        tree.refuses("[action.timezone]\n", &[("timezone", zone)], ErrorKind::Usage, words);
    }
}

const REGENERATE: &str = "[action.regenerate-ssh-host-keys]\n";
const UNIT: &str = "/etc/systemd/system/guestseal-ssh-keygen.service";
const YES: [(&str, &str); 1] = [("regenerate", "true")];

#[test]
fn host_keys_are_made_again_by_somebody() {
    let systemd = "/usr/lib/systemd/system";
    let sshd = "[Service]\nExecStartPre=/usr/sbin/sshd -t\nExecStart=/usr/sbin/sshd -D\n";
    // Debian up to 12: nobody.
    let tree = debian("12");
    tree.put(&format!("{systemd}/ssh.service"), sshd);
    let (changed, notes) = tree.run(REGENERATE, &YES);
    assert_eq!(changed.len(), 3, "{changed:?}");
    assert!(tree.text(UNIT).contains("ssh-keygen -A") && notes.contains("this unit does"), "{notes}");
    assert!(
        tree.at("/etc/systemd/system/multi-user.target.wants/guestseal-ssh-keygen.service")
            .symlink_metadata()
            .is_ok()
    );
    // Debian 13: a unit, but only at a first boot.
    let tree = debian("13");
    tree.put(&format!("{systemd}/ssh.service"), sshd);
    tree.put(
        &format!("{systemd}/sshd-keygen.service"),
        "[Unit]\nConditionFirstBoot=yes\n[Service]\nExecStart=ssh-keygen -A\n",
    );
    tree.put(
        "/etc/systemd/system/ssh.service.wants/sshd-keygen.service",
        "-> /usr/lib/systemd/system/sshd-keygen.service",
    );
    assert!(!tree.run(REGENERATE, &YES).0.is_empty() && tree.has(UNIT));
    // Fedora: sshd wants a target of units.
    let fedora = Tree::new(&[
        ("/usr/lib/systemd/systemd", ""),
        ("/usr/sbin/sshd", ""),
        (
            "/usr/lib/systemd/system/sshd.service",
            "[Unit]\nWants=sshd-keygen.target\n[Service]\nExecStart=/usr/sbin/sshd -D\n",
        ),
        (
            "/usr/lib/systemd/system/sshd-keygen@.service",
            "[Service]\nExecStart=/usr/libexec/openssh/sshd-keygen %i\n",
        ),
    ]);
    let (changed, notes) = fedora.run(REGENERATE, &YES);
    assert!(changed.is_empty() && notes.contains("sshd-keygen@.service"), "{changed:?} {notes}");
    // Alpine: the service script does.
    let alpine =
        Tree::new(&[("/sbin/openrc", ""), ("/usr/sbin/sshd", ""), ("/etc/init.d/sshd", "ssh-keygen -A\n")]);
    let (changed, notes) = alpine.run(REGENERATE, &YES);
    assert!(changed.is_empty() && notes.contains("/etc/init.d/sshd"), "{notes}");
    // Debian with sysvinit: a line for its script to read.
    let files = [
        ("/etc/inittab", ""),
        ("/usr/sbin/sshd", ""),
        ("/etc/init.d/ssh", ". /etc/default/ssh\n"),
        ("/etc/default/ssh", "SSHD_OPTS="),
    ];
    let sysvinit = Tree::new(&files);
    assert_eq!(sysvinit.run(REGENERATE, &YES).0, ["Write /etc/default/ssh"]);
    assert!(sysvinit.text("/etc/default/ssh").starts_with("SSHD_OPTS=\n/usr/bin/ssh-keygen -A"));
    // Nobody, and no way to help: that is an error, unless the user says so.
    let runit = Tree::new(&[
        ("/usr/sbin/init", "-> runit-init"),
        ("/usr/sbin/runit-init", ""),
        ("/usr/sbin/sshd", ""),
    ]);
    runit.refuses(REGENERATE, &YES, ErrorKind::Unsupported, "could not be reached by ssh");
    assert!(runit.run(REGENERATE, &[("regenerate", "false")]).0.is_empty());
    let none = debian("12");
    fs::remove_file(none.at("/usr/sbin/sshd")).unwrap();
    assert!(none.run(REGENERATE, &YES).0.is_empty(), "without a server there are no keys to make");
}

/// cloud-init makes keys in its first run; the unit goes after it and does no harm.
#[test]
fn a_guest_with_cloud_init_gets_the_unit_too() {
    let tree = debian("12");
    tree.put("/usr/bin/cloud-init", "");
    tree.put("/usr/lib/systemd/system/cloud-init.service", "[Service]\nExecStart=/usr/bin/cloud-init init\n");
    tree.run(REGENERATE, &YES);
    assert!(
        tree.text(UNIT).lines().any(|line| line.starts_with("After=") && line.contains("cloud-init.service"))
    );
}

#[test]
fn configured_host_keys_go_when_they_are_keys() {
    let tree = debian("12");
    let config = "HostKey /srv/keys/own\nhostkey \"/srv/keys/quoted\"\nHostKey /etc/shadow\nHostKey relative\n#HostKey /srv/keys/not\nHostCertificate /srv/keys/cert\n";
    tree.put("/etc/ssh/sshd_config", config);
    for name in ["own", "own.pub", "quoted", "not", "cert"] {
        tree.put(
            &format!("/srv/keys/{name}"),
            if name == "own.pub" { "ssh-ed25519 AAAA" } else { "-----BEGIN OPENSSH PRIVATE KEY-----" },
        );
    }
    tree.put("/etc/shadow", "root:*:1::::::\n");
    let (mut changed, _) = tree.run("[action.sshd-host-keys]\n", &[]);
    changed.sort();
    assert_eq!(
        changed,
        [
            "Remove /srv/keys/cert",
            "Remove /srv/keys/own",
            "Remove /srv/keys/own.pub",
            "Remove /srv/keys/quoted"
        ]
    );
}

#[test]
fn accounts_go_with_their_homes_but_never_with_somebody_elses() {
    let tree = debian("12");
    let passwd = "root:x:0:0::/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\neve:x:1001:1001::/home/eve:/bin/sh\n\
        dan:x:1002:1002::/home/dan:/bin/sh\nsam:x:1003:1003::/home/sam:/bin/sh\n\
        uwe:x:1001:100::/home/uwe:/bin/sh\n";
    fs::write(tree.at("/etc/passwd"), passwd).unwrap();
    tree.put("/etc/shadow", "root:*:1::::::\nbob:!:1::::::\neve:!:1::::::\n");
    tree.put("/home/bob/file", "x");
    tree.put("/etc/important", "x");
    tree.put("/home/eve", "-> /etc");
    tree.put("/home/dan", "-> /home/keep");
    tree.put("/home/keep/file", "x");
    tree.put("/home/sam/file", "x");
    tree.put("/var/mail/bob", "mail");
    tree.put("/var/spool/cron/crontabs/bob", "cron");
    tree.put("/var/lib/systemd/linger/bob", "");
    tree.put("/var/spool/mail", "-> ../mail");
    tree.put("/var/mail/eve/new/1", "a folder of mail");
    tree.put("/var/spool/cron/atjobs/a00001", "bob's");
    tree.put("/var/spool/cron/atjobs/a00002", "eve's number is uwe's too");
    let root = nix::unistd::getuid().is_root();
    if root {
        // Only root can give a file to somebody.
        for (path, uid) in [("atjobs/a00001", 1000), ("atjobs/a00002", 1001)] {
            std::os::unix::fs::chown(tree.at(format!("/var/spool/cron/{path}")), Some(uid), None).unwrap();
        }
        std::os::unix::fs::chown(tree.at("/var/mail/eve"), Some(1001), None).unwrap();
    }
    tree.put("/etc/sudoers.d/bob", "%anything\n");
    tree.put("/etc/sudoers", "root ALL=(ALL:ALL) ALL\nbob ALL=ALL\neve ALL=(dan) ALL\ndan ALL=ALL\n");
    tree.put("/etc/sudoers.d/90-cloud", "# users\nbob ALL=(ALL) NOPASSWD:ALL\nUser_Alias US = dan, eve\n");
    let (changed, notes) = tree.run("[action.user-accounts]\n", &[("remove", "bob,eve"), ("keep", "sam")]);
    assert!(
        !tree.has("/home/bob") && !tree.has("/var/mail/bob") && !tree.has("/var/spool/cron/crontabs/bob"),
        "{changed:?}"
    );
    assert!(
        tree.has("/etc/important")
            && tree.has("/home/sam/file")
            && notes.contains("the home folder of eve stays"),
        "{notes}"
    );
    assert_eq!(tree.text("/etc/shadow"), "root:*:1::::::\n");
    assert_eq!(tree.has("/var/mail/eve"), !root, "{changed:?}");
    assert_eq!(tree.has("/var/spool/cron/atjobs/a00001"), !root, "{changed:?}");
    assert!(tree.has("/var/spool/cron/atjobs/a00002"), "{changed:?}");
    assert!(!tree.has("/etc/sudoers.d/bob") && !tree.has("/var/lib/systemd/linger/bob"), "{changed:?}");
    assert_eq!(tree.text("/etc/sudoers"), "root ALL=(ALL:ALL) ALL\ndan ALL=ALL\n");
    assert_eq!(tree.text("/etc/sudoers.d/90-cloud"), "# users\nUser_Alias US = dan, eve\n");
    assert!(notes.contains("it names a removed account"), "{notes}");
    assert!(!tree.text("/etc/passwd").contains("bob") && tree.text("/etc/passwd").contains("dan"));
}

#[test]
fn a_random_seed_is_new_each_time_and_its_place_stays() {
    let tree = Tree::new(&[("/var/lib/systemd/", ""), ("/etc/os-release", "ID=debian\n")]);
    let give = |content: &str| {
        let path = "path = \"/var/lib/systemd/random-seed\"";
        tree.run(&format!("[action.random-seed]\n{path}\ncontent = \"{content}\"\n"), &[]).0
    };
    let seed = || fs::read(tree.at("/var/lib/systemd/random-seed")).unwrap();
    assert_eq!(give("place").len(), 1);
    assert!(seed().starts_with(b"guestseal: each clone") && seed().len() == 512);
    assert!(give("place").is_empty());
    give("new");
    let first = seed();
    give("new");
    assert!(first.len() == 512 && first != seed() && !first.starts_with(b"guestseal"));
    // The place of a guest that ran has another seed.
    assert_eq!(give("place").len(), 1);
}
