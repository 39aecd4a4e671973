# Attacks: a guest that brings a /proc of its own: /proc/self/root is a plain link to the host
attack() {
    mkdir -p proc/self proc/1
    ln -s "$UP" proc/self/root
    ln -s / proc/1/root
    ln -s "$HOST" proc/self/cwd
    ln -sfn "/proc/self/root$HOST/etc/hostname" etc/hostname
    rm -rf var/tmp && ln -s /proc/self/cwd/tmp var/tmp
}
check() { [ "$(cat etc/hostname)" = sealed ] || fail 'the host name was not set'; }
