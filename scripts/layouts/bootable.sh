# The layouts of bootable.tsv: Debian 12 as its installer lays it out, to be booted after sealing. No boot loader is in
# them: NAME.cmdline is the kernel's command line.
# shellcheck shell=bash

# boots_with ARGUMENT...: after the kernel's own.
boots_with() { printf '%s ro console=ttyS0\n' "$*" >"$FOLDER/$NAME.cmdline"; }

layout_debian_lvm() {
    disk 448 444:lvm
    disk 448 444:lvm
    volume_group vg0 "${DISKS[1]}p1" "${DISKS[2]}p1"
    logical vg0 root 720
    filesystem "$DEV" ext4 root
    mounted "$DEV" ext4 /
    logical vg0 swap 64
    swap "$DEV" swap
    system debian
    in_fstab '/dev/mapper/vg0-root / ext4 errors=remount-ro 0 1'
    in_fstab '/dev/mapper/vg0-swap none swap sw 0 0'
    boots_with root=/dev/mapper/vg0-root
    forgotten / deleted-root
    removed vg-free vg0 -l 1
}

layout_debian_lvm_on_luks() {
    local key
    key=$(key debian-lvm-on-luks.key 'pass phrase')
    disk 896 1:21686148-6449-6E6F-744E-656564454649 96:linux 796:linux
    locked "${DISKS[1]}p3" luks2 vda3_crypt "$key"
    volume_group debian-vg "$DEV"
    logical debian-vg root 720
    filesystem "$DEV" ext4 root
    mounted "$DEV" ext4 /
    plain_boot "${DISKS[1]}p2"
    system debian
    in_crypttab "vda3_crypt UUID=$(luks_uuid "$key") none luks,discard"
    in_fstab '/dev/mapper/debian--vg-root / ext4 errors=remount-ro 0 1'
    boot_line
    # The initramfs is not made here, where it would learn of the encryption from the guest's crypttab.
    boots_with "cryptopts=target=vda3_crypt,source=UUID=$(luks_uuid "$key"),lvm=debian-vg" root=/dev/mapper/debian--vg-root
    forgotten / deleted-root
    removed vg-free debian-vg -l 1
}

layout_debian_md_raid1() {
    disk 768 764:raid
    disk 768 764:raid
    array 1 root "${DISKS[1]}p1" "${DISKS[2]}p1"
    filesystem "$DEV" ext4 root
    mounted "$DEV" ext4 /
    system debian
    in_mdadm_conf "ARRAY /dev/md/root metadata=1.2 name=template:root UUID=$(md_uuid root)"
    in_fstab "UUID=$(stable_uuid root) / ext4 errors=remount-ro 0 1"
    boots_with "root=UUID=$(stable_uuid root)"
    forgotten / deleted-root
}
