# Attacks: immutable and append-only files and folders, ACLs and extended attributes on all that is edited: they must stay
# Guest: xfs
# Each: i a
. "${BASH_SOURCE[0]%/*}/attributes.sh"
