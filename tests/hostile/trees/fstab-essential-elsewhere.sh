# Attacks: an fstab that keeps /var on a device of the host, on a network, on an unknown type or an unknown device
# Each: /dev/sda1 /dev/loop0 server:/var UUID=0b8ef3a5-3b6f-4f3f-9d2f-5b3f1f1d9b10 tmpfs
# Exit: 6
# Says: /var
attack() {
    local type=ext4
    case $1 in *:*) type=nfs ;; tmpfs) set -- /dev/zram0 ;; esac
    printf '%s /var %s defaults 0 0\n' "$1" "$type" >>etc/fstab
}
