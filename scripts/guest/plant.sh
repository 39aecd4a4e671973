# Plants canary secrets in a guest's tree: distinct markers CANARY-<kind>-<n>, each listed with its path.
# A line of the list is "marker TAB kind TAB class TAB path"; canaries.tsv beside this file says what a class is.
# shellcheck shell=bash

declare -A IDS=()

# load_ids ROOT: learns the numeric ids of the guest's users (user:NAME) and groups (group:NAME).
load_ids() {
    local kind name id
    IDS=()
    for kind in user:passwd group:group; do
        while IFS=: read -r name _ id _; do IDS[${kind%:*}:$name]=$id; done <"$1/etc/${kind#*:}"
    done
}

# own ROOT PATH MODE OWNER:GROUP: gives a file of the guest the ids that the names have there; root's when unknown.
own() {
    chown -h "${IDS[user:${4%:*}]:-0}:${IDS[group:${4#*:}]:-0}" "$1$2"
    chmod "$3" "$1$2"
}

# make_parents ROOT PATH OWNER:GROUP: missing folders get the file's owner below a home, else root.
make_parents() {
    local root=$1 dir=${2%/*} owner=$3
    [ -n "$dir" ] && [ ! -d "$root$dir" ] || return 0
    make_parents "$root" "$dir" "$owner"
    mkdir "$root$dir"
    case $dir in
        /home/* | /srv/home/* | /root/* | /var/lib/jenkins/*) own "$root" "$dir" 700 "$owner" ;;
        *) own "$root" "$dir" 755 root:root ;;
    esac
}

# plant_table ROOT TABLE LIST VARIANT: one file for each row, or one more line where the file exists.
plant_table() {
    local root=$1 variant=$4 kind class path mode owner text marker
    local -A count=()
    while IFS='|' read -r kind class path mode owner text; do
        [[ $kind != \#* ]] || continue
        [[ $kind != *@* || $variant == "${kind#*@}"* ]] || continue
        kind=${kind%@*}
        count[$kind]=$((${count[$kind]:-0} + 1))
        marker=CANARY-$kind-${count[$kind]}
        path=${path//\{\}/$marker} text=${text//\{\}/$marker}
        make_parents "$root" "$path" "$owner"
        printf '%b' "$text" >>"$root$path"
        own "$root" "$path" "$mode" "$owner"
        printf '%s\t%s\t%s\t%s\n' "$marker" "$kind" "$class" "$path" >>"$3"
    done <"$2"
}

# plant_logs ROOT LIST: 20,000 lines in live logs, 200 in rotated ones, and a journal of a machine's own id.
plant_logs() {
    local root=$1 list=$2 id=$3 spec path from to
    for spec in syslog:1:10000 auth.log:10001:15000 daemon.log:15001:20000 syslog.1:20001:20100; do
        IFS=: read -r path from to <<<"$spec"
        seq -f 'Jan  2 03:04:05 template app[77]: session token CANARY-log-line-%.0f' "$from" "$to" >"$root/var/log/$path"
        seq -f "CANARY-log-line-%.0f	log-line	default	/var/log/$path" "$from" "$to" >>"$list"
        own "$root" "/var/log/$path" 640 root:adm
    done
    seq -f 'Jan  1 03:04:05 template app[77]: session token CANARY-log-line-%.0f' 20101 20200 |
        gzip -n >"$root/var/log/syslog.2.gz"
    own "$root" /var/log/syslog.2.gz 640 root:adm
    mkdir -p "$root/var/log/journal/$id"
    own "$root" /var/log/journal 2755 root:systemd-journal
    own "$root" "/var/log/journal/$id" 2755 root:systemd-journal
    printf 'LPKSHHRH\0\0\0\0\0\0\0\0MESSAGE=CANARY-journal-1\n' >"$root/var/log/journal/$id/system.journal"
    own "$root" "/var/log/journal/$id/system.journal" 640 root:systemd-journal
    printf 'CANARY-journal-1\tjournal\tdefault\t/var/log/journal/%s/system.journal\n' "$id" >>"$list"
}

# plant_keys ROOT LIST: real user keys; a private key's marker is a line of its own text. Host keys are listed too.
plant_keys() {
    local root=$1 list=$2 owner path key
    for owner in root:/root alice:/home/alice bob:/srv/home/bob; do
        path=${owner#*:}/.ssh/id_ed25519 owner=${owner%%:*}
        [ ! -e "$root$path" ] || continue
        make_parents "$root" "$path" "$owner:$owner"
        ssh-keygen -q -t ed25519 -N '' -C "$owner@template" -f "$root$path"
        own "$root" "$path" 600 "$owner:$owner"
        own "$root" "$path.pub" 644 "$owner:$owner"
    done
    for key in "$root"/etc/ssh/ssh_host_*_key "$root"{/root,/home/alice,/srv/home/bob}/.ssh/id_ed25519; do
        [ -e "$key" ] || continue
        printf '%s\tssh-private-key\tdefault\t%s\n' "$(sed -n '/^-----/d;p' "$key" | tail -n 2 | head -n 1)" "${key#"$root"}" >>"$list"
    done
}

# plant ROOT TABLE LIST VARIANT: everything above, and the identities that are no secrets.
plant() {
    local root=$1 table=$2 list=$3 variant=$4 id
    : >"$list"
    load_ids "$root"
    id=$(printf '%s' "$variant" | sha256sum | cut -c1-32)
    printf '%s\n' "$id" >"$root/etc/machine-id"
    chmod 444 "$root/etc/machine-id"
    mkdir -p "$root/var/lib/dbus" "$root/var/log"
    rm -f "$root/var/lib/dbus/machine-id"
    printf '%s\n' "$id" >"$root/var/lib/dbus/machine-id"
    printf '%s\tmachine-id\tdefault\t/etc/machine-id\n' "$id" >>"$list"
    plant_table "$root" "$table" "$list" "$variant"
    plant_logs "$root" "$list" "$id"
    plant_keys "$root" "$list"
    python3 "$(dirname "$table")/login-records.py" "$root" "$list"
    if [ -d "$root/var/log/nginx" ]; then own "$root" /var/log/nginx 755 www-data:adm; fi
    chmod 1777 "$root/tmp" "$root/var/tmp"
}
