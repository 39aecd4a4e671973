# Attacks: a subvolume of btrfs whose name leads upwards: to the top of the same filesystem, no further
# Guest: btrfs
attack() { echo "$(grep -o '^UUID=[^ ]*' etc/fstab | head -1) /srv btrfs subvol=../../../.. 0 0" >>etc/fstab; }
check() { [ "$(cat etc/hostname)" = sealed ] || fail 'it was not sealed'; }
