# Disk images with partitions and filesystems, from a table of rows:
#
#   NAME MIB FS MOUNTPOINT FSTAB-SPEC FSTAB-OPTIONS
#
# FS: ext4, xfs, btrfs, vfat, swap, bios (BIOS boot) or extended (MBR; the rows after it are logical partitions).
# MOUNTPOINT: a path or "-"; for btrfs "subvolume=path,..." with "!" after the default subvolume's path.
# FSTAB-SPEC: UUID, LABEL, PARTUUID, PARTLABEL, a /dev name, or "-" for no line in fstab.
#
# This needs no partition scan by the kernel: each filesystem is a loop device with an offset and a size.
# shellcheck shell=bash

# stable_uuid NAME: an id that is the same each time this guest is made.
stable_uuid() {
    local h
    h=$(sha256sum <<<"guestseal $1")
    printf '%s-%s-4%s-a%s-%s\n' "${h:0:8}" "${h:8:4}" "${h:13:3}" "${h:17:3}" "${h:20:12}"
}

# place_rows LAYOUT LABEL: prints each row with its start in MiB in front; MBR logical partitions leave room for their EBR.
place_rows() {
    awk -v mbr="$([ "$2" = dos ] && echo 1)" 'BEGIN { at = 1 }
        { if (inside) at++; print at, $0 }
        $3 == "extended" { inside = 1; next }
        { at += $2 }' <<<"$1"
}

# partition DISK LABEL SECTOR-SIZE ROWS VARIANT: writes the partition table.
partition() {
    local disk=$1 label=$2 sector=$3 variant=$5 start name mib fs per type dev
    per=$((1048576 / sector))
    {
        printf 'label: %s\n' "$label"
        case $label in
            gpt) printf 'label-id: %s\n' "$(stable_uuid "$variant")" ;;
            dos) printf 'label-id: 0x%s\n' "$(stable_uuid "$variant" | cut -c1-8)" ;;
        esac
        while read -r start name mib fs _; do
            case $label-$fs in
                gpt-bios) type=21686148-6449-6E6F-744E-656564454649 ;;
                gpt-vfat) type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B ;;
                gpt-swap) type=0657FD6D-A4AB-43C4-84E5-0933C84B4F4F ;;
                gpt-*) type=0FC63DAF-8483-4772-8E79-3D69D8477DE4 ;;
                dos-extended) type=5 ;;
                dos-swap) type=82 ;;
                dos-*) type=83 ;;
            esac
            printf 'start=%s, size=%s, type=%s' $((start * per)) $((mib * per)) "$type"
            if [ "$label" = gpt ]; then printf ', name=%s, uuid=%s' "$name" "$(stable_uuid "$variant/part/$name")"; fi
            printf '\n'
        done <<<"$4"
    } >"$disk.table"
    dev=$(losetup -f --show -b "$sector" "$disk")
    sfdisk -q --no-reread --no-tell-kernel --wipe never "$dev" <"$disk.table" || {
        losetup -d "$dev"
        return 1
    }
    losetup -d "$dev"
    rm "$disk.table"
}

# make_filesystem DEVICE FS NAME UUID
make_filesystem() {
    case $2 in
        ext4) mkfs.ext4 -q -F -L "$3" -U "$4" "$1" ;;
        xfs) mkfs.xfs -q -f -L "$3" -m "uuid=$4" "$1" ;;
        btrfs) mkfs.btrfs -q -f -L "$3" -U "$4" "$1" >/dev/null ;;
        vfat) mkfs.vfat -n "${3^^}" -i "${4:0:8}" "$1" >/dev/null ;;
        swap) mkswap -q -L "$3" -U "$4" "$1" && printf 'CANARY-swap-page-1' | dd of="$1" bs=4096 seek=9 conv=notrunc status=none ;;
    esac
}

# volumes_of MOUNTPOINTS: prints "subvolume path" a line, the root first; a lone path has the subvolume "-".
# With --default, prints the one that is mounted when no subvolume is named.
volumes_of() {
    if [ "$1" = --default ]; then
        tr , '\n' <<<"$2" | sed -n 's/=.*!$//p'
    else
        tr , '\n' <<<"$1" | sed 's/!$//; /=/!s/^/-=/; s/=/ /' | sort -k2,2
    fi
}

# mount_filesystem DEVICE FS MOUNTPOINT ROOT: mounts below ROOT, with its subvolumes made first.
mount_filesystem() {
    local dev=$1 fs=$2 root=$4 volumes volume path top
    volumes=$(volumes_of "$3")
    if [ "$fs" = btrfs ]; then
        top=$(mktemp -d)
        mount -t btrfs "$dev" "$top"
        while read -r volume; do
            mkdir -p "$top/$(dirname "$volume")"
            btrfs -q subvolume create "$top/$volume"
        done < <(cut -d' ' -f1 <<<"$volumes" | sort)
        volume=$(volumes_of --default "$3")
        if [ -n "$volume" ]; then btrfs subvolume set-default "$top/$volume"; fi
        umount "$top"
        rmdir "$top"
    fi
    while read -r volume path; do
        [ "$path" != - ] || continue
        mkdir -p "$root$path"
        if [ "$volume" = - ]; then mount -t "$fs" "$dev" "$root$path"; else mount -t "$fs" -o "subvol=/$volume" "$dev" "$root$path"; fi
    done <<<"$volumes"
}

# fstab_lines NAME FS MOUNTPOINT SPEC OPTIONS VARIANT: what the guest's fstab says of this row.
fstab_lines() {
    local name=$1 fs=$2 where=$3 spec=$4 options=$5 uuid default volume path line check
    uuid=$(stable_uuid "$6/$name")
    case $spec in
        -) return 0 ;;
        UUID) [ "$fs" != vfat ] || uuid=$(tr a-f A-F <<<"${uuid:0:4}-${uuid:4:4}") ;;&
        UUID) spec=UUID=$uuid ;;
        LABEL) spec=LABEL=$name ;;
        PARTUUID) spec=PARTUUID=$(stable_uuid "$6/part/$name") ;;
        PARTLABEL) spec=PARTLABEL=$name ;;
    esac
    if [ "$fs" = swap ]; then
        printf '%s none swap %s 0 0\n' "$spec" "$options"
        return
    fi
    default=$(volumes_of --default "$where")
    while read -r volume path; do
        line=$options check=2
        [ "$path" != - ] || continue
        if [ "$volume" != - ] && [ "$volume" != "$default" ]; then line+=,subvol=$volume; fi
        [ "$path" != / ] || check=1
        [[ $fs == ext4 || $fs == vfat ]] || check=0
        printf '%s %s %s %s 0 %d\n' "$spec" "$path" "$fs" "$line" "$check"
    done < <(volumes_of "$where")
}

# mount_order ROWS: the root first, then by mount point, so that /boot comes before /boot/efi.
mount_order() { awk '$4 != "bios" && $4 != "extended" { print ($2 == "root" ? 0 : 1), $0 }' <<<"$1" | sort -k1,1n -k6,6 | cut -d' ' -f2-; }

# build_disk DISK SIZE-MIB LABEL SECTOR-SIZE LAYOUT VARIANT ROOT FILL...: makes the disk, runs FILL with the mounted
# ROOT, and unmounts. LABEL "none" puts the one filesystem on the whole disk. Call it in a mount namespace of its own.
build_disk() {
    local disk=$1 size=$2 label=$3 sector=$4 variant=$6 root=$7 rows start name mib fs where spec options dev fstab=
    rows=$(place_rows "$5" "$label")
    shift 7
    truncate -s "${size}M" "$disk"
    if [ "$label" = none ]; then rows="0 ${rows#* }"; else partition "$disk" "$label" "$sector" "$rows" "$variant"; fi
    while read -r start name mib fs where spec options; do
        dev=$(losetup -f --show -b "$sector" --offset $((start << 20)) --sizelimit $((mib << 20)) "$disk")
        make_filesystem "$dev" "$fs" "$name" "$(stable_uuid "$variant/$name")"
        case $fs in
            swap) ;;
            vfat) mkdir -p "$root$where" ;; # stays empty: not every kernel here has vfat
            *) mount_filesystem "$dev" "$fs" "$where" "$root" ;;
        esac
        losetup -d "$dev" # a mounted one goes with its unmount
        fstab+=$(fstab_lines "$name" "$fs" "$where" "$spec" "$options" "$variant")$'\n'
    done < <(mount_order "$rows")
    "$@" "$root"
    printf '# made with the guest\n%s' "$fstab" >"$root/etc/fstab"
    umount -R "$root"
    # The gap behind the last partition belongs to no filesystem, and can still hold what was there once.
    if [ "$label" != none ]; then
        printf 'CANARY-disk-gap-1' | dd of="$disk" bs=1M seek=$((size - 8)) conv=notrunc status=none
    fi
}
