# Attacks: an fstab whose root is another volume than that of the system
# Guest: disk
# Each: / // /./
# Says: has partition 2 as its root
attack() { printf 'LABEL=vol2 %s ext4 defaults 0 0\n' "$1" >>etc/fstab; }
