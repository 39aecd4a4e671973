# Attacks: 2 GB in a file that is emptied or removed without being read
attack() { local file; for file in etc/machine-id etc/localtime etc/ssh/ssh_host_rsa_key var/log/syslog root/.bash_history usr/bin/bash usr/sbin/sshd; do rm -f "$file"; truncate -s 2000000000 "$file"; done; }
check() { [ ! -s etc/machine-id ] && [ ! -e etc/ssh/ssh_host_rsa_key ] && [ ! -s var/log/syslog ] || fail 'something is left'; }
