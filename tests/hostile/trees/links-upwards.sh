# Attacks: links with more .. than there are folders, to files of the host, in place of what operations touch
FILES='etc/hostname etc/hosts etc/machine-id etc/localtime etc/ssh/sshd_config root/.bash_history var/log/syslog
    var/log/wtmp var/log/old.log.1 tmp/file var/lib/systemd/random-seed home/alice/.ssh/authorized_keys'
attack() {
    local file
    for file in $FILES; do
        mkdir -p "$(dirname "$file")"
        ln -sfn "$UP$HOST/etc/hostname" "$file"
    done
}
check() { [ "$(cat etc/hostname)" = sealed ] && [ ! -L etc/hostname ] || fail 'the host name was not set'; }
