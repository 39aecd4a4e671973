# Attacks: an sshd_config whose host keys are files of the host, the guest's passwords, folders, ways up and devices
attack() {
    cat >>etc/ssh/sshd_config <<END
HostKey $HOST/etc/ssh/ssh_host_rsa_key
HostKey $UP$HOST/secret
HostKey /$UP$HOST/secret
HostKey /etc/shadow
HostKey /etc
HostKey /dev/zero
HostKey "/etc/passwd"
HostCertificate ${HOST}/secret
HostKey relative
Include $HOST/etc/ssh/sshd_config
END
    mknod dev/zero c 1 5 || :
}
check() { [ -f etc/shadow ] && [ -f etc/passwd ] || fail 'the accounts went'; }
