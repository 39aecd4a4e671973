# Attacks: 2 GB in place of each file that is read whole
# Each: etc/os-release etc/fstab etc/passwd etc/shadow etc/group etc/login.defs etc/hostname etc/ssh/sshd_config etc/pam.d/common-password etc/default/grub
# Exit: 6
# Says: 2000000000 bytes
attack() { mkdir -p "$(dirname "$1")" && rm -f "$1" && truncate -s 2000000000 "$1"; }
