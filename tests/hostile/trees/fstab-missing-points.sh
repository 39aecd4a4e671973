# Attacks: mount points that are not there, are files, FIFOs, loops, or links to folders only the host has
# Guest: disk
# Each: nothing file fifo loop host
# Exit: 6
# Says: /data
attack() {
    case $1 in
        file) touch data ;;
        fifo) mkfifo data ;;
        loop) ln -s data data ;;
        host) ln -s "$HOST/log" data ;;
    esac
    echo 'LABEL=vol2 /data ext4 defaults 0 0' >>etc/fstab
}
