# Attacks: chains of links to the host, of links that change between absolute and upward ones, longer than 40, and loops
attack() {
    local number
    ln -s "$HOST/etc/hostname" srv/end
    for number in {1..38}; do ln -s "../srv/$([ "$number" = 1 ] && echo end || echo "c$((number - 1))")" "srv/c$number"; done
    for number in {39..60}; do ln -s "$UP/srv/c$((number - 1))" "srv/c$number"; done
    ln -sfn /srv/c38 etc/hostname
    ln -sfn /srv/c60 etc/machine-id
    ln -sfn timezone etc/timezone
    ln -sfn /etc/hosts etc/hosts
    ln -s b var/log/a && ln -s ../log/a var/log/b
    rm -rf var/spool && ln -s spool2 var/spool && ln -s spool var/spool2
    rm -rf etc/ssh && ln -s ssh3 etc/ssh && ln -s /etc/ssh etc/ssh3
}
check() { [ "$(cat etc/hostname)" = sealed ] || fail 'the host name was not set'; }
