//! Accounts and interfaces that a guest is to have: what is written on trees of each kind, and that all stays as it is
//! when it is there already.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn mode_and_owner(tree: &Tree, path: &str) -> (u32, u32, u32) {
    let stat = fs::symlink_metadata(tree.at(path)).unwrap();
    (stat.permissions().mode() & 0o7777, stat.uid(), stat.gid())
}

/// A Debian with all account files and a skeleton of homes; only root can give files to other users.
fn guest() -> Option<Tree> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let tree = system::debian("12");
    for (path, content) in [
        ("/etc/shadow", "root:*:19000:0:99999:7:::\nbob:!:19000:0:99999:7:::\n"),
        ("/etc/group", "root:x:0:\nsudo:x:27:eve\nadm:x:4:\nusers:x:100:\nbob:x:1000:\nlater:x:1001:\n"),
        ("/etc/gshadow", "root:*::\nsudo:*::eve\nadm:*::\nbob:!::\n"),
        ("/etc/subuid", "bob:100000:65536\n"),
        ("/etc/subgid", "bob:100000:65536\n"),
        ("/etc/login.defs", "USERGROUPS_ENAB yes\nHOME_MODE 0750\nPASS_MAX_DAYS 90\nPASS_WARN_AGE 7\n"),
        ("/etc/skel/.profile", "umask 022\n"),
        ("/etc/skel/.config/x/y", "1\n"),
        ("/etc/skel/link", "-> .profile"),
        ("/bin/bash", ""),
        ("/bin/zsh", ""),
    ] {
        tree.put(path, content);
    }
    for path in ["/", "/home", "/etc", "/etc/skel"] {
        fs::set_permissions(tree.at(path), PermissionsExt::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(tree.at("/etc/skel/.profile"), PermissionsExt::from_mode(0o644)).unwrap();
    fs::set_permissions(tree.at("/etc/shadow"), PermissionsExt::from_mode(0o640)).unwrap();
    Some(tree)
}

#[test]
fn an_account_is_made_with_all_that_belongs_to_it() {
    let Some(tree) = guest() else { return };
    let action = "[action.user]\nname = 'mary'\ngroups = ['sudo', 'adm']\ncomment = 'Mary M.'\nkey = 'ssh-ed25519 A m'\n";
    let (changed, _) = tree.run(action, &[]);
    assert_eq!(
        changed,
        [
            "Write /etc/group",
            "Write /etc/gshadow",
            "Write /etc/shadow",
            "Write /etc/passwd",
            "Write /etc/subuid",
            "Write /etc/subgid",
            "Create /home/mary",
            "Create /home/mary/.config",
            "Create /home/mary/.config/x",
            "Write /home/mary/.config/x/y",
            "Write /home/mary/.profile",
            "Link /home/mary/link",
            "Create /home/mary/.ssh",
            "Write /home/mary/.ssh/authorized_keys"
        ]
    );
    assert!(tree.text("/etc/passwd").ends_with("\nmary:x:1001:1002:Mary M.:/home/mary:/bin/bash\n"));
    assert_eq!(
        tree.text("/etc/group"),
        "root:x:0:\nsudo:x:27:eve,mary\nadm:x:4:mary\nusers:x:100:\nbob:x:1000:\nlater:x:1001:\nmary:x:1002:\n"
    );
    assert_eq!(tree.text("/etc/gshadow"), "root:*::\nsudo:*::eve,mary\nadm:*::mary\nbob:!::\nmary:!::\n");
    assert_eq!(tree.text("/etc/subuid"), "bob:100000:65536\nmary:165536:65536\n");
    let shadow = tree.text("/etc/shadow");
    let line = shadow.lines().last().unwrap();
    assert!(line.starts_with("mary:*:") && line.ends_with("::90:7:::"), "{line}");
    assert_eq!(mode_and_owner(&tree, "/etc/shadow"), (0o640, 0, 0));
    assert_eq!(mode_and_owner(&tree, "/home/mary"), (0o750, 1001, 1002));
    assert_eq!(mode_and_owner(&tree, "/home/mary/.profile"), (0o644, 1001, 1002));
    assert_eq!(mode_and_owner(&tree, "/home/mary/.config/x/y").1, 1001);
    assert_eq!(mode_and_owner(&tree, "/home/mary/.ssh"), (0o700, 1001, 1002));
    assert_eq!(mode_and_owner(&tree, "/home/mary/.ssh/authorized_keys"), (0o600, 1001, 1002));
    assert_eq!(tree.text("/home/mary/.ssh/authorized_keys"), "ssh-ed25519 A m\n");
}

#[test]
fn an_account_that_is_there_is_changed_as_far_as_that_can_be() {
    let Some(tree) = guest() else { return };
    fs::remove_dir(tree.at("/home/bob")).unwrap();
    let users = "[{\"name\":\"bob\",\"shell\":\"/bin/zsh\",\"groups\":[\"sudo\",\"bob\"]},{\"name\":\"eve\",\"uid\":1500}]";
    let (changed, _) = tree.run("[action.users]\n", &[("users", users)]);
    assert!(
        tree.text("/etc/passwd").contains("bob:x:1000:1000::/home/bob:/bin/zsh\neve:x:1500:1500:"),
        "{changed:?}"
    );
    assert!(
        tree.text("/etc/group").contains("sudo:x:27:eve,bob\n")
            && tree.text("/etc/group").contains("bob:x:1000:\n")
    );
    assert!(tree.text("/etc/shadow").contains("bob:!:19000:"), "the password stays");
    assert_eq!(mode_and_owner(&tree, "/home/bob").1, 1000);
    assert_eq!(tree.text("/etc/subuid"), "bob:100000:65536\neve:165536:65536\n");

    let user = |rest: &str| format!("[action.user]\n{rest}\n");
    for (action, words) in [
        ("name = 'bob'\nuid = 5", "with another uid"),
        ("name = 'bob'\nhome = '/srv/bob'", "with another home"),
        ("name = 'mary'\nuid = 1000", "belongs to another account"),
        ("name = 'mary'\ngroups = ['sudoo']", "no group sudoo"),
        ("name = 'mary'\nshell = '/bin/fish'", "no shell /bin/fish"),
    ] {
        tree.refuses(&user(action), &[], ErrorKind::Usage, words);
    }
    fs::remove_file(tree.at("/etc/group")).unwrap();
    tree.refuses(&user("name = 'mary'"), &[], ErrorKind::Unsupported, "keeps accounts elsewhere");
}

#[test]
fn a_guest_without_groups_of_users_and_without_shadow_has_its_own_way() {
    let Some(tree) = guest() else { return };
    tree.put("/etc/login.defs", "USERGROUPS_ENAB no\n");
    tree.put("/etc/default/useradd", "GROUP=100\nHOME=/srv/home\nSKEL=/etc/none\n");
    for file in ["/etc/shadow", "/etc/gshadow", "/etc/subuid", "/etc/subgid", "/bin/bash"] {
        fs::remove_file(tree.at(file)).unwrap();
    }
    let (changed, _) = tree.run("[action.user]\nname = 'mary'\n", &[]);
    assert_eq!(changed, ["Write /etc/passwd", "Create /srv", "Create /srv/home", "Create /srv/home/mary"]);
    assert!(tree.text("/etc/passwd").ends_with("\nmary:*:1001:100::/srv/home/mary:/bin/sh\n"));
    assert_eq!(mode_and_owner(&tree, "/srv/home/mary"), (0o755, 1001, 100));
    // busybox has neither login.defs nor a group for all.
    fs::remove_file(tree.at("/etc/login.defs")).unwrap();
    tree.run("[action.user]\nname = 'eve'\n", &[]);
    assert!(tree.text("/etc/group").ends_with("\neve:x:1002:\n"));
}

/// A guest with systemd that has these services switched on, and these files.
fn systemd(services: &[&str], files: &[(&str, &str)]) -> Tree {
    let tree = Tree::new(&[
        ("/usr/lib/systemd/systemd", ""),
        ("/sbin/init", "-> /usr/lib/systemd/systemd"),
        ("/etc/", ""),
    ]);
    for service in services {
        tree.put(&format!("/etc/systemd/system/multi-user.target.wants/{service}.service"), "-> /x");
    }
    files.iter().for_each(|(path, content)| tree.put(path, content));
    tree
}

fn network(rest: &str) -> String {
    format!("[action.network]\n{rest}\n")
}

const FIXED: &str = "interface = 'eth0'\naddress = '192.0.2.10/24'\ngateway = '192.0.2.1'\ndns = ['192.0.2.53', '2001:db8::53']";
const DHCP: &str = "address = 'dhcp'";

#[test]
fn netplan_gets_a_file_and_loses_those_about_the_same_interface() {
    let cloud = "network:\n  version: 2\n  ethernets:\n    eth0:\n      dhcp4: true\n";
    let other = "network:\n  ethernets:\n    eth1:\n      dhcp4: true\n";
    let files = [
        ("/usr/sbin/netplan", ""),
        ("/etc/netplan/50-cloud-init.yaml", cloud),
        ("/etc/netplan/60.yaml", other),
    ];
    let tree = systemd(&["systemd-networkd"], &files);
    let (changed, _) = tree.run(&network(FIXED), &[]);
    assert_eq!(
        changed,
        ["Remove /etc/netplan/50-cloud-init.yaml", "Write /etc/netplan/90-guestseal-eth0.yaml"]
    );
    let text = "network:\n  version: 2\n  ethernets:\n    eth0:\n      dhcp4: false\n      dhcp6: false\n      addresses: [\"192.0.2.10/24\"]\n      routes:\n        - to: \"0.0.0.0/0\"\n          via: \"192.0.2.1\"\n      nameservers:\n        addresses: [\"192.0.2.53\", \"2001:db8::53\"]\n";
    assert_eq!(tree.text("/etc/netplan/90-guestseal-eth0.yaml"), text);
    assert_eq!(mode_and_owner(&tree, "/etc/netplan/90-guestseal-eth0.yaml").0, 0o600);
    let bond = "network:\n  ethernets:\n    eth0: {}\n  bonds:\n    bond0:\n      interfaces: [eth0]\n";
    tree.put("/etc/netplan/60.yaml", bond);
    tree.refuses(&network(FIXED), &[], ErrorKind::Unsupported, "60.yaml in the guest is about other");
}

#[test]
fn network_manager_gets_a_keyfile_that_wins() {
    let tree = systemd(&["NetworkManager"], &[]);
    assert!(
        tree.run(&network(FIXED), &[])
            .0
            .iter()
            .any(|change| change.ends_with("/guestseal-eth0.nmconnection"))
    );
    let path = "/etc/NetworkManager/system-connections/guestseal-eth0.nmconnection";
    let text = "[connection]\nid=guestseal-eth0\ntype=ethernet\nautoconnect-priority=999\ninterface-name=eth0\n\n[ipv4]\nmethod=manual\naddress1=192.0.2.10/24,192.0.2.1\ndns=192.0.2.53;\n\n[ipv6]\nmethod=auto\ndns=2001:db8::53;\n";
    assert_eq!((tree.text(path).as_str(), mode_and_owner(&tree, path).0), (text, 0o600));
    tree.run(&network(DHCP), &[]);
    let text = tree.text("/etc/NetworkManager/system-connections/guestseal.nmconnection");
    assert!(
        text.ends_with("[ipv4]\nmethod=auto\n\n[ipv6]\nmethod=auto\n") && !text.contains("interface-name")
    );
    // Switched on, but masked, it sets up nothing.
    tree.put("/etc/systemd/system/NetworkManager.service", "-> /dev/null");
    tree.refuses(&network(DHCP), &[], ErrorKind::Unsupported, "no service that sets up");
}

#[test]
fn network_manager_with_ifcfg_files_gets_one_of_those() {
    let old = "# old\nDEVICE=\"eth0\"\nBOOTPROTO=dhcp\n";
    let folder = "/etc/sysconfig/network-scripts";
    let files = [
        ("/etc/sysconfig/network-scripts/ifcfg-lo", "DEVICE=lo\n"),
        ("/etc/sysconfig/network-scripts/ifcfg-System_eth0", old),
        ("/usr/lib64/NetworkManager/1.30/libnm-settings-plugin-ifcfg-rh.so", ""),
    ];
    let text = "DEVICE=eth0\nTYPE=Ethernet\nONBOOT=yes\nBOOTPROTO=none\nIPADDR=192.0.2.10\nPREFIX=24\nGATEWAY=192.0.2.1\nDNS1=192.0.2.53\nDNS2=2001:db8::53\n";
    let tree = systemd(&["NetworkManager"], &files);
    assert_eq!(tree.run(&network(FIXED), &[]).0, [format!("Write {folder}/ifcfg-System_eth0")]);
    assert_eq!(tree.text(&format!("{folder}/ifcfg-System_eth0")), text);
    assert_eq!(tree.run(&network(DHCP), &[]).0.len(), 1, "the only one is meant");
    // Without what reads them they are left over from an older release.
    let newer = systemd(&["NetworkManager"], &files[..2]);
    assert!(newer.run(&network(FIXED), &[]).0.iter().all(|change| change.contains("NetworkManager")));

    let rhel6 =
        Tree::new(&[("/etc/inittab", ""), ("/etc/rc.d/rc3.d/S10network", "-> ../init.d/network"), files[0]]);
    let six = "interface = 'eth1'\naddress = '2001:db8::10/64'\ngateway = 'fe80::1'";
    assert_eq!(rhel6.run(&network(six), &[]).0, [format!("Write {folder}/ifcfg-eth1")]);
    let text = rhel6.text(&format!("{folder}/ifcfg-eth1"));
    assert!(text.ends_with("IPV6ADDR=2001:db8::10/64\nIPV6_DEFAULTGW=fe80::1\n"), "{text}");
    let unknown =
        Tree::new(&[("/etc/inittab", ""), ("/etc/rc.d/rc3.d/S10network", "-> ../init.d/network"), files[0]]);
    unknown.refuses(&network(DHCP), &[], ErrorKind::Usage, "which interface");
}

#[test]
fn networkd_gets_a_file_before_all_others() {
    let tree =
        systemd(&["systemd-networkd"], &[("/etc/systemd/network/10-cloud-init-eth0.network", "[Match]\n")]);
    assert_eq!(tree.run(&network(FIXED), &[]).0, ["Write /etc/systemd/network/00-guestseal-eth0.network"]);
    assert_eq!(
        tree.text("/etc/systemd/network/00-guestseal-eth0.network"),
        "[Match]\nName=eth0\n\n[Network]\nAddress=192.0.2.10/24\nGateway=192.0.2.1\nDNS=192.0.2.53\nDNS=2001:db8::53\n"
    );
    tree.run("[action.networks]\n", &[("networks", "[{\"address\":\"dhcp\"}]")]);
    assert_eq!(
        tree.text("/etc/systemd/network/00-guestseal.network"),
        "[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n"
    );
}

#[test]
fn ifupdown_gets_the_interface_in_its_own_file() {
    let main =
        "auto lo\niface lo inet loopback\n\nallow-hotplug eth0\niface eth0 inet dhcp\n    hostname x\n";
    let other = "iface eth0 inet6 auto\niface eth1 inet dhcp\n";
    let tree = systemd(
        &["networking"],
        &[
            ("/etc/network/interfaces", main),
            ("/etc/network/interfaces.d/more", other),
            ("/etc/resolv.conf", "search x\nnameserver 10.0.0.1\n"),
        ],
    );
    let (changed, _) = tree.run(&network(FIXED), &[]);
    assert_eq!(
        changed,
        ["Write /etc/network/interfaces", "Write /etc/network/interfaces.d/more", "Write /etc/resolv.conf"]
    );
    assert_eq!(
        tree.text("/etc/network/interfaces"),
        "auto lo\niface lo inet loopback\n\nallow-hotplug eth0\niface eth0 inet static\n    address 192.0.2.10/24\n    gateway 192.0.2.1\n    dns-nameservers 192.0.2.53 2001:db8::53\n"
    );
    assert_eq!(tree.text("/etc/network/interfaces.d/more"), "iface eth1 inet dhcp\n");
    assert_eq!(tree.text("/etc/resolv.conf"), "search x\nnameserver 192.0.2.53\nnameserver 2001:db8::53\n");
    tree.refuses(&network(DHCP), &[], ErrorKind::Usage, "eth0, eth1");
    // What stands there is left alone by NetworkManager, so it goes there as well.
    tree.put("/etc/systemd/system/multi-user.target.wants/NetworkManager.service", "-> /x");
    let (changed, _) = tree.run(&network("interface = 'eth1'\naddress = '192.0.2.11/24'"), &[]);
    assert_eq!(changed, ["Write /etc/network/interfaces", "Write /etc/network/interfaces.d/more"]);
    let (changed, _) = tree.run(&network("interface = 'eth2'\naddress = 'dhcp'"), &[]);
    assert!(changed.iter().all(|change| change.contains("NetworkManager")), "{changed:?}");

    let alpine = Tree::new(&[
        ("/sbin/openrc", ""),
        ("/etc/runlevels/boot/networking", "-> /etc/init.d/networking"),
        ("/etc/network/interfaces", "auto lo\niface lo inet loopback"),
    ]);
    alpine.run(&network(DHCP), &[]);
    let text = "auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet dhcp\n";
    assert_eq!(alpine.text("/etc/network/interfaces"), text);
    let two = r#"[{"interface":"eth0","address":"192.0.2.10/24","dns":["192.0.2.1"]},{"interface":"eth1","address":"dhcp","dns":["192.0.2.2"]}]"#;
    alpine.run("[action.networks]\n", &[("networks", two)]);
    let interfaces = alpine.text("/etc/network/interfaces");
    assert!(
        interfaces.contains("auto eth0\niface eth0 inet static\n")
            && interfaces.contains("auto eth1\niface eth1 inet dhcp\n")
    );
    assert_eq!(alpine.text("/etc/resolv.conf"), "nameserver 192.0.2.1\nnameserver 192.0.2.2\n");
}

#[test]
fn wicked_gets_its_files_and_netconfig_the_servers() {
    let tree = systemd(
        &["wicked"],
        &[("/etc/sysconfig/network/config", "X=1\nNETCONFIG_DNS_STATIC_SERVERS=\"\"\n")],
    );
    let (changed, _) = tree.run(&network(FIXED), &[]);
    assert_eq!(changed.len(), 3, "{changed:?}");
    let at = |name: &str| tree.text(&format!("/etc/sysconfig/network/{name}"));
    assert_eq!(at("ifcfg-eth0"), "BOOTPROTO='static'\nSTARTMODE='auto'\nIPADDR='192.0.2.10/24'\n");
    assert_eq!(at("ifroute-eth0"), "default 192.0.2.1 - eth0\n");
    assert_eq!(at("config"), "X=1\nNETCONFIG_DNS_STATIC_SERVERS=\"192.0.2.53 2001:db8::53\"\n");
    tree.run(&network(DHCP), &[]);
    assert_eq!(at("ifcfg-eth0"), "BOOTPROTO='dhcp'\nSTARTMODE='auto'\n");
    assert!(!tree.has("/etc/sysconfig/network/ifroute-eth0"));
}

#[test]
fn a_guest_that_nobody_sets_up_is_not_guessed_at() {
    tree_refuses(&systemd(&[], &[("/etc/network/interfaces", "auto lo\n"), ("/etc/netplan/x.yaml", "")]));
    tree_refuses(&Tree::new(&[("/sbin/openrc", ""), ("/etc/network/interfaces", "auto lo\n")]));
}

fn tree_refuses(tree: &Tree) {
    tree.refuses(&network(DHCP), &[], ErrorKind::Unsupported, "no service that sets up the guest's network");
}

#[test]
fn whoever_may_write_another_configuration_is_named() {
    let tree = systemd(&["systemd-networkd"], &[("/usr/bin/cloud-init", "")]);
    assert!(tree.run(&network(DHCP), &[]).1.contains("cloud-init"));
    tree.put("/etc/cloud/cloud.cfg.d/99.cfg", "network: {config: disabled}\n");
    assert_eq!(tree.run(&network("interface = 'eth1'\naddress = 'dhcp'"), &[]).1, "");
}
