# Attacks: links to folders of the host in place of each folder above what operations remove, empty and edit
# Each: absolute upwards
attack() {
    local to=$HOST folder
    [ "$1" = absolute ] || to=$UP$HOST
    for folder in etc/ssh:etc/ssh var/log:log root:root tmp:tmp var/tmp:tmp home/alice:home var/lib/systemd:etc var/spool:log \
        var/cache:tmp srv:tmp var/lib/dbus:etc etc/NetworkManager:etc var/mail:log etc/cron.d:etc opt:home; do
        rm -rf "${folder%:*}"
        mkdir -p "$(dirname "${folder%:*}")"
        ln -s "$to/${folder#*:}" "${folder%:*}"
    done
}
check() { [ -L var/log ] && [ -L root ] || fail 'a link to a folder went'; }
