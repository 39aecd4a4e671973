# Attacks: a bind mount that puts /var where operations do not look for it
# Exit: 6
# Says: /var
attack() { mkdir -p data && cp -a var data/ && echo '/data/var /var none bind 0 0' >>etc/fstab; }
