# Attacks: volumes mounted below folders that are emptied: what is mounted is emptied too, and its folder stays
# Guest: disk
attack() {
    mkdir -p tmp/a/b var/tmp/one home/alice/disk tmp/other
    echo secret >tmp/a/file && echo secret >tmp/other/file && echo secret >home/alice/file
    cat >>etc/fstab <<END
LABEL=vol2 /tmp/a/b ext4 defaults 0 0
LABEL=vol3 /var/tmp/one ext4 defaults 0 0
LABEL=vol2 /home/alice/disk ext4 defaults 0 0
END
}
check() {
    [ -d tmp/a/b ] && [ -d var/tmp/one ] || fail 'a mount point went'
    [ ! -e tmp/a/file ] && [ ! -e tmp/other ] && [ ! -e home/alice/file ] || fail 'something is left'
}
