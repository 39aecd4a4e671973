# Attacks: a FIFO or a device in place of the file in which a password is to be set
# Each: fifo zero
# Exit: 6
# Says: /etc/shadow
attack() { rm etc/shadow; if [ "$1" = fifo ]; then mkfifo etc/shadow; else mknod etc/shadow c 1 5; fi; }
