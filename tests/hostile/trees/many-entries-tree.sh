# Attacks: a folder of 1,000,000 entries below one that is removed as a whole
# Guest: xfs
# Memory: 400
# Seconds: 400
attack() { mkdir -p tmp/many && touch tmp/many/x && python3 -c 'import os; os.chdir("tmp/many"); [os.link("x", f"n{number}") for number in range(1000000)]'; }
check() { [ -z "$(ls -A tmp)" ] || fail 'something is left'; }
