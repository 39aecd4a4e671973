# Attacks: /home and /var themselves as links to folders of the host
# Each: home var usr/share
attack() {
    rm -rf "${1:?}" && ln -s "$HOST" "$1"
    [ "$1" != usr/share ] || { mkdir -p "$PWD$HOST/zoneinfo/Europe" && echo TZif >"$PWD$HOST/zoneinfo/Europe/Berlin"; }
}
check() { [ -L "$1" ] || fail 'the link went'; }
