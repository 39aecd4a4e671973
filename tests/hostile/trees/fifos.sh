# Attacks: FIFOs, sockets or device nodes in place of every file that is read, emptied or edited: reading would wait, or act
# Each: fifo socket zero tty loop disk
FILES='etc/os-release usr/lib/os-release etc/fstab etc/machine-id etc/hostname etc/hosts etc/localtime etc/timezone etc/login.defs
    etc/passwd etc/group etc/gshadow etc/subuid etc/subgid etc/ssh/sshd_config etc/ssh/sshd_config.d/a.conf etc/pam.d/common-password
    etc/pam.d/system-auth etc/redhat-release etc/debian_version etc/sysconfig/clock etc/sysconfig/network etc/HOSTNAME
    etc/default/grub etc/kernel/cmdline etc/passwd- etc/ssh/ssh_host_rsa_key etc/resolv.conf etc/default/ssh
    var/lib/systemd/random-seed var/lib/dbus/machine-id var/log/syslog var/log/wtmp var/log/lastlog root/.bash_history
    home/alice/.bash_history tmp/x var/tmp/x usr/bin/bash usr/sbin/init usr/lib/libcrypt.so.1 var/lib/dpkg/status etc/cloud/cloud.cfg
    root/.ssh/known_hosts boot/grub/grubenv'
attack() {
    local file
    for file in $FILES; do
        mkdir -p "$(dirname "$file")"
        rm -rf "$file"
        case $1 in
            fifo) mkfifo "$file" ;;
            socket) python3 -c 'import os, socket, sys; os.chdir(os.path.dirname(sys.argv[1])); socket.socket(socket.AF_UNIX).bind(os.path.basename(sys.argv[1]))' "$file" ;;
            zero) mknod "$file" c 1 5 ;;
            tty) mknod "$file" c 5 0 ;;
            loop) mknod "$file" b 7 0 ;;
            disk) mknod "$file" b 254 0 ;;
        esac
    done
}
check() {
    [ -f etc/hostname ] && [ "$(cat etc/hostname)" = sealed ] || fail 'the host name was not set'
    [ ! -e tmp/x ] && [ ! -e etc/ssh/ssh_host_rsa_key ] || fail 'what had to go is there'
}
