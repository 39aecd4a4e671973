# Attacks: 60,000 accounts, close to as many as are read
# Memory: 300
# Seconds: 200
attack() {
    python3 - <<'END'
with open('etc/passwd', 'a') as passwd, open('etc/shadow', 'a') as shadow, open('etc/group', 'a') as group:
    for number in range(60000):
        passwd.write(f'user{number}:x:{number + 2000}:100::/home/user{number}:/bin/sh\n')
        shadow.write(f'user{number}:*:19000::::::\n')
        group.write(f'user{number}:x:{number + 2000}:alice,bob\n')
END
}
check() { ! grep -qE "^user([0-9]{1,4}|[0-4][0-9]{4}):" etc/passwd && grep -q ^root: etc/passwd || fail 'accounts are left'; }
