# Attacks: one volume mounted in two places, one inside the other, and two volumes in one place
# Guest: disk
attack() {
    mkdir -p data srv/one opt/two
    cat >>etc/fstab <<END
LABEL=vol2 /data ext4 defaults 0 0
LABEL=vol2 /srv/one ext4 defaults 0 0
LABEL=vol3 /opt/two ext4 defaults 0 0
LABEL=vol2 /opt/two ext4 defaults 0 0
END
}
