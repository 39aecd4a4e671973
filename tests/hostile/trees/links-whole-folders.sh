# Attacks: /home and /var themselves as links to folders of the host
# Each: home var opt
attack() {
    rm -rf "${1:?}" && ln -s "$HOST" "$1"
}
check() { [ -L "$1" ] || fail 'the link went'; }
