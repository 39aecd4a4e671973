# Attacks: folders in place of every file that is read
attack() {
    local file
    for file in etc/os-release usr/lib/os-release etc/fstab etc/machine-id etc/hosts etc/timezone etc/login.defs etc/passwd etc/group \
        etc/gshadow etc/ssh/sshd_config var/log/syslog var/log/wtmp root/.bash_history etc/resolv.conf etc/passwd- usr/bin/bash; do
        rm -rf "$file" && mkdir -p "$file/inside"
    done
}
check() { [ "$(cat etc/hostname)" = sealed ] || fail 'the host name was not set'; }
