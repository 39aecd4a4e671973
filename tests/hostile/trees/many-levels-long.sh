# Attacks: folders that nest 10,000 deep with the longest names, each of which a glob matches: paths of 2.5 MB
# Memory: 200
# Exit: 6
# Says: nest too deeply
# Seconds: 400
attack() {
    python3 - <<'END'
import os
for start in ['srv', 'tmp']:
    top = os.getcwd()
    os.chdir(start)
    for level in range(10000):
        os.mkdir('n' * 254 + '~')
        os.chdir('n' * 254 + '~')
    open('file~', 'w').write('secret')
    os.chdir(top)
END
}
