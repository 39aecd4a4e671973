# The digest of a tree as docs/record.md describes it, made by other means than guestseal's.
import hashlib, os, stat, sys

KINDS = {stat.S_IFREG: b"file", stat.S_IFDIR: b"folder", stat.S_IFLNK: b"link", stat.S_IFCHR: b"char",
         stat.S_IFBLK: b"block", stat.S_IFIFO: b"fifo", stat.S_IFSOCK: b"socket"}
root, digest = os.fsencode(sys.argv[1]), hashlib.sha256()

def sha256(content):
    return hashlib.sha256(content).hexdigest().encode()

def add(below):
    path, facts = root + below, os.lstat(root + below)
    kind, what = stat.S_IFMT(facts.st_mode), b""
    if kind == stat.S_IFREG:
        with open(path, "rb") as file:
            what = b"%d:%s" % (facts.st_size, sha256(file.read()))
    elif kind == stat.S_IFLNK:
        what = os.readlink(path)
    elif kind in (stat.S_IFCHR, stat.S_IFBLK):
        what = b"%d:%d" % (os.major(facts.st_rdev), os.minor(facts.st_rdev))
    names = sorted(os.fsencode(name) for name in os.listxattr(path, follow_symlinks=False))
    fields = [below or b"/", KINDS[kind], b"%04o" % stat.S_IMODE(facts.st_mode), b"%d" % facts.st_uid,
              b"%d" % facts.st_gid, what, b"%d" % len(names)]
    for name in names:
        fields += [name, sha256(os.getxattr(path, name, follow_symlinks=False))]
    digest.update(b"".join(field + b"\0" for field in fields))
    if kind == stat.S_IFDIR:
        for name in sorted(os.listdir(path)):
            add(below + b"/" + name)

add(b"")
print(digest.hexdigest())
