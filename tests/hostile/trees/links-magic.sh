# Attacks: links through /proc and /dev to the process, its root and its open files
FILES='etc/hostname etc/hosts var/log/syslog var/log/old.log.1 root/.bash_history tmp/file home/alice/.bash_history'
attack() {
    local file number=0
    for file in $FILES; do
        mkdir -p "$(dirname "$file")"
        ln -sfn "/proc/self/root$HOST/etc/hostname" "$file"
    done
    for number in {0..40}; do ln -s "/proc/self/fd/$number" "var/log/fd$number.log"; ln -s "/dev/fd/$number" "tmp/fd$number"; done
    rm -rf var/tmp && ln -s /proc/1/cwd var/tmp
    rm -rf etc/ssh && ln -s "/proc/1/root$HOST/etc/ssh" etc/ssh
    ln -sfn /proc/self/exe etc/machine-id
}
check() { [ "$(cat etc/hostname)" = sealed ] || fail 'the host name was not set'; }
