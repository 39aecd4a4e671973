# Attacks: paths of 4,000 to 4,200 bytes and of 8,192, around the longest that the kernel takes, with files to remove at their ends
attack() {
    python3 - <<'END'
import os
top = os.getcwd()
for start in ['var/log', 'tmp', 'var/tmp', 'srv']:
    for length in [4000, 4080, 4090, 4093, 4094, 4095, 4096, 4097, 4098, 4200, 8192]:
        os.chdir(os.path.join(top, start))
        at = len('/' + start)
        first = f'l{length}'
        os.mkdir(first); os.chdir(first); at += 1 + len(first)
        while at + 202 < length:
            os.mkdir('d' * 100); os.chdir('d' * 100); at += 101
        name = 'f' * (length - at - 1 - 4) + '.gz~'
        open(name, 'w').write('secret')
        open(name[:-4] + '.log', 'w').write('secret')
END
}
check() { [ -z "$(ls -A tmp)" ] || fail 'something is left'; [ -z "$(find srv -name '*~')" ] || fail 'a backup file is left'; [ -z "$(find var/log -name '*.gz~')" ] || fail 'left'; }
