# Attacks: the root's own volume mounted below itself: what is removed in one place goes in the other
# Guest: disk
attack() {
    mkdir -p srv/again
    echo "$(grep -o '^UUID=[^ ]*' etc/fstab | head -1) /srv/again ext4 defaults 0 0" >>etc/fstab
    mkdir -p var/log && echo secret >var/log/syslog
}
check() { [ ! -s var/log/syslog ] && [ "$(cat etc/hostname)" = sealed ] || fail 'it was not sealed'; }
