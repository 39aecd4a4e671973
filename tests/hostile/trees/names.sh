# Attacks: names like options, with line breaks, escape sequences, globs, shell words, without UTF-8, of 255 bytes
# Options: --json
attack() {
    python3 - <<'END'
import os
names = [b'-rf', b'--help', b'--', b'-', b'a\nb', b'x\nerror: the image is broken', b'\x1b[2J\x1b]0;gotcha\x07', b'\xff\xfe', b'\xc3', b'\xed\xa0\x80',
         b'*', b'?[x]', b'{a,b}', b'~', b'$(reboot)', b'`reboot`', b"'\"", b'\\', b'\r', b'\t', b' ', b'\xe2\x80\xae/gpj'.replace(b'/', b''), b'.' * 3, b'n' * 255, b'%s%n', b'{{hostname}}']
for folder in [b'tmp', b'var/tmp', b'var/log', b'var/log/journal', b'home', b'root', b'etc/ssh/sshd_config.d', b'var/spool/cron', b'var/mail', b'srv', b'etc/sudoers.d', b'var/crash']:
    os.makedirs(folder, exist_ok=True)
    for name in names:
        path = os.path.join(folder, name)
        if folder in (b'home', b'root'):
            os.makedirs(os.path.join(path, b'.ssh'), exist_ok=True)
            open(os.path.join(path, b'.bash_history'), 'w').write('secret')
        else:
            open(path, 'w').write('secret')
        for end in [b'.gz', b'.log', b'~', b'.conf', b'.log.1']:
            if len(name) < 200:
                open(path + end, 'w').write('secret')
END
    local name uid=0
    for name in $'-rf' $'\e[2J' $'a b' $'\xff' '--help' '..' '.'; do printf '%s:x:%d:1002::/home/%s:/bin/sh\n' "$name" $((++uid + 1100)) "$name" >>etc/passwd; done
    printf 'HostKey /etc/ssh/%s\n' $'\e[2J' $'\xff' -rf >>etc/ssh/sshd_config
}
check() {
    [ -z "$(ls -A tmp)" ] && [ -z "$(ls -A var/tmp)" ] || fail 'something is left in /tmp'
    [ -z "$(find var/log -type f -size +0)" ] || fail "a log is left: $(find var/log -type f -size +0)"
}
