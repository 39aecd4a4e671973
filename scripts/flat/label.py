#!/usr/bin/env python3
"""Labels the files of a guest's tree by file contexts: the last line that matches counts, and one without an
expression before all. A file of which the policy says nothing gets none. With "check" it prints the files that have
another label, or none, and changes nothing.

usage: label.py set|check ROOT FILE_CONTEXTS ALIAS FOLDER
"""

import os
import re
import stat
import sys

ATTRIBUTE = "security.selinux"
KINDS = {"--": stat.S_ISREG, "-d": stat.S_ISDIR, "-l": stat.S_ISLNK}


def read(name):
    with open(name, encoding="ascii") as lines:
        rows = [line.split() for line in lines if not line.startswith("#")]
    plain = [row for row in rows if not re.search(r"[.^$?*+|\[({]", row[0].replace("\\.", ""))]
    return [row for row in rows if row not in plain] + plain


def label_of(rows, path, mode):
    for row in reversed(rows):
        if (len(row) == 2 or KINDS[row[1]](mode)) and re.fullmatch(row[0], path):
            return row[-1]
    return "<<none>>"


def label_on(name):
    try:
        return os.getxattr(name, ATTRIBUTE, follow_symlinks=False).rstrip(b"\0").decode()
    except OSError:
        return None


def main(what, root, contexts, alias, folder):
    rows = read(contexts)
    found = [root] + [os.path.join(at, name) for at, folders, files in os.walk(root) for name in folders + files]
    for name in found:
        path = name[len(root) :] or "/"
        if path == alias or path.startswith(alias + "/"):
            path = folder + path[len(alias) :]
        label = label_of(rows, path, os.lstat(name).st_mode)
        if label == "<<none>>":
            continue
        if what == "set":
            os.setxattr(name, ATTRIBUTE, label.encode() + b"\0", follow_symlinks=False)
        elif label_on(name) != label:
            print(name[len(root) :], label_on(name), "and not", label)


main(*sys.argv[1:])
