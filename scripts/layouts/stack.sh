# Storage, one thing on the other, and taken apart again in reverse. A function that makes a device sets DEV to it.
# shellcheck shell=bash

NAME='' DEV='' UNDO=() DISKS=() UNDELIVERED=() ARRAYS=0

# begin NAME: a new guest without disks.
begin() { NAME=$1 UNDO=() DISKS=() UNDELIVERED=() ARRAYS=0; }

# then_undo COMMAND...: to be run by tear_down, before those that were given earlier.
then_undo() { UNDO+=("$(printf '%q ' "$@")"); }

tear_down() {
    local at
    for ((at = ${#UNDO[@]} - 1; at >= 0; at--)); do eval "${UNDO[at]}"; done
}

# stable_uuid NAME: an id that is the same each time this guest is made. By FNV-1a in the shell: starting a program
# for each would take as long as all else.
stable_uuid() {
    local text=$NAME/$1 high=0xcbf29ce484222325 low=0x100000001b3 at byte
    for ((at = 0; at < ${#text}; at++)); do
        printf -v byte %d "'${text:at:1}"
        high=$(((high ^ byte) * 0x100000001b3))
        low=$(((low ^ high ^ byte) * 0x100000001b3))
    done
    printf -v high '%016x%016x' "$high" "$low"
    printf '%s-%s-4%s-a%s-%s\n' "${high:0:8}" "${high:8:4}" "${high:13:3}" "${high:17:3}" "${high:20:12}"
}

quiet() { "$@" >/dev/null; }

# disk MIB "MIB:TYPE"...: the guest's next disk with these partitions (GPT; sfdisk's names of types); the last MiB is in
# none. Sets DISKS[N] (from 1); partition P of it is ${DISKS[N]}pP.
disk() {
    local number=$((${#DISKS[@]} + 1)) image part dev
    image=$WORK/$NAME-$number.raw
    truncate -s "$1M" "$image"
    {
        printf 'label: gpt\nlabel-id: %s\n' "$(stable_uuid "disk$number")"
        for part in "${@:2}"; do printf 'size=%sMiB, type=%s\n' "${part%:*}" "${part#*:}"; done
    } | sfdisk -q "$image"
    plant_raw "$image" $((($1 - 1) << 20)) "gap-$number"
    dev=$(losetup -fP --show "$image")
    DISKS[number]=$dev
    then_undo losetup -d "$dev"
}

# undelivered N: disk N is not among the guest's images, as if it had been taken out.
undelivered() {
    UNDELIVERED+=("$WORK/$NAME-$1.raw")
    sed -i "/-gap-$1\t/d" "$WORK/$NAME.canaries"
}

# filesystem DEVICE... FS LABEL: on one device, or btrfs on several.
filesystem() {
    local devices=("${@:1:$#-2}") fs=${*: -2:1} label=${*: -1} uuid
    uuid=$(stable_uuid "$label")
    case $fs in
        ext4) mkfs.ext4 -q -F -b 4096 -L "$label" -U "$uuid" "${devices[@]}" ;;
        xfs) mkfs.xfs -q -f -L "$label" -m "uuid=$uuid" "${devices[@]}" ;;
        btrfs) quiet mkfs.btrfs -q -f -d raid1 -m raid1 -L "$label" -U "$uuid" "${devices[@]}" ;;
    esac
}

# mounted DEVICE FS PATH [OPTIONS]: below ROOT.
mounted() {
    mkdir -p "$ROOT$3"
    mount -t "$2" -o "${4:-defaults}" "$1" "$ROOT$3"
    then_undo umount "$ROOT$3"
}

# swap DEVICE LABEL: with a page in use.
swap() {
    mkswap -q -L "$2" -U "$(stable_uuid "$2")" "$1" >/dev/null
    plant_raw "$1" $((9 * 4096)) swap
}

# volume_group VG DEVICE...: without volumes.
volume_group() {
    local device accepted=''
    # Only these are looked at: what another layout is doing meanwhile is not LVM's business.
    for device in "${@:2}"; do accepted+="\"a|^$device\$|\", "; done
    cat >"$LVM_SYSTEM_DIR/lvm.conf" <<END
devices {
    filter = [ $accepted"r|.*|" ]
    use_devicesfile = 0
    obtain_device_list_from_udev = 0
    external_device_info_source = "none"
}
activation { udev_sync = 0 udev_rules = 0 monitoring = 0 }
backup { backup_dir = "/run/layouts/lvm" archive = 0 }
END
    vgcreate -q -s 4M "$@" >/dev/null
    then_undo quiet vgchange -an "$1"
}

# removed KIND VG [OPTION...]: a volume with residue that was removed. Last of all, or its place is given to another.
removed() {
    lvcreate -q -y -n gone "${@:3}" "$2" >/dev/null
    plant_raw "/dev/$2/gone" $((1 << 20)) "$1"
    sync
    lvremove -q -y "$2/gone" >/dev/null
}

# logical VG NAME MIB [OPTION...]: sets DEV.
logical() {
    lvcreate -q -y -L "$3M" -n "$2" "${@:4}" "$1" >/dev/null
    DEV=/dev/$1/$2
}

# locked DEVICE FORMAT MAPPING KEY-FILE [KIB]: sets DEV. The key derivation is quick (for LUKS2: argon2id with that much
# memory), since tests open it under emulation.
locked() {
    local quick=(--pbkdf-force-iterations 1000)
    if [ "$2" = luks2 ]; then
        quick=(--pbkdf argon2id --pbkdf-memory "${5:-4096}" --pbkdf-parallel 1 --pbkdf-force-iterations 4)
        # Its default, 16 MiB that are filled with random bytes, is only for the one that shows the default.
        [ $# -gt 4 ] || quick+=(--luks2-keyslots-size 4m)
    fi
    cryptsetup -q luksFormat --type "$2" "${quick[@]}" --uuid "$(stable_uuid "luks-${4##*/}")" --key-file "$4" "$1"
    cryptsetup open --key-file "$4" "$1" "$3"
    then_undo cryptsetup close "$3"
    DEV=/dev/mapper/$3
}

# luks_uuid KEY-FILE: of the container that this key opens.
luks_uuid() { stable_uuid "luks-${1##*/}"; }

# array LEVEL NAME DEVICE...: MD, metadata 1.2, not synchronised (all members are zero, which is consistent). Sets DEV,
# whose number is not kept in the array.
array() {
    local options=(--metadata=1.2 --homehost=template --name="$2" --uuid="$(stable_uuid "md-$2")" --raid-devices=$(($# - 2)))
    [ "$1" = 0 ] || options+=(--assume-clean --bitmap=none)
    DEV=/dev/md$((LANE * 10 + ARRAYS))
    ARRAYS=$((ARRAYS + 1))
    mdadm --quiet --create "$DEV" --run --level="$1" "${options[@]}" "${@:3}"
    then_undo mdadm --quiet --stop "$DEV"
}

# md_uuid NAME: as mdadm writes it.
md_uuid() {
    local uuid
    uuid=$(stable_uuid "md-$1")
    uuid=${uuid//-/}
    printf '%s:%s:%s:%s\n' "${uuid:0:8}" "${uuid:8:8}" "${uuid:16:8}" "${uuid:24:8}"
}
