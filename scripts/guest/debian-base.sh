# Debian base systems by mmdebstrap, one cached tarball for each suite and flavour.
# shellcheck shell=bash

BASE_PACKAGES=(
    linux-image-cloud-amd64 initramfs-tools zstd kmod udev procps
    e2fsprogs xfsprogs btrfs-progs
    openssh-server sudo cron logrotate rsyslog login passwd util-linux
    iproute2 ifupdown netbase tzdata ca-certificates less
)

# flavour_packages SUITE FLAVOUR: what this system has beside the packages common to all.
flavour_packages() {
    case $2 in
        systemd) echo systemd-sysv dbus libpam-systemd ;;
        cloud) echo systemd-sysv dbus libpam-systemd cloud-init ;;
        sysvinit) echo sysvinit-core orphan-sysvinit-scripts ;;
        # For a root on LVM, in LUKS or on MD, opened by the initramfs.
        layered) echo systemd-sysv dbus libpam-systemd lvm2 cryptsetup-initramfs mdadm ;;
        *) die "unknown flavour $2" ;;
    esac
    case $1 in
        bookworm) echo isc-dhcp-client ;;
        trixie) echo dhcpcd-base wtmpdb libpam-wtmpdb lastlog2 libpam-lastlog2 ;;
    esac
}

# configure_base FLAVOUR: runs in the new system: the accounts, names and passwords that a template's owner would have
# made.
configure_base() {
    cat <<'END'
set -eu
echo template >/etc/hostname
printf '127.0.0.1 localhost\n127.0.1.1 template.example.org template\n::1 localhost ip6-localhost\n' >/etc/hosts
ln -sf /usr/share/zoneinfo/Etc/UTC /etc/localtime
echo Etc/UTC >/etc/timezone
mkdir -p /srv/home
useradd -m -s /bin/bash -G sudo,adm alice
useradd -m -d /srv/home/bob -s /bin/bash bob
useradd -r -m -d /var/lib/jenkins -s /bin/bash jenkins
printf '%s:guestseal\n' root alice bob | chpasswd
printf 'auto lo\niface lo inet loopback\n' >/etc/network/interfaces
printf 'nameserver 192.0.2.53\n' >/etc/resolv.conf
[ ! -e /etc/inittab ] || echo 'T0:23:respawn:/sbin/getty -L ttyS0 115200 vt220' >>/etc/inittab
END
    # The initramfs is made before anybody knows what the root will be on.
    [ "$1" != layered ] || cat <<'END'
echo CRYPTSETUP=y >>/etc/cryptsetup-initramfs/conf-hook
update-initramfs -u
END
}

# debian_base SUITE FLAVOUR: prints the path of the tarball, after making it when there is none.
debian_base() {
    local suite=$1 flavour=$2 packages uri key recipe tarball security
    read -r -a packages <<<"$(flavour_packages "$suite" "$flavour" | tr '\n' ' ')"
    recipe=$(configure_base "$flavour")
    tarball=$CACHE/base/$suite-$flavour-$(sha256sum <<<"${BASE_PACKAGES[*]} ${packages[*]} $recipe" | cut -c1-12).tar.zst
    mkdir -p "${tarball%/*}"
    exec 8>"${tarball%-*}.lock"
    flock 8 # several guests may want the same base at once
    if [ ! -e "$tarball" ]; then
        say "making a base system: Debian $suite ($flavour)"
        read -r uri key < <(debian_source "$(host_suite)") || die "no apt source of Debian found"
        security=$(debian_source "$(host_suite)-security") || security=
        recipe=$(mktemp)
        configure_base "$flavour" >"$recipe"
        # The guest keeps its package cache, as a machine that was worked on does. The locks are closed for mmdebstrap:
        # its apt hook names a descriptor, and dash knows none above 9.
        # shellcheck disable=SC2016 # mmdebstrap's shell expands the hooks
        mmdebstrap --quiet --mode=root --variant=minbase --skip=cleanup/apt \
            --include="$(tr ' ' , <<<"${BASE_PACKAGES[*]} ${packages[*]}")" --keyring="$key" \
            --customize-hook="copy-in $recipe /tmp" \
            --customize-hook="chroot \"\$1\" sh /tmp/${recipe##*/} && rm \"\$1/tmp/${recipe##*/}\"" \
            --customize-hook='rm -f "$1"/var/lib/apt/lists/*_* "$1"/var/cache/apt/*.bin' \
            "$suite" "$tarball.new.tar.zst" "deb $uri $suite main" \
            ${security:+"deb ${security% *} $suite-security main"} >&2 8>&- 9>&-
        rm "$recipe"
        mv "$tarball.new.tar.zst" "$tarball"
    fi
    exec 8>&-
    printf '%s\n' "$tarball"
}
