# Attacks: /etc itself as a link to a folder of the host that looks like one
# Exit: 6
# Says: no operating system
attack() { rm -rf etc && ln -s "$HOST/etc" etc; }
