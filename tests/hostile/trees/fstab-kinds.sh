# Attacks: binds, overlays, networks, memory, swap, automounts and unknown types, with options that lead to the host
# Guest: disk
attack() {
    mkdir -p a b c
    cat >>etc/fstab <<END
/etc /a none bind 0 0
$HOST /b none rbind,rw 0 0
/home /srv/home none bind 0 0
overlay /c overlay lowerdir=$HOST,upperdir=$HOST/tmp,workdir=$HOST/root 0 0
server:/x /mnt/nfs nfs4 defaults 0 0
//server/x /mnt/cifs cifs credentials=$HOST/secret 0 0
tmpfs /tmp tmpfs size=100% 0 0
none none swap sw 0 0
$HOST/secret none swap sw 0 0
proc /proc proc defaults 0 0
LABEL=vol3 /mnt/x mysterious defaults 0 0
x y z
only-one-word
/dev/disk/by-path/../../..$HOST/secret /mnt/y ext4 defaults 0 0
LABEL=vol2 relative ext4 defaults 0 0
LABEL=vol2 none ext4 defaults 0 0
END
    mkdir -p mnt/x mnt/y none
}
