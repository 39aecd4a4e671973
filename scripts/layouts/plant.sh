# What is planted in a guest, and its list NAME.canaries, as make-guest writes it: "marker TAB kind TAB class TAB path"
# ("-": no file). A marker here is the beginning that all lines of its kind share; it may be there many times.
# shellcheck shell=bash

# listed KIND PATH: prints the marker, and lists it.
listed() {
    printf 'GUESTSEAL-CANARY-%s-%s\n' "$NAME" "$1"
    printf 'GUESTSEAL-CANARY-%s-%s\t%s\tdefault\t%s\n' "$NAME" "$1" "$1" "$2" >>"$WORK/$NAME.canaries"
}

# plant_raw FILE OFFSET KIND: 64 KiB where no file is.
plant_raw() {
    residue "$3" 1024 | dd of="$1" bs=64K seek="$2" oflag=seek_bytes conv=notrunc iflag=fullblock status=none
}

# residue KIND LINES: of 64 bytes each.
residue() {
    local line
    line=$(listed "$1" -)
    printf -v line '%-63s' "$line "
    yes "${line// /.}" | head -n "$2" || true # yes ends with a broken pipe
}

# forgotten PATH KIND: a file of 320 KiB in the filesystem mounted there, written out and then deleted.
forgotten() {
    residue "$2" 5120 >"$ROOT$1/forgotten.txt"
    sync -f "$ROOT$1/forgotten.txt"
    rm "$ROOT$1/forgotten.txt"
}

# guest_file PATH MODE: what the standard input has, as a file of the guest.
guest_file() {
    mkdir -p "$ROOT${1%/*}"
    cat >"$ROOT$1"
    chmod "$2" "$ROOT$1"
}

# system [TREE]: unpacks the files of a system over all that is mounted, with secrets of its own.
system() {
    local id line key=()
    tar -C "$ROOT" -xf "$WORK/${1:-alpine}.tar"
    id=$(stable_uuid "machine-id${1:-}")
    id=${id//-/}
    guest_file /etc/machine-id 444 <<<"$id"
    printf '%s\tmachine-id\tdefault\t/etc/machine-id\n' "$id" >>"$WORK/$NAME.canaries"
    line=$(listed "root-history${1:+-$1}" /root/.ash_history)
    guest_file /root/.ash_history 600 <<<"mysql -p$line"
    line=$(listed "user-history${1:+-$1}" /home/alice/.bash_history)
    guest_file /home/alice/.bash_history 600 <<<"curl -u alice:$line"
    chown 1000:1000 "$ROOT/home/alice/.bash_history"
    mapfile -t key <"$ROOT/etc/ssh/ssh_host_ed25519_key"
    printf '%s\tssh-private-key\tdefault\t/etc/ssh/ssh_host_ed25519_key\n' "${key[-3]}" >>"$WORK/$NAME.canaries"
    printf '# made with the guest\n' | guest_file /etc/fstab 644
}

# in_fstab LINE, in_crypttab LINE, in_mdadm_conf LINE: one more line.
in_fstab() { printf '%s\n' "$*" >>"$ROOT/etc/fstab"; }
in_crypttab() { printf '%s\n' "$*" >>"$ROOT/etc/crypttab"; }
in_mdadm_conf() {
    mkdir -p "$ROOT/etc/mdadm"
    printf '%s\n' "$*" >>"$ROOT/etc/mdadm/mdadm.conf"
}

# boot_menu ROOT [ARGUMENT...]: what GRUB's files say of the root.
boot_menu() {
    local boot=root
    ! mountpoint -q "$ROOT/boot" || boot=boot
    guest_file /etc/default/grub 644 <<<"GRUB_CMDLINE_LINUX=\"${*:2}\""
    guest_file /boot/grub/grub.cfg 600 <<END
menuentry 'Linux' {
    search --no-floppy --fs-uuid --set=root $(stable_uuid "$boot")
    linux /vmlinuz root=$1 ro ${*:2}
    initrd /initrd.img
}
END
}
