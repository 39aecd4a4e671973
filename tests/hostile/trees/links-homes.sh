# Attacks: homes in passwd that are links to, or ways up to, folders of the host
attack() {
    ln -s "$HOST/home" srv/linked
    ln -s "$UP$HOST/home" home/eve
    chown -h 1003:1003 home/eve srv/linked
    cat >>etc/passwd <<END
mallory:x:1002:1002::/srv/linked:/bin/sh
eve:x:1003:1003::/home/eve:/bin/sh
up:x:1004:1004::/home/../..$HOST/home:/bin/sh
host:x:1005:1005::$HOST/home:/bin/sh
proc:x:1006:1006::/proc/self/cwd:/bin/sh
all:x:1007:1007::/:/bin/sh
etc:x:1008:1008::/etc:/bin/sh
long:x:1009:1009::/$(printf 'a/%.0s' {1..3000}):/bin/sh
../../..$HOST/log/syslog:x:1010:1010::/home/x:/bin/sh
../../etc:x:1011:1011::/home/y:/bin/sh
END
}
check() {
    [ -d etc ] && [ -f etc/hostname ] || fail 'a system folder went'
    ! grep -q mallory etc/passwd || fail 'an account is left'
}
