# Attacks: immutable and append-only files and folders, ACLs and extended attributes on all that is edited: they must stay
# Guest: xfs
# Each: i a
EDITED='etc/hostname etc/shadow etc/hosts etc/passwd etc/group'
state() { local file; for file in $EDITED; do stat -c '%n %a %u %g' "$file"; getfattr -hd -m - "$file"; getfacl -p "$file"; lsattr "$file" | cut -c 5,6; done; }
attack() {
    local file
    echo '127.0.1.1 arch-host' >>etc/hosts
    for file in $EDITED; do
        setfattr -n user.note -v "kept $file" "$file"
        setfattr -n trusted.note -v "kept $file" "$file"
        setfattr -n security.selinux -v "system_u:object_r:$(basename "$file")_t:s0" "$file"
        setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 "$file"
        setfacl -m u:1234:r-- "$file"
        chown 12:34 "$file"
    done
    state >"$SCRATCH/before"
    mkdir -p tmp/locked var/log/journal
    for file in tmp/locked/x var/log/syslog root/.bash_history var/log/old.log.1; do echo secret >"$file"; done
    chattr "+$1" $EDITED etc/machine-id tmp/locked/x var/log/syslog root/.bash_history var/log/old.log.1 etc/ssh/ssh_host_rsa_key
    chattr "+$1" etc/ssh tmp/locked tmp var/log etc root
    state >"$SCRATCH/before"
    lsattr -d etc tmp var/log root etc/ssh >"$SCRATCH/folders"
}
check() {
    state >"$SCRATCH/after"
    diff "$SCRATCH/before" "$SCRATCH/after" || fail 'attributes changed'
    lsattr -d etc tmp var/log root etc/ssh | diff "$SCRATCH/folders" - || fail 'attributes of folders changed'
    [ "$(cat etc/hostname)" = sealed ] && ! grep -q alice etc/passwd || fail 'it was not edited'
    [ -z "$(ls -A tmp)" ] && [ ! -s var/log/syslog ] && [ ! -e root/.bash_history ] && [ ! -s etc/machine-id ] || fail 'something is left'
}
