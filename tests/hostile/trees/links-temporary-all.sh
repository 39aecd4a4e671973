# Attacks: every name of a temporary file is taken by a folder
attack() { local number; for number in {0..99}; do mkdir "etc/.guestseal.$number.new"; done; }
check() { [ "$(cat etc/hostname)" = sealed ] || fail 'the host name was not set'; }
