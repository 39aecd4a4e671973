# Attacks: /etc/shadow as a link to that of the host
# Each: absolute upwards host
# Exit: 6
# Says: /etc/shadow
attack() {
    case $1 in
        absolute) ln -sfn "$HOST/etc/shadow" etc/shadow ;;
        upwards) ln -sfn "$UP$HOST/etc/shadow" etc/shadow ;;
        host) ln -sfn "$UP/../etc/shadow" etc/shadow ;;
    esac
}
