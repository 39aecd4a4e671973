# Attacks: absolute links to the host where the guest has a file of that name too: the guest's own file is meant
attack() {
    mkdir -p "$PWD$HOST/etc" "$PWD$HOST/log"
    echo old >"$PWD$HOST/etc/hostname"
    echo 0123456789abcdef0123456789abcdef >"$PWD$HOST/etc/machine-id"
    echo line >"$PWD$HOST/log/syslog"
    ln -sfn "$HOST/etc/hostname" etc/hostname
    ln -sfn "$UP$HOST/etc/machine-id" etc/machine-id
    rm -rf var/log && ln -s "$HOST/log" var/log
}
check() {
    [ -L etc/hostname ] && [ "$(cat "$PWD$HOST/etc/hostname")" = sealed ] || fail 'the file in the guest was not edited'
    [ -L etc/machine-id ] && [ ! -s "$PWD$HOST/etc/machine-id" ] || fail 'the id in the guest was not emptied'
    [ ! -s "$PWD$HOST/log/syslog" ] || fail 'the log in the guest was not emptied'
}
