# Attacks: a group with 300,000 members in one line, and a line of 10 MB in passwd
# Memory: 300
# Seconds: 200
attack() {
    python3 - <<'END'
with open('etc/group', 'a') as group: group.write('big:x:5000:' + ','.join(f'user{n}' for n in range(300000)) + ',alice\n')
with open('etc/passwd', 'a') as passwd: passwd.write('long:x:1500:1500:' + 'g' * 10_000_000 + ':/home/long:/bin/sh\n')
END
}
check() { ! grep -q ',alice$' etc/group && ! grep -q ^long: etc/passwd || fail 'an account is left'; }
