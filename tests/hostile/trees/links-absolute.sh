# Attacks: absolute links to files of the host in place of every file that operations remove, empty, write or edit
FILES='etc/hostname etc/hosts etc/machine-id etc/passwd- etc/localtime etc/timezone etc/resolv.conf etc/machine-info
    etc/ssh/ssh_host_rsa_key etc/ssh/sshd_config root/.bash_history home/alice/.bash_history var/lib/dbus/machine-id
    var/lib/systemd/random-seed var/log/syslog var/log/wtmp var/log/lastlog var/log/btmp var/log/old.log.1 var/log/x.gz
    var/spool/cron/root var/tmp/file tmp/file srv/file~ etc/hosts~ etc/kernel/cmdline etc/default/grub'
attack() {
    local file
    for file in $FILES; do
        mkdir -p "$(dirname "$file")"
        ln -sfn "$HOST/etc/$(case $file in *passwd*) echo shadow ;; *hosts*) echo hosts ;; *) echo hostname ;; esac)" "$file"
    done
}
check() {
    [ "$(cat etc/hostname)" = sealed ] && [ ! -L etc/hostname ] || fail 'the host name was not set'
    [ ! -e tmp/file ] && [ ! -L tmp/file ] || fail 'the link in /tmp is left'
}
