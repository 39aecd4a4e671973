# Attacks: folders that nest 5,000 deep, where trees are removed, walked and kept
# Memory: 300
# Seconds: 400
attack() {
    python3 - <<'END'
import os
for start, levels in [('tmp', 5000), ('home/alice', 5000), ('var/log', 2000), ('etc', 2000)]:
    top = os.getcwd()
    os.chdir(start)
    for level in range(levels):
        os.mkdir('l')
        os.chdir('l')
    open('x.log', 'w').write('secret')
    os.chdir(top)
END
}
check() { [ -z "$(ls -A tmp)" ] && [ ! -e home/alice ] || fail 'something is left'; }
