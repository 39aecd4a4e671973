# Attacks: a login.defs that makes root and the system's accounts persons to be removed
# Each: 0:4294967295 1:60000 -5:99999999999999999999 abc:def 60000:1000
attack() { printf 'UID_MIN %s\nUID_MAX %s\n' "${1%:*}" "${1#*:}" >etc/login.defs; }
check() { grep -q ^root: etc/passwd && grep -q ^root: etc/shadow && [ -d root ] || fail 'root went'; }
