# One hand-made tree for each distribution; trees.sh has the parts that they share.
# shellcheck shell=bash

# unit ROOT NAME: writes a systemd unit from the standard input.
unit() { put "$1" "/usr/lib/systemd/system/$2" 644 root:root; }

# programs ROOT PATH...: an ELF file at each path, so that a tool is seen to be there.
programs() {
    local root=$1 path
    shift
    for path in "$@"; do
        mkdir -p "$root${path%/*}"
        cp /bin/true "$root$path"
    done
}

# keygen_units ROOT: the units of Fedora and RHEL that make a missing ssh host key at boot.
keygen_units() {
    unit "$1" sshd-keygen@.service <<'END'
[Unit]
Description=OpenSSH %i Server Key Generation
ConditionFileNotEmpty=|!/etc/ssh/ssh_host_%i_key

[Service]
Type=oneshot
ExecStart=/usr/libexec/openssh/sshd-keygen %i

[Install]
WantedBy=sshd-keygen.target
END
    unit "$1" sshd-keygen.target <<<$'[Unit]\nWants=sshd-keygen@rsa.service sshd-keygen@ecdsa.service sshd-keygen@ed25519.service\nPartOf=sshd.service'
    unit "$1" sshd.service <<<$'[Unit]\nWants=sshd-keygen.target\nAfter=sshd-keygen.target\n\n[Service]\nExecStart=/usr/sbin/sshd -D\n\n[Install]\nWantedBy=multi-user.target'
    programs "$1" /usr/libexec/openssh/sshd-keygen
}

# boot_entry ROOT KERNEL: a boot loader entry that carries the machine id, and GRUB's 1024-byte environment.
boot_entry() {
    local id=0123456789abcdef0123456789abcdef
    put "$1" "/boot/loader/entries/$id-$2.conf" 644 root:root <<END
title Linux ($2)
version $2
machine-id $id
linux /vmlinuz-$2
initrd /initramfs-$2.img
options root=UUID=00000000-0000-4000-a000-000000000001 ro systemd.machine_id=$id
END
    { printf '# GRUB Environment Block\nsaved_entry=%s-%s\nboot_success=1\n' "$id" "$2" && printf '#%.0s' {1..1024}; } |
        head -c 1024 | put "$1" /boot/grub2/grubenv 600 root:root
}

network_manager() {
    put "$1" /etc/NetworkManager/system-connections/eth0.nmconnection 600 root:root <<'END'
[connection]
id=eth0
uuid=11111111-2222-4333-8444-555555555555
type=ethernet
interface-name=eth0
timestamp=1700000000

[ethernet]
mac-address=52:54:00:12:34:56
END
    programs "$1" /usr/sbin/NetworkManager
}

tree_fedora() {
    accounts "$1" 0000 root wheel
    common "$1" fedora.example.org
    os_release "$1" fedora 42 "Fedora Linux"
    systemd "$1" 257
    keygen_units "$1"
    network_manager "$1"
    boot_entry "$1" 6.14.0-63.fc42.x86_64
    programs "$1" /usr/bin/dnf5 /usr/bin/rpm
    ln -s dnf5 "$1/usr/bin/dnf"
    put "$1" /usr/lib/sysimage/rpm/rpmdb.sqlite 644 root:root <<<'SQLite format 3'
    put "$1" /usr/lib/sysimage/libdnf5/packages.toml 644 root:root <<<'version = "1.0"'
    put "$1" /etc/selinux/config 644 root:root <<<$'SELINUX=enforcing\nSELINUXTYPE=targeted'
    put "$1" /etc/hostname 644 root:root <<<fedora.example.org
    mkdir -p "$1/var/spool/mail" && ln -s spool/mail "$1/var/mail"
}

tree_rhel9() {
    accounts "$1" 0000 root wheel
    common "$1" rhel9.example.org
    os_release "$1" rhel 9.4 "Red Hat Enterprise Linux" fedora
    put "$1" /etc/redhat-release 644 root:root <<<'Red Hat Enterprise Linux release 9.4 (Plow)'
    systemd "$1" 252
    keygen_units "$1"
    network_manager "$1"
    boot_entry "$1" 5.14.0-427.el9.x86_64
    programs "$1" /usr/bin/dnf-3 /usr/bin/rpm /usr/sbin/subscription-manager
    ln -s dnf-3 "$1/usr/bin/dnf"
    ln -s dnf-3 "$1/usr/bin/yum"
    put "$1" /var/lib/rpm/rpmdb.sqlite 644 root:root <<<'SQLite format 3'
    put "$1" /etc/selinux/config 644 root:root <<<$'SELINUX=enforcing\nSELINUXTYPE=targeted'
    put "$1" /etc/sysconfig/network-scripts/ifcfg-eth0 644 root:root \
        <<<$'DEVICE=eth0\nBOOTPROTO=dhcp\nONBOOT=yes\nHWADDR=52:54:00:12:34:56\nUUID=11111111-2222-4333-8444-555555555555'
    put "$1" /etc/hostname 644 root:root <<<rhel9.example.org
    chmod 640 "$1"/etc/ssh/ssh_host_*_key
    chgrp 102 "$1"/etc/ssh/ssh_host_*_key
    mkdir -p "$1/var/spool/mail" && ln -s spool/mail "$1/var/mail"
}

tree_rhel6() {
    mkdir -p "$1"/{bin,sbin,lib,lib64}
    accounts "$1" 0000 root wheel
    common "$1" rhel6.example.org
    rm "$1/etc/localtime"
    cp "$1/usr/share/zoneinfo/UTC" "$1/etc/localtime"
    put "$1" /etc/redhat-release 644 root:root <<<'CentOS release 6.10 (Final)'
    programs "$1" /sbin/init /bin/bash /bin/rpm /usr/bin/yum
    put "$1" /etc/inittab 644 root:root <<<'id:3:initdefault:'
    put "$1" /etc/init/rcS.conf 644 root:root <<<'start on startup'
    put "$1" /etc/init.d/sshd 755 root:root \
        <<<$'#!/bin/bash\nKEYGEN=/usr/bin/ssh-keygen\ndo_rsa_keygen() { $KEYGEN -q -t rsa -f "$RSA_KEY"; }\n/usr/sbin/sshd'
    put "$1" /etc/sysconfig/network 644 root:root <<<$'NETWORKING=yes\nHOSTNAME=rhel6.example.org'
    put "$1" /etc/sysconfig/clock 644 root:root <<<'ZONE="Etc/UTC"'
    put "$1" /etc/sysconfig/network-scripts/ifcfg-eth0 644 root:root \
        <<<$'DEVICE=eth0\nBOOTPROTO=dhcp\nONBOOT=yes\nHWADDR="52:54:00:12:34:56"\nDHCP_HOSTNAME=rhel6'
    put "$1" /etc/sysconfig/network-scripts/ifcfg-lo 644 root:root <<<$'DEVICE=lo\nIPADDR=127.0.0.1'
    put "$1" /var/lib/rpm/Packages 644 root:root <<<'Berkeley DB'
    put "$1" /var/lib/rpm/__db.001 644 root:root <<<'environment'
    put "$1" /boot/grub/grub.conf 600 root:root <<<'default=0'
    mkdir -p "$1/var/spool/mail" && ln -s spool/mail "$1/var/mail"
}

tree_opensuse() {
    accounts "$1" 0640 shadow wheel
    common "$1" opensuse.example.org
    os_release "$1" opensuse-leap 15.6 "openSUSE Leap" "suse opensuse"
    systemd "$1" 254
    programs "$1" /usr/bin/zypper /usr/bin/rpm /usr/sbin/wicked /usr/sbin/sshd-gen-keys-start
    unit "$1" sshd.service <<<$'[Service]\nExecStartPre=/usr/sbin/sshd-gen-keys-start\nExecStart=/usr/sbin/sshd -D\n\n[Install]\nWantedBy=multi-user.target'
    put "$1" /usr/lib/sysimage/rpm/Packages.db 644 root:root <<<RpmP
    put "$1" /etc/sysconfig/network/ifcfg-eth0 644 root:root <<<$'BOOTPROTO=dhcp\nSTARTMODE=auto\nLLADDR=52:54:00:12:34:56'
    put "$1" /etc/hostname 644 root:root <<<opensuse.example.org
    put "$1" /.snapshots/1/info.xml 600 root:root <<<'<snapshot><type>single</type><num>1</num></snapshot>'
    mkdir -p "$1/var/spool/mail" && ln -s spool/mail "$1/var/mail"
}

tree_arch() {
    accounts "$1" 0600 root wheel
    common "$1" arch.example.org
    os_release "$1" arch rolling "Arch Linux"
    systemd "$1" 257
    programs "$1" /usr/bin/pacman
    unit "$1" sshdgenkeys.service <<<$'[Unit]\nConditionPathExists=|!/etc/ssh/ssh_host_ed25519_key\n\n[Service]\nType=oneshot\nExecStart=/usr/bin/ssh-keygen -A'
    unit "$1" sshd.service <<<$'[Unit]\nWants=sshdgenkeys.service\nAfter=sshdgenkeys.service\n\n[Service]\nExecStart=/usr/bin/sshd -D'
    put "$1" /var/lib/pacman/local/ALPM_DB_VERSION 644 root:root <<<9
    put "$1" /etc/hostname 644 root:root <<<arch
    mkdir -p "$1/var/spool/mail" && ln -s spool/mail "$1/var/mail"
}

tree_alpine() {
    mkdir -p "$1"/{bin,sbin,lib,lib64}
    accounts "$1" 0640 shadow wheel
    common "$1" alpine.example.org
    os_release "$1" alpine 3.20.3 "Alpine Linux"
    put "$1" /etc/alpine-release 644 root:root <<<3.20.3
    programs "$1" /bin/busybox /sbin/apk /sbin/openrc
    ln -s busybox "$1/bin/sh"
    ln -s ../bin/busybox "$1/sbin/init"
    put "$1" /etc/inittab 644 root:root <<<$'::sysinit:/sbin/openrc sysinit\nttyS0::respawn:/sbin/getty -L 0 ttyS0 vt100'
    put "$1" /etc/init.d/sshd 755 root:root <<<$'#!/sbin/openrc-run\ngenerate_host_keys() { ssh-keygen -A; }'
    put "$1" /lib/apk/db/installed 644 root:root <<<'P:busybox'
    put "$1" /etc/apk/world 644 root:root <<<'alpine-base'
    put "$1" /etc/hostname 644 root:root <<<alpine
    put "$1" /etc/network/interfaces 644 root:root <<<$'auto eth0\niface eth0 inet dhcp'
    mkdir -p "$1/var/mail" "$1/etc/runlevels/default"
    ln -s /etc/init.d/sshd "$1/etc/runlevels/default/sshd"
}
