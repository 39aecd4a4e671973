# Attacks: the account files as links: to the host, and shadow to another file of the guest
attack() {
    ln -sfn "$HOST/etc/passwd" etc/passwd
    ln -sfn "$UP$HOST/etc/group" etc/group
    ln -sfn "$HOST/etc/shadow" etc/gshadow
    ln -sfn "$HOST/etc/passwd" etc/subuid
    mv etc/shadow srv/real-shadow
    ln -s ../../../srv/real-shadow etc/shadow
    cp srv/real-shadow srv/old-shadow
}
check() {
    [ -L etc/shadow ] && ! cmp -s srv/real-shadow srv/old-shadow || fail 'the password was not set at the end of the link'
    [ -L etc/passwd ] && [ -L etc/group ] || fail 'a link to the host became a file'
}
