# Attacks: an fstab that mounts other volumes over / by every spelling of it
# Guest: disk
# Each: /.. /var/.. /srv/../../.. /escape
# Exit: 6
# Says: root
attack() { ln -s ../../.. escape; printf 'LABEL=vol2 %s ext4 defaults 0 0\n' "$1" >>etc/fstab; }
