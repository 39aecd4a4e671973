# Attacks: sparse files of the greatest length that ext4 has, where files are emptied, removed, counted and looked into
# Guest: ext4
attack() {
    local file
    mkdir -p var/log/sub var/log/journal
    for file in var/log/syslog var/log/wtmp var/log/sub/big.log var/log/old.log.1 tmp/a tmp/b tmp/c root/.bash_history home/alice/big; do
        truncate -s 4398046507008 "$file"
    done
    truncate -s 1152921504606846976 tmp/exbibyte 2>/dev/null || [ ext4 = ext4 ]
}
check() { [ ! -s var/log/syslog ] && [ ! -e tmp/a ] && [ ! -e home/alice ] || fail 'something is left'; }
