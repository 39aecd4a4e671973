# Hand-made trees of other distributions' layouts: the files that tell a system's kind, and those that sealing edits.
# No package of theirs is in here, so they do not boot.
# shellcheck shell=bash

# put ROOT PATH MODE OWNER:GROUP: writes the standard input to a file of the tree.
put() {
    mkdir -p "$1${2%/*}"
    cat >"$1$2"
    own "$1" "$2" "$3" "$4"
}

# accounts ROOT SHADOW-MODE SHADOW-GROUP ADMIN-GROUP: the account files, with the modes this family gives them.
accounts() {
    local root=$1 mode=$2 group=$3 admin=$4 name
    mkdir -p "$root"/{etc,root,home/alice,srv/home/bob,var/lib/jenkins,tmp,var/tmp}
    cat >"$root/etc/group" <<END
root:x:0:
bin:x:1:
adm:x:4:
mail:x:12:
shadow:x:42:
utmp:x:22:
www-data:x:33:
crontab:x:101:
systemd-journal:x:190:
$admin:x:10:alice
ssh_keys:x:102:
alice:x:1000:
bob:x:1001:
jenkins:x:998:
END
    cat >"$root/etc/passwd" <<'END'
root:x:0:0:root:/root:/bin/bash
bin:x:1:1:bin:/bin:/sbin/nologin
www-data:x:33:33:www-data:/var/www:/sbin/nologin
jenkins:x:998:998:Jenkins:/var/lib/jenkins:/bin/bash
alice:x:1000:1000:Alice:/home/alice:/bin/bash
bob:x:1001:1001:Bob:/srv/home/bob:/bin/bash
END
    load_ids "$root"
    # The password of all is "guestseal" (SHA-512 crypt).
    local hash
    hash=$(openssl passwd -6 -salt guestseal.salt.1 guestseal)
    printf '%s:'"$hash"':19700:0:99999:7:::\n' root alice bob | put "$root" /etc/shadow "$mode" "root:$group"
    printf '%s:*:19700:0:99999:7:::\n' bin www-data jenkins >>"$root/etc/shadow"
    cut -d: -f1 "$root/etc/group" | sed 's/$/:!::/' | put "$root" /etc/gshadow "$mode" "root:$group"
    printf 'alice:100000:65536\nbob:165536:65536\n' | tee "$root/etc/subuid" | put "$root" /etc/subgid 644 root:root
    for name in home/alice:alice srv/home/bob:bob var/lib/jenkins:jenkins; do
        own "$root" "/${name%:*}" 700 "${name#*:}:${name#*:}"
    done
    own "$root" /root 700 root:root
}

# common ROOT HOSTNAME: what every tree has: programs to tell the architecture by, keys, zones, logs.
common() {
    local root=$1 name=$2 type
    mkdir -p "$root"/{boot,dev,proc,sys,run,opt,mnt,usr/{bin,sbin,lib,lib64,share/zoneinfo/Europe},etc/ssh,var/{log,lib,cache,spool}}
    for type in bin sbin lib lib64; do [ -e "$root/$type" ] || ln -s "usr/$type" "$root/$type"; done
    cp /bin/true "$root/usr/bin/bash"
    cp "$root/usr/bin/bash" "$root/usr/sbin/sshd"
    cp /usr/share/zoneinfo/UTC "$root/usr/share/zoneinfo/UTC"
    cp /usr/share/zoneinfo/Europe/Berlin "$root/usr/share/zoneinfo/Europe/Berlin"
    ln -s ../usr/share/zoneinfo/UTC "$root/etc/localtime"
    printf '127.0.0.1 localhost %s\n' "$name" >"$root/etc/hosts"
    printf 'Port 22\nHostKey /etc/ssh/ssh_host_ed25519_key\n' >"$root/etc/ssh/sshd_config"
    for type in rsa ecdsa ed25519; do
        ssh-keygen -q -t "$type" -N '' -C "root@$name" -f "$root/etc/ssh/ssh_host_${type}_key"
    done
    printf 'root:x:0:0\n' >"$root/etc/passwd-"
    chmod 1777 "$root/tmp" "$root/var/tmp"
}

# os_release ROOT ID VERSION NAME [ID_LIKE]
os_release() {
    local like=${5:-}
    mkdir -p "$1/usr/lib"
    printf 'NAME="%s"\nID=%s\n%sVERSION_ID="%s"\nPRETTY_NAME="%s %s"\n' "$4" "$2" "${like:+ID_LIKE=\"$like\"$'\n'}" "$3" "$4" "$3" \
        >"$1/usr/lib/os-release"
    ln -s ../usr/lib/os-release "$1/etc/os-release"
}

# systemd ROOT VERSION: systemd as init, with the unit that says which version it is.
systemd() {
    mkdir -p "$1/usr/lib/systemd/system" "$1/etc/systemd/system"
    cp /bin/true "$1/usr/lib/systemd/systemd"
    ln -s ../lib/systemd/systemd "$1/usr/sbin/init"
    : >"$1/usr/lib/systemd/libsystemd-shared-$2.so"
}

# make_tree NAME ROOT
make_tree() {
    declare -F "tree_$1" >/dev/null || die "no hand-made tree is called $1"
    "tree_$1" "$2"
}
