# Shared by the scripts beside this file: messages, the cache folder, this machine's own Debian mirror.
# shellcheck shell=bash

shopt -s inherit_errexit

# shellcheck disable=SC2034 # used by the scripts that read this file
CACHE=${GUESTSEAL_CACHE:-/var/cache/guestseal-test}

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# usage: the comment at the head of the calling script.
usage() { sed -n '2,/^set/{/^# shellcheck/d;/^#/s/^# \?//p}' "$0"; }

need_root() { [ "$(id -u)" -eq 0 ] || die "must run as root"; }

# need TOOL...: dies when a command is missing, naming the way to get it.
need() {
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || die "$tool is missing: run scripts/setup first"
    done
}

# debian_source SUITE: prints "URI KEYRING" of the apt source that gives this machine Debian's SUITE.
debian_source() {
    local line uri entry key
    # shellcheck disable=SC2016 # apt fills these in, not the shell
    line=$(apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI) $(SOURCESENTRY)' 'Created-By: Packages' |
        awk -v suite="$1" '$1 == suite && $2 == "main" { print $3, $4; exit }')
    [ -n "$line" ] || return 1
    read -r uri entry <<<"$line"
    key=$(sed -n 's/^Signed-By:[[:space:]]*\(\/[^[:space:]]*\).*/\1/p' "${entry%:*}" | head -n 1)
    printf '%s %s\n' "$uri" "${key:-/usr/share/keyrings/debian-archive-keyring.gpg}"
}

# host_suite: the codename of the Debian release this machine runs.
host_suite() {
    # shellcheck source=/dev/null
    (. /etc/os-release && printf '%s\n' "${VERSION_CODENAME:?this is not a Debian release}")
}

# guestfs_env: lets libguestfs tools run without KVM, and on the kernel that setup unpacked.
guestfs_env() {
    local kernel
    kernel=$(readlink -f "$CACHE/kernel/vmlinuz")
    export LIBGUESTFS_BACKEND=direct LIBGUESTFS_BACKEND_SETTINGS=force_tcg
    export SUPERMIN_KERNEL=$kernel SUPERMIN_KERNEL_VERSION=${kernel##*/vmlinuz-}
    export SUPERMIN_MODULES=$CACHE/kernel/lib/modules/$SUPERMIN_KERNEL_VERSION
}
