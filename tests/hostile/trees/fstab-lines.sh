# Attacks: an fstab of 100,000 lines, and one whose real line comes after a megabyte: what it mounts would not be sealed
# Guest: disk
# Each: lines bytes long-line comments
# Exit: 6
# Says: /etc/fstab
attack() {
    case $1 in
        lines) python3 -c 'for n in range(100000): print(f"none /mnt/{n} tmpfs defaults 0 0")' ;;
        bytes) python3 -c 'print("#" * 1200000)' ;;
        long-line) python3 -c 'print("LABEL=vol2 /srv ext4 " + ",".join(["noatime"] * 4000) + " 0 0")' ;;
        comments) python3 -c 'for n in range(100000): print(f"# a comment {n}")' ;;
    esac >>etc/fstab
    echo 'LABEL=vol2 /var ext4 defaults 0 0' >>etc/fstab
}
