# Attacks: an fstab that names devices of the host and files of the host as volumes
# Says: is not sealed
attack() {
    mkdir -p mnt/{a..i}
    cat >>etc/fstab <<END
/dev/sda1 /mnt/a ext4 defaults 0 0
/dev/vda /mnt/b ext4 defaults 0 0
/dev/loop0 /mnt/c ext4 defaults 0 0
/dev/nbd0 /mnt/d ext4 defaults 0 0
/dev/mapper/control /mnt/e ext4 defaults 0 0
/dev/../$HOST/secret /mnt/f ext4 loop 0 0
$HOST/secret /mnt/g ext4 loop 0 0
//$HOST /mnt/h none rbind 0 0
host:/ /mnt/i nfs defaults 0 0
END
}
