# Attacks: what the guest says of itself: escape sequences and line breaks in os-release, hostname, fstab and passwd
# Says: warning
attack() {
    rm -f etc/os-release
    printf 'ID=arch\nPRETTY_NAME="\e[2J\e]0;x\a evil"\nVERSION_ID="\r\n error: no"\nID_LIKE="\x85\x9b2J"\n' >etc/os-release
    printf '\e[2J\xff\n' >etc/hostname
    printf 'LABEL=\e[2J\\012error:\\040forged /mnt/\e[2J\\012error:\\040forged ext4 defaults 0 0\n' >>etc/fstab
    printf '\e[2J:x:1200:1200::/home/\e[2J:/bin/sh\n' >>etc/passwd
}
