# Attacks: subvolumes of btrfs named by options with commas, ways up and other options in them
# Guest: btrfs
# Each: subvol=/nothing subvolid=999 subvol="x,device=/dev/loop0" subvolid=-1 subvolid=x
# Exit: 6
# Says: /srv
attack() { echo "$(grep -o '^UUID=[^ ]*' etc/fstab | head -1) /srv btrfs $1 0 0" >>etc/fstab; }
