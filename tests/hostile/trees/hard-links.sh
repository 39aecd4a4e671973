# Attacks: hard links from what operations remove, empty and edit to files that are none of their business
attack() {
    local name
    mkdir -p tmp var/log srv/keep
    for name in removed truncated edited id password; do echo "precious $name" >"srv/keep/$name"; done
    ln srv/keep/removed tmp/removed
    ln srv/keep/removed var/log/removed.log.1
    ln -f srv/keep/truncated var/log/syslog
    ln -f srv/keep/edited etc/hostname
    echo 0123456789abcdef0123456789abcdef >srv/keep/id
    ln -f srv/keep/id etc/machine-id
    cp -f etc/shadow srv/keep/password
    ln -f srv/keep/password etc/shadow
    cp srv/keep/password srv/keep/old-password
}
check() {
    # Removing takes one name; the content stays under the other.
    [ ! -e tmp/removed ] && [ ! -e var/log/removed.log.1 ] && [ "$(cat srv/keep/removed)" = 'precious removed' ] || fail removed
    # Emptying would take it from both: it is left, and that is said.
    [ "$(cat srv/keep/truncated)" = 'precious truncated' ] || fail truncated
    # Edited files are replaced: the other name keeps the old content.
    [ "$(cat etc/hostname)" = sealed ] && [ "$(cat srv/keep/edited)" = 'precious edited' ] || fail edited
    cmp srv/keep/password srv/keep/old-password && ! cmp -s etc/shadow srv/keep/password || fail password
    # An id is an id by any name.
    [ ! -s etc/machine-id ] && [ ! -s srv/keep/id ] || fail id
}
