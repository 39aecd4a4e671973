# The guests that make-guest knows: which system, and how its disk is laid out (disk.sh tells the columns).
# shellcheck shell=bash

# shellcheck disable=SC2034 # make-guest reads both
DEBIAN_VARIANTS=(debian12 debian12-cloud debian12-sysvinit debian12-xfs debian12-btrfs debian13 debian13-split)
# shellcheck disable=SC2034
TREE_VARIANTS=(fedora rhel9 rhel6 opensuse arch alpine)

# base_of VARIANT: suite and flavour of a Debian variant's base system.
base_of() {
    case $1 in
        debian12-cloud) echo bookworm cloud ;;
        debian12-sysvinit) echo bookworm sysvinit ;;
        debian12*) echo bookworm systemd ;;
        debian13*) echo trixie systemd ;;
    esac
}

# disk_of VARIANT: size in MiB, partition table, sector size.
disk_of() {
    case $1 in
        debian*) echo 3072 gpt 512 ;;
        rhel9) echo 1024 gpt 4096 ;;
        rhel6 | alpine) echo 512 dos 512 ;;
        arch) echo 256 none 512 ;;
        *) echo 1024 gpt 512 ;;
    esac
}

layout_of() {
    case $1 in
        debian12-xfs)
            echo "bios 1 bios - - -
                  root 2815 xfs / UUID defaults
                  swap 128 swap none UUID sw"
            ;;
        debian12-btrfs)
            echo "bios 1 bios - - -
                  root 2815 btrfs @=/,@home=/home UUID defaults
                  swap 128 swap none UUID sw"
            ;;
        debian13-split)
            echo "esp 64 vfat /boot/efi UUID umask=0077
                  boot 256 ext4 /boot UUID defaults
                  root 1400 ext4 / PARTUUID errors=remount-ro
                  var 768 ext4 /var LABEL defaults
                  home 256 ext4 /home PARTLABEL defaults
                  swap 128 swap none /dev/vda6 sw"
            ;;
        debian*)
            echo "bios 1 bios - - -
                  root 2815 ext4 / UUID errors=remount-ro
                  swap 128 swap none UUID sw"
            ;;
        fedora)
            echo "root 760 btrfs root=/,home=/home,var=/var UUID compress=zstd:1
                  boot 200 ext4 /boot UUID defaults"
            ;;
        rhel9)
            echo "root 512 xfs / UUID defaults
                  boot 320 xfs /boot UUID defaults
                  swap 64 swap none UUID defaults"
            ;;
        rhel6)
            echo "boot 64 ext4 /boot UUID defaults
                  extended 420 extended - - -
                  root 300 ext4 / UUID defaults
                  swap 64 swap none UUID defaults"
            ;;
        opensuse)
            echo "bios 8 bios - - -
                  root 900 btrfs @=-,@/.snapshots=/.snapshots,@/.snapshots/1/snapshot=/!,@/home=/home,@/root=/root,@/var=/var UUID defaults"
            ;;
        arch) echo "root 256 ext4 / UUID rw,relatime" ;;
        alpine)
            echo "boot 64 ext4 /boot UUID rw,relatime
                  swap 64 swap none UUID defaults
                  root 300 ext4 / UUID rw,relatime"
            ;;
    esac
}
