# Attacks: a folder in place of a file that is to be written
# Each: hostname shadow localtime
# Exit: 6
# Says: /etc/
attack() { rm -rf "etc/$1" && mkdir "etc/$1" && touch "etc/$1/x"; }
