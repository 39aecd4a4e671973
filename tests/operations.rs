//! The built-in operations as data: their names, their defaults, and what they do to paths that matter.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};
use guestseal::operation::schema::{Action, Detect};
use guestseal::operation::{BUILTIN, Catalogue, Operation, reference};

/// The operations of virt-sysprep 1.56.
const VIRT_SYSPREP: &str = "abrt-data backup-files bash-history blkid-tab ca-certificates crash-data cron-spool \
    customize dhcp-client-state dhcp-server-state dovecot-data firewall-rules flag-reconfiguration fs-uuids \
    ipa-client kerberos-data kerberos-hostkeytab logfiles lvm-system-devices lvm-uuids machine-id mail-spool \
    net-hostname net-hwaddr net-nmconn pacct-log package-manager-cache pam-data passwd-backups puppet-data-log \
    rh-subscription-manager rhn-systemid rpm-db samba-db-log script smolt-uuid ssh-hostkeys ssh-userdir sssd-db-log \
    tmp-files udev-persistent-net user-account utmp yum-uuid zsh-history";

/// What does not run unless it is asked for: a change here changes what every user's image loses.
const OFF: &str = "add-user backup-files bak-files bind-rndc ca-certificates caches certmonger cfengine cloud-init-config \
    consul-data cron-spool customize-after customize-steps desktop-state dhcp-server-state dovecot-data ecs-agent firewall-rules \
    flag-reconfiguration fs-uuids grub-state hostid hostname-unset hostname ignition ipa-client \
    iscsi-targets k3s-data kerberos-data kubernetes-cni logs-elsewhere luks-uuids lvm-uuids machine-info \
    md-uuids multipath-prkeys mysql-certificates net-cloud-config net-netplan net-nmconn network nm-profile-ids oci-agent \
    package-history package-lists random-seed-new random-seed-place resolv-conf root-password script snmp-engine ssh-user-config \
    ssh-userdir systemd-linger systemd-tpm systemd-updated time-keys timezone tls-selfsigned \
    tls-snakeoil ubuntu-pro-apt udev-persistent-cd unbound-control user-account user-credentials \
    user-crontabs vmware-aliases vpn-keys";

/// What must happen to a path when every default operation runs, whatever the guest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Stays,
    Edited,
    Emptied,
    Removed,
}

fn catalogue() -> Catalogue {
    Catalogue::load(BUILTIN, &[]).expect("the built-in operations are good")
}

fn words(text: &str) -> BTreeSet<&str> {
    text.split_whitespace().collect()
}

fn matchers(globs: &[String]) -> Vec<GlobMatcher> {
    let homes = globs.iter().flat_map(|glob| match glob.strip_prefix("~/") {
        Some(below) => vec![format!("/root/{below}"), format!("/srv/home/bob/{below}")],
        None => vec![glob.clone()],
    });
    let build = |glob: String| GlobBuilder::new(&glob).literal_separator(true).build().expect("a good glob");
    homes.map(|glob| build(glob).compile_matcher()).collect()
}

/// One action of a default operation, with what it would do to a path that it takes.
struct Rule {
    paths: Vec<GlobMatcher>,
    keep: Vec<GlobMatcher>,
    recursive: bool,
    fate: Fate,
}

impl Rule {
    fn of(action: &Action) -> Option<Self> {
        let (paths, keep, recursive, fate) = match action {
            Action::Remove(remove) => (&remove.paths, &remove.keep, remove.recursive, Fate::Removed),
            Action::Truncate(truncate) => (&truncate.paths, &truncate.keep, false, Fate::Emptied),
            Action::Edit(edit) => (&edit.paths, &edit.keep, false, Fate::Edited),
            _ => return None,
        };
        Some(Self { paths: matchers(paths), keep: matchers(keep), recursive, fate })
    }

    /// A path that ends with a slash is a folder.
    fn fate(&self, path: &str) -> Fate {
        let taken = match (self.recursive, path.ends_with('/')) {
            (true, _) => hits(&self.paths, path, true),
            (false, false) => hits(&self.paths, path, false),
            (false, true) => false,
        };
        if taken && !hits(&self.keep, path, true) { self.fate } else { Fate::Stays }
    }
}

fn hits(globs: &[GlobMatcher], path: &str, below: bool) -> bool {
    let mut paths =
        Path::new(path.trim_end_matches('/')).ancestors().take(if below { usize::MAX } else { 1 });
    paths.any(|path| globs.iter().any(|glob| glob.is_match(path)))
}

fn default_rules(catalogue: &Catalogue) -> Vec<Rule> {
    let on = catalogue.sorted().into_iter().filter(|operation| operation.default);
    on.flat_map(|operation| &operation.actions).filter_map(Rule::of).collect()
}

fn fate(rules: &[Rule], path: &str) -> Fate {
    rules.iter().map(|rule| rule.fate(path)).max().unwrap_or(Fate::Stays)
}

#[test]
fn every_operation_of_virt_sysprep_is_there() {
    let catalogue = catalogue();
    for name in words(VIRT_SYSPREP) {
        assert_eq!(catalogue.get(name).expect(name).name, name);
    }
}

#[test]
fn the_defaults_are_these() {
    let catalogue = catalogue();
    let off = catalogue.sorted().into_iter().filter(|operation| !operation.default);
    assert_eq!(off.map(|operation| operation.name.as_str()).collect::<BTreeSet<_>>(), words(OFF));
}

#[test]
fn the_program_holds_every_file_of_the_folder_under_its_name() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("operations");
    let files = fs::read_dir(folder).expect("the folder of operations");
    let files: BTreeSet<String> =
        files.map(|file| file.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    let embedded: BTreeSet<String> = BUILTIN.iter().map(|(name, _)| format!("{name}.toml")).collect();
    assert_eq!(files, embedded);
    for (name, text) in BUILTIN {
        assert_eq!(guestseal::operation::parse(text, name).expect(name).name, *name);
    }
    assert!(BUILTIN.is_sorted());
}

#[test]
fn the_defaults_take_what_identifies_the_machine_and_its_people() {
    let rules = default_rules(&catalogue());
    let cases = [
        (Fate::Removed, "/var/lib/dbus/machine-id /var/lib/systemd/random-seed /boot/loader/random-seed"),
        (
            Fate::Removed,
            "/var/lib/systemd/credential.secret /etc/nvme/hostnqn /var/lib/NetworkManager/secret_key",
        ),
        (
            Fate::Removed,
            "/etc/ssh/ssh_host_rsa_key /etc/ssh/ssh_host_ed25519_key.pub /etc/ssh/ssh_host_rsa_key-cert.pub",
        ),
        (
            Fate::Removed,
            "/root/.ssh/id_ed25519 /srv/home/bob/.ssh/known_hosts.old /srv/home/bob/.bash_history",
        ),
        (
            Fate::Removed,
            "/root/.zsh_history /root/.local/share/fish/fish_history /root/.python_history /root/.psql_history",
        ),
        (
            Fate::Removed,
            "/var/log/nginx/access.log.1 /var/log/syslog.2.gz /var/log/messages-20260101 /var/log/a/b/c.old",
        ),
        (
            Fate::Removed,
            "/var/log/journal/0123456789abcdef0123456789abcdef/system.journal /var/log/journal/remote/a.journal",
        ),
        (
            Fate::Removed,
            "/var/log/wtmp.1 /var/log/btmp-20260101 /var/log/wtmp.db /var/log/wtmp.db-wal /var/lib/lastlog/lastlog2.db-shm",
        ),
        (
            Fate::Removed,
            "/var/log/audit/audit.log.1 /var/log/installer/cdebconf/questions.dat /var/log/sa/sa01 /var/log/account/pacct.0",
        ),
        (
            Fate::Removed,
            "/var/lib/dhcp/dhclient.eth0.leases /var/lib/dhcpcd/duid /var/lib/systemd/network/dhcp/x /var/lib/wicked/duid.xml",
        ),
        (
            Fate::Removed,
            "/var/lib/cloud/instance /var/lib/cloud/data/instance-id /tmp/.X11-unix/X0 /var/tmp/a/b/c /var/mail/root",
        ),
        (
            Fate::Removed,
            "/etc/shadow- /var/backups/shadow.bak /etc/.shadow.swp /etc/fstab~ /root/anaconda-ks.cfg /root/.notes.swp",
        ),
        (
            Fate::Removed,
            "/var/spool/cron/atjobs/a0001 /var/spool/postfix/deferred/A/AB /var/crash/x/vmcore /var/lib/systemd/coredump/core.a",
        ),
        (
            Fate::Removed,
            "/var/cache/apt/archives/a_1_all.deb /var/cache/apt/archives/partial/a.deb /var/cache/libdnf5/x/repodata/y.xml",
        ),
        (
            Fate::Removed,
            "/etc/krb5.keytab /var/lib/sss/db/cache_x.ldb /var/lib/sss/mc/passwd /var/lib/samba/private/secrets.tdb",
        ),
        (
            Fate::Removed,
            "/var/lib/rpm/__db.001 /var/lib/docker/engine-id /var/lib/tailscale/tailscaled.state /etc/google_instance_id",
        ),
        (
            Fate::Emptied,
            "/var/log/syslog /var/log/nginx/access.log /var/log/private/x/y /var/log/wtmp /var/log/btmp /var/log/lastlog",
        ),
        (
            Fate::Emptied,
            "/var/log/faillog /var/log/audit/audit.log /var/log/account/pacct /var/log/dpkg.log /var/log/mail.info",
        ),
        (
            Fate::Emptied,
            "/var/cache/debconf/passwords.dat /var/lib/nfs/rmtab /var/log/Xorg.0.log /var/log/cloud-init.log",
        ),
        (
            Fate::Edited,
            "/boot/loader/entries/fedora.conf /etc/default/grub /boot/grub2/grubenv /etc/popularity-contest.conf",
        ),
        (Fate::Edited, "/etc/sysconfig/network-scripts/ifcfg-eth0"),
    ];
    for (expected, paths) in cases {
        for path in words(paths) {
            assert_eq!(fate(&rules, path), expected, "{path}");
        }
    }
}

#[test]
fn the_defaults_leave_what_a_guest_needs_to_start() {
    let rules = default_rules(&catalogue());
    let paths = "/etc/machine-id /etc/hostname /etc/hosts /etc/fstab /etc/adjtime /etc/resolv.conf /etc/shadow \
        /etc/ssh/moduli /etc/ssh/revoked_keys /etc/ssh/ssh_known_hosts /etc/ssh/sshd_config /etc/ssh/ca_host_key.pub \
        /root/.ssh/authorized_keys /root/.ssh/config /root/.ssh/ /root/.bashrc /root/.cache/x /root/.aws/credentials \
        /var/log/ /var/log/nginx/ /var/log/README /var/log/journal/ /var/log/journal/remote/ /var/log/audit/ /var/log/sa/ \
        /var/lib/dhcp/dhcpd.leases /var/lib/dhcpd/dhcpd.leases /var/lib/systemd/catalog/database \
        /var/lib/systemd/deb-systemd-helper-enabled/x /var/lib/systemd/linger/bob /var/lib/cloud/ /var/lib/cloud/seed/ /var/lib/cloud/seed/nocloud/user-data \
        /var/lib/rpm/rpmdb.sqlite /var/lib/rpm/rpmdb.sqlite-wal /var/lib/rpm/rpmdb.sqlite-shm /var/lib/dpkg/status \
        /var/cache/debconf/config.dat /var/cache/debconf/templates.dat /var/cache/apt/archives/lock \
        /var/cache/apt/archives/partial/ /var/lib/apt/lists/lock /var/lib/apt/lists/x_Packages \
        /var/spool/cron/crontabs/root /var/spool/cron/root /var/spool/cron/atjobs/.SEQ /var/spool/postfix/maildrop/ \
        /var/spool/postfix/etc/resolv.conf /var/lib/nfs/state /var/lib/NetworkManager/NetworkManager.state \
        /etc/NetworkManager/system-connections/a.nmconnection /etc/netplan/50-cloud-init.yaml /etc/hostid \
        /etc/iscsi/iscsid.conf /etc/sysconfig/network-scripts/ifcfg-lo /etc/pki/product/69.pem /etc/krb5.conf \
        /var/lib/samba/private/passdb.tdb /var/lib/samba/registry.tdb /var/lib/samba/private/sam.ldb /var/lib/sss/pipes/nss \
        /var/lib/docker/overlay2/x/diff/etc/passwd~ /var/lib/docker/volumes/x/_data/y /var/lib/containers/storage/x~ \
        /var/lib/mysql/ibdata1 /var/lib/rancher/k3s/server/db/state.db /etc/kubernetes/pki.bak /var/backups/dpkg.status.0 \
        /etc/zypp/credentials.d/vendor /etc/SUSEConnect.d /tmp/ /var/tmp/ /var/mail/ /var/spool/mail/ /etc/group.bak /srv/data.bak";
    for path in words(paths) {
        assert_eq!(fate(&rules, path), Fate::Stays, "{path}");
    }
}

#[test]
fn what_is_reported_as_left_is_what_the_operation_that_is_off_would_remove() {
    let catalogue = catalogue();
    let left = catalogue.get("secrets-left").expect("secrets-left");
    let reported: Vec<&Vec<String>> =
        left.actions.iter().filter_map(detected).map(|detect| &detect.paths).collect();
    for name in ["user-credentials", "vpn-keys"] {
        assert!(
            reported.contains(&removed(catalogue.get(name).expect(name))),
            "{name} and secrets-left differ"
        );
    }
}

fn detected(action: &Action) -> Option<&Detect> {
    match action {
        Action::Detect(detect) => Some(detect),
        _ => None,
    }
}

fn removed(operation: &Operation) -> &Vec<String> {
    match &operation.actions[0] {
        Action::Remove(remove) => &remove.paths,
        other => panic!("{} removes nothing: {other:?}", operation.name),
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the switch to write the file again is for developers only")]
fn the_reference_is_up_to_date() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let text = reference(&catalogue());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, &text).expect("docs/operations.md");
    }
    let found = fs::read_to_string(&file).expect("docs/operations.md");
    assert!(
        found == text,
        "docs/operations.md is old: UPDATE_DOCS=1 cargo test --test operations writes it again"
    );
}
