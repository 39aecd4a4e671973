# Attacks: folders that nest 10,000 deep, where trees are removed, walked and kept
# Memory: 300
# Seconds: 60
attack() {
    python3 - <<'END'
import os
for start in ['tmp', 'var/log', 'etc', 'home/alice', 'srv']:
    top = os.getcwd()
    os.chdir(start)
    for level in range(10000):
        os.mkdir('l')
        os.chdir('l')
    open('x.log', 'w').write('secret')
    os.chdir(top)
END
}
check() { [ -z "$(ls -A tmp)" ] && [ ! -e home/alice ] || fail 'something is left'; }
