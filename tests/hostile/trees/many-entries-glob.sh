# Attacks: 50,000 entries each of which a glob matches, each a change of its own
# Guest: xfs
# Memory: 400
# Seconds: 400
attack() { mkdir -p var/log/many && touch var/log/many/x && python3 -c 'import os; os.chdir("var/log/many"); [os.link("x", f"n{number}.gz") for number in range(50000)]'; }
check() { [ -z "$(find var/log/many -name '*.gz' -print -quit)" ] || fail 'something is left'; }
