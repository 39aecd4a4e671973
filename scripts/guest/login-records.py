#!/usr/bin/env python3
"""Writes login records into a guest's tree: wtmp, btmp and lastlog in the layout of utmp(5), and, where the guest
has the tools that use them, the databases of wtmpdb and lastlog2.

usage: login-records.py ROOT CANARY-LIST
"""

import os
import sqlite3
import struct
import sys

UTMP = struct.Struct("<hxxi32s4s32s256shhiii16s20x")  # struct utmp of glibc on amd64, 384 bytes
LASTLOG = struct.Struct("<i32s256s")  # struct lastlog of glibc on amd64, 292 bytes
USER_PROCESS = 7
WHEN = 1_700_000_000  # seconds since 1970, the same in every guest


def group_id(root, name):
    with open(f"{root}/etc/group", encoding="ascii") as groups:
        return next((int(line.split(":")[2]) for line in groups if line.startswith(f"{name}:")), 0)


def utmp_record(user, host):
    fields = (USER_PROCESS, 4242, b"pts/0", b"ts/0", user.encode(), host.encode(), 0, 0, 0, WHEN, 0, b"")
    return UTMP.pack(*fields)


def write(root, path, data, mode):
    with open(root + path, "ab") as file:
        file.write(data)
    os.chown(root + path, 0, group_id(root, "utmp"))
    os.chmod(root + path, mode)


def database(root, path, schema, statement, values):
    """Makes a database where its folder or its program is in the guest."""
    os.makedirs(os.path.dirname(root + path), exist_ok=True)
    with sqlite3.connect(root + path) as connection:
        connection.execute(schema)
        connection.execute(statement, values)
    connection.close()
    os.chmod(root + path, 0o644)


def main():
    root, listing = sys.argv[1:]
    planted = []

    def marker(kind, path):
        planted.append(f"CANARY-{kind}-1\t{kind}\tdefault\t{path}\n")
        return f"CANARY-{kind}-1"

    write(root, "/var/log/wtmp", utmp_record("alice", marker("wtmp", "/var/log/wtmp")) * 3, 0o664)
    write(root, "/var/log/btmp", utmp_record("alice", marker("btmp", "/var/log/btmp")) * 3, 0o660)
    record = LASTLOG.pack(WHEN, b"pts/0", marker("lastlog", "/var/log/lastlog").encode())
    write(root, "/var/log/lastlog", bytes(LASTLOG.size * 1000) + record, 0o664)  # the entry of uid 1000

    if os.path.exists(f"{root}/usr/bin/wtmpdb"):
        path = "/var/lib/wtmpdb/wtmp.db"
        database(
            root,
            path,
            "CREATE TABLE wtmp(ID INTEGER PRIMARY KEY, Type INTEGER, User TEXT NOT NULL, Login INTEGER,"
            " Logout INTEGER, TTY TEXT, RemoteHost TEXT, Service TEXT) STRICT",
            "INSERT INTO wtmp VALUES (1, 3, 'alice', ?, NULL, 'pts/0', ?, 'sshd')",
            (WHEN * 1_000_000, marker("wtmpdb", path)),
        )
    if os.path.exists(f"{root}/usr/bin/lastlog2"):
        path = "/var/lib/lastlog/lastlog2.db"
        database(
            root,
            path,
            "CREATE TABLE Lastlog2(Name TEXT PRIMARY KEY, Time INTEGER, TTY TEXT, RemoteHost TEXT, Service TEXT) STRICT",
            "INSERT INTO Lastlog2 VALUES ('alice', ?, 'pts/0', ?, 'sshd')",
            (WHEN, marker("lastlog2", path)),
        )

    with open(listing, "a", encoding="ascii") as file:
        file.writelines(planted)


if __name__ == "__main__":
    main()
