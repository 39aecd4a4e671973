# The layouts of table.tsv: layout_NAME, with "_" for "-". Each names its volumes in fstab and crypttab as an installer
# does that makes this layout: Debian's, Ubuntu's, Fedora's and RHEL's ways are all here.
# shellcheck shell=bash

# plain_boot DEVICE: /boot as an ext4 partition. Its line in fstab comes with boot_line.
plain_boot() {
    filesystem "$1" ext4 boot
    mounted "$1" ext4 /boot
}

boot_line() { in_fstab "UUID=$(stable_uuid boot) /boot ext4 defaults 0 2"; }

# key NAME BYTES: writes a passphrase (printf's escapes) and prints the file's path.
key() {
    # shellcheck disable=SC2059 # the escapes are meant
    printf "$2" >"$FOLDER/$1"
    printf '%s\n' "$FOLDER/$1"
}

layout_lvm() {
    disk 128 16:linux 108:lvm
    volume_group vg0 "${DISKS[1]}p2"
    logical vg0 root 60
    filesystem "$DEV" ext4 root
    mounted "$DEV" ext4 /
    plain_boot "${DISKS[1]}p1"
    logical vg0 swap 16
    swap "$DEV" swap
    system
    in_fstab '/dev/mapper/vg0-root / ext4 errors=remount-ro 0 1'
    boot_line
    in_fstab '/dev/mapper/vg0-swap none swap sw 0 0'
    boot_menu /dev/mapper/vg0-root resume=/dev/mapper/vg0-swap
    guest_file /etc/initramfs-tools/conf.d/resume 644 <<<'RESUME=/dev/mapper/vg0-swap'
    forgotten / deleted-root
    forgotten /boot deleted-boot
    removed vg-free vg0 -l 1
}

# As RHEL's installer does on two disks; XFS wants 300 MiB.
layout_lvm_xfs_two_disks() {
    disk 192 16:linux 172:lvm
    disk 192 188:lvm
    volume_group rhel "${DISKS[1]}p2" "${DISKS[2]}p1"
    logical rhel swap 16
    swap "$DEV" swap
    logical rhel root 320
    filesystem "$DEV" xfs root
    mounted "$DEV" xfs /
    plain_boot "${DISKS[1]}p1"
    system
    in_fstab '/dev/mapper/rhel-root / xfs defaults 0 0'
    boot_line
    in_fstab '/dev/mapper/rhel-swap none swap defaults 0 0'
    boot_menu /dev/mapper/rhel-root resume=/dev/mapper/rhel-swap rd.lvm.lv=rhel/root rd.lvm.lv=rhel/swap
    forgotten / deleted-root
    removed vg-free rhel -l 1
}

layout_lvm_stripe() {
    disk 64 60:lvm
    disk 64 60:lvm
    volume_group vg0 "${DISKS[1]}p1" "${DISKS[2]}p1"
    logical vg0 root 80 -i 2 -I 64k
    filesystem "$DEV" ext4 root
    mounted "$DEV" ext4 /
    system
    in_fstab '/dev/vg0/root / ext4 defaults 0 1'
    boot_menu /dev/mapper/vg0-root
    forgotten / deleted-root
    removed vg-free vg0 -l 1
}

# A thin volume that was removed leaves its blocks in the pool as they were.
layout_lvm_thin() {
    disk 128 16:linux 108:lvm
    volume_group vg0 "${DISKS[1]}p2"
    lvcreate -q -y --type thin-pool -L 80M --poolmetadatasize 4M -n pool vg0 >/dev/null
    lvcreate -q -y -V 96M -n root --thinpool pool vg0 >/dev/null
    filesystem /dev/vg0/root ext4 root
    mounted /dev/vg0/root ext4 /
    plain_boot "${DISKS[1]}p1"
    system
    in_fstab '/dev/mapper/vg0-root / ext4 defaults 0 1'
    boot_line
    boot_menu /dev/mapper/vg0-root rd.lvm.lv=vg0/root
    forgotten / deleted-root
    sync
    removed pool-free vg0 -V 64M --thinpool pool
    removed vg-free vg0 -l 1
}

# As Ubuntu Server's installer does, whose volume group has this name on every machine, so also on the host.
layout_lvm_host_name() {
    local dm_uuid
    disk 128 1:21686148-6449-6E6F-744E-656564454649 16:linux 104:lvm
    volume_group ubuntu-vg "${DISKS[1]}p3"
    logical ubuntu-vg ubuntu-lv 64
    filesystem "$DEV" ext4 root
    mounted "$DEV" ext4 /
    dm_uuid=$(dmsetup info -c --noheadings -o uuid "$DEV")
    plain_boot "${DISKS[1]}p2"
    system
    in_fstab "/dev/disk/by-id/dm-uuid-$dm_uuid / ext4 defaults 0 1"
    in_fstab "/dev/disk/by-uuid/$(stable_uuid boot) /boot ext4 defaults 0 1"
    boot_menu /dev/mapper/ubuntu--vg-ubuntu--lv
    forgotten / deleted-root
    removed vg-free ubuntu-vg -l 1
}

# As Fedora's installer does: the mapping is named after the container's UUID.
layout_luks1() {
    local key uuid
    key=$(key luks1.key 'correct horse battery staple')
    uuid=$(luks_uuid "$key")
    disk 96 16:linux 76:linux
    locked "${DISKS[1]}p2" luks1 "luks-$uuid" "$key"
    filesystem "$DEV" ext4 root
    mounted "$DEV" ext4 /
    plain_boot "${DISKS[1]}p1"
    system
    in_crypttab "luks-$uuid UUID=$uuid none discard"
    in_fstab "/dev/mapper/luks-$uuid / ext4 defaults,x-systemd.device-timeout=0 1 1"
    boot_line
    boot_menu "/dev/mapper/luks-$uuid" "rd.luks.uuid=luks-$uuid"
    forgotten / deleted-root
    forgotten /boot deleted-boot
}

# As Debian's installer does: the mapping is named after the partition.
layout_luks2() {
    local key
    key=$(key luks2.key 'correct horse battery staple')
    disk 112 16:linux 92:linux
    locked "${DISKS[1]}p2" luks2 vda2_crypt "$key" 32768
    filesystem "$DEV" ext4 root
    mounted "$DEV" ext4 /
    plain_boot "${DISKS[1]}p1"
    system
    in_crypttab "vda2_crypt UUID=$(luks_uuid "$key") none luks,discard"
    in_fstab '/dev/mapper/vda2_crypt / ext4 errors=remount-ro 0 1'
    boot_line
    boot_menu /dev/mapper/vda2_crypt
    forgotten / deleted-root
}

# As Debian's installer does when asked for encrypted LVM.
layout_lvm_on_luks() {
    local key
    key=$(key lvm-on-luks.key 'pass phrase')
    disk 144 1:21686148-6449-6E6F-744E-656564454649 16:linux 123:linux
    locked "${DISKS[1]}p3" luks2 vda3_crypt "$key"
    volume_group debian-vg "$DEV"
    logical debian-vg root 72
    filesystem "$DEV" ext4 root
    mounted "$DEV" ext4 /
    plain_boot "${DISKS[1]}p2"
    logical debian-vg swap_1 16
    swap "$DEV" swap
    system
    in_crypttab "vda3_crypt UUID=$(luks_uuid "$key") none luks,discard"
    in_fstab '/dev/mapper/debian--vg-root / ext4 errors=remount-ro 0 1'
    boot_line
    in_fstab '/dev/mapper/debian--vg-swap_1 none swap sw 0 0'
    boot_menu /dev/mapper/debian--vg-root
    guest_file /etc/initramfs-tools/conf.d/resume 644 <<<'RESUME=/dev/mapper/debian--vg-swap_1'
    forgotten / deleted-root
    removed vg-free debian-vg -l 1
}

# The home volume's passphrase is no text.
layout_luks_on_lvm() {
    local key home uuid
    key=$(key luks-on-lvm.key 'root pass phrase')
    home=$(key luks-on-lvm-home.key 'home\0pass\nphrase\xff\x80end')
    disk 176 16:linux 156:lvm
    volume_group vg0 "${DISKS[1]}p2"
    logical vg0 root 80
    locked "$DEV" luks2 "luks-$(luks_uuid "$key")" "$key"
    filesystem "$DEV" ext4 root
    mounted "$DEV" ext4 /
    logical vg0 home 64
    locked "$DEV" luks2 "luks-$(luks_uuid "$home")" "$home"
    filesystem "$DEV" ext4 home
    mounted "$DEV" ext4 /home
    plain_boot "${DISKS[1]}p1"
    system
    for uuid in "$(luks_uuid "$key")" "$(luks_uuid "$home")"; do in_crypttab "luks-$uuid UUID=$uuid none"; done
    in_fstab "/dev/mapper/luks-$(luks_uuid "$key") / ext4 defaults 1 1"
    in_fstab "/dev/mapper/luks-$(luks_uuid "$home") /home ext4 defaults 1 2"
    boot_line
    boot_menu "/dev/mapper/luks-$(luks_uuid "$key")" "rd.luks.uuid=luks-$(luks_uuid "$key")" rd.lvm.lv=vg0/root
    forgotten / deleted-root
    forgotten /home deleted-home
    removed vg-free vg0 -l 1
}

# md_root SPEC: root on the array that was just made, which its users know by SPEC.
md_root() {
    filesystem "$DEV" ext4 root
    mounted "$DEV" ext4 /
    if [ -b "${DISKS[1]}p2" ]; then plain_boot "${DISKS[1]}p2"; fi
    system
    in_fstab "$1 / ext4 defaults 0 1"
    if [ -b "${DISKS[1]}p2" ]; then boot_line; fi
    in_mdadm_conf "ARRAY /dev/md/root metadata=1.2 name=template:root UUID=$(md_uuid root)"
    boot_menu "$1" "rd.md.uuid=$(md_uuid root)"
    forgotten / deleted-root
}

layout_md_raid0() {
    disk 64 40:raid 16:linux
    disk 64 40:raid
    array 0 root "${DISKS[1]}p1" "${DISKS[2]}p1"
    md_root /dev/md127
}

layout_md_raid1() {
    disk 80 76:raid
    disk 80 76:raid
    array 1 root "${DISKS[1]}p1" "${DISKS[2]}p1"
    md_root "UUID=$(stable_uuid root)"
}

layout_md_raid1_degraded() {
    layout_md_raid1
    undelivered 2
}

# As Ubuntu Server's installer does.
layout_md_raid5() {
    disk 64 40:raid 16:linux
    disk 64 40:raid
    disk 64 40:raid
    array 5 root "${DISKS[1]}p1" "${DISKS[2]}p1" "${DISKS[3]}p1"
    md_root "/dev/disk/by-id/md-uuid-$(md_uuid root)"
}

layout_md_raid10() {
    for _ in 1 2 3 4; do disk 64 44:raid; done
    array 10 root "${DISKS[1]}p1" "${DISKS[2]}p1" "${DISKS[3]}p1" "${DISKS[4]}p1"
    md_root /dev/md/root
}

# As libguestfs's own phony Fedora: /boot and a volume group, each on an array over both disks.
layout_md_lvm() {
    disk 112 24:raid 84:raid
    disk 112 24:raid 84:raid
    array 1 boot "${DISKS[1]}p1" "${DISKS[2]}p1"
    local boot=$DEV
    array 1 root "${DISKS[1]}p2" "${DISKS[2]}p2"
    volume_group VG "$DEV"
    logical VG Root 64
    filesystem "$DEV" ext4 root
    mounted "$DEV" ext4 /
    plain_boot "$boot"
    system
    in_fstab '/dev/VG/Root / ext4 defaults 1 1'
    in_fstab '/dev/md127 /boot ext4 defaults 1 2'
    in_mdadm_conf "ARRAY /dev/md127 metadata=1.2 name=template:boot UUID=$(md_uuid boot)"
    in_mdadm_conf "ARRAY /dev/md126 metadata=1.2 name=template:root UUID=$(md_uuid root)"
    boot_menu /dev/mapper/VG-Root rd.lvm.lv=VG/Root "rd.md.uuid=$(md_uuid root)"
    forgotten / deleted-root
    forgotten /boot deleted-boot
    removed vg-free VG -l 1
}

# As Fedora's installer does: data and metadata twice.
layout_btrfs_two_devices() {
    local top
    disk 208 16:linux 188:linux
    disk 208 188:linux
    filesystem "${DISKS[1]}p2" "${DISKS[2]}p1" btrfs root
    top=$WORK/top
    mkdir -p "$top"
    mount -t btrfs -o "device=${DISKS[1]}p2,device=${DISKS[2]}p1" "${DISKS[1]}p2" "$top"
    btrfs -q subvolume create "$top/root"
    btrfs -q subvolume create "$top/home"
    umount "$top"
    mounted "${DISKS[1]}p2" btrfs / subvol=root
    mounted "${DISKS[1]}p2" btrfs /home subvol=home
    plain_boot "${DISKS[1]}p1"
    system
    in_fstab "UUID=$(stable_uuid root) / btrfs subvol=root,compress=zstd:1 0 0"
    in_fstab "UUID=$(stable_uuid root) /home btrfs subvol=home,compress=zstd:1 0 0"
    boot_line
    boot_menu "UUID=$(stable_uuid root)" rootflags=subvol=root
    forgotten / deleted-root
    forgotten /home deleted-home
}

layout_two_systems() {
    local part label tree
    disk 128 56:linux 56:linux 12:swap
    swap "${DISKS[1]}p3" swap
    for part in 1:root:alpine 2:other:arch; do
        IFS=: read -r part label tree <<<"$part"
        filesystem "${DISKS[1]}p$part" ext4 "$label"
        mount "${DISKS[1]}p$part" "$ROOT"
        system "$tree"
        in_fstab "UUID=$(stable_uuid "$label") / ext4 defaults 0 1"
        in_fstab "UUID=$(stable_uuid swap) none swap sw 0 0"
        forgotten / "deleted-$tree"
        umount "$ROOT"
    done
}

layout_second_disk_home() {
    disk 64 60:linux
    disk 48 44:linux
    filesystem "${DISKS[1]}p1" ext4 root
    mounted "${DISKS[1]}p1" ext4 /
    filesystem "${DISKS[2]}p1" ext4 home
    mounted "${DISKS[2]}p1" ext4 /home
    system
    in_fstab "UUID=$(stable_uuid root) / ext4 defaults 0 1"
    in_fstab "UUID=$(stable_uuid home) /home ext4 defaults 0 2"
    boot_menu "UUID=$(stable_uuid root)"
    forgotten / deleted-root
    forgotten /home deleted-home
}
