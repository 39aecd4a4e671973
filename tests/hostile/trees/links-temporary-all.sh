# Attacks: every name of a temporary file is taken by a folder
# Exit: 1
# Says: /etc/
attack() { local number; for number in {0..99}; do mkdir "etc/.guestseal.$number.new"; done; }
