# Attacks: the names of the temporary files beside what is edited, as links to the host, folders and FIFOs
attack() {
    local number
    for number in {0..30}; do ln -s "$HOST/etc/hostname" "etc/.guestseal.$number.new"; done
    for number in {31..50}; do mkdir "etc/.guestseal.$number.new"; done
    mkfifo etc/.guestseal.51.new
}
check() { [ "$(cat etc/hostname)" = sealed ] || fail 'the host name was not set'; }
