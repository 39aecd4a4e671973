# Attacks: accounts to be removed whose homes are folders that the system or others need
attack() {
    local home uid=1500
    for home in / /etc /usr /var /var/lib /home /bin /boot /root /srv /opt /tmp /. // /home/ /home/alice /etc/ssh /usr/share; do
        uid=$((uid + 1))
        printf '%s:x:%d:%d::%s:/bin/sh\n' "$(basename "$home")$uid" "$uid" "$uid" "$home" >>etc/passwd
    done
    printf 'etc:x:1600:1600::/etc:/bin/sh\nvar:x:1601:1601::/var:/bin/sh\nlib:x:1602:1602::/var/lib:/bin/sh\nx:x:1603:1603::/srv/x:/bin/sh\n' >>etc/passwd
    ln -s ../etc srv/x
}
check() { [ -f etc/passwd ] && [ -d usr/share ] && [ -d var/lib ] && [ -d home ] && [ -d root ] && [ -d boot ] || fail 'a system folder went'; }
