# Attacks: mount points that are links to the host, chains of them, and ways up
# Guest: disk
# Each: absolute upwards dots
attack() {
    mkdir -p "$PWD$HOST/log"
    case $1 in
        absolute) ln -s "$HOST/log" data ;;
        upwards) ln -s "$UP$HOST" srv/one && ln -s /srv/one/log data ;;
        dots) mkdir data ;;
    esac
    if [ "$1" = dots ]; then printf 'LABEL=vol2 /srv/../../data/../data ext4 defaults 0 0\n'; else printf 'LABEL=vol2 /data ext4 defaults 0 0\n'; fi >>etc/fstab
}
