#!/usr/bin/python3
"""One line per entry of a tree, sorted by name: what two trees must have in common to be the same.

    listing.py DIR          path, type, mode, owner, time in ns, content or target, group of hard links, attributes

Nothing is followed, names are escaped. Hard links show as the number of the group, in order of first names.
Attributes that an image does not carry (security.selinux, trusted.*, btrfs.*) are left out.
"""
import hashlib
import os
import stat
import sys

KEPT = ("user.", "security.capability", "system.posix_acl_access", "system.posix_acl_default")


def digest(path):
    whole = hashlib.sha256()
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        while piece := file.read(1 << 20):
            whole.update(piece)
    return whole.hexdigest()


def attributes(path):
    names = sorted(n for n in os.listxattr(path, follow_symlinks=False) if n.startswith(KEPT))
    return ",".join(f"{n}={os.getxattr(path, n, follow_symlinks=False).hex()}" for n in names) or "-"


def entries(root):
    """Paths below root, parents first, without recursion: a tree may be deeper than Python's stack."""
    todo = [b"."]
    while todo:
        path = todo.pop()
        info = os.lstat(os.path.join(root, path))
        yield path, info
        if stat.S_ISDIR(info.st_mode):
            todo += [os.path.join(path, name) for name in os.listdir(os.path.join(root, path))]


def main():
    root = os.fsencode(sys.argv[1])
    groups = {}
    for path, info in sorted(entries(root)):
        full = os.path.join(root, path)
        kind = stat.S_IFMT(info.st_mode)
        what = {stat.S_IFDIR: "dir", stat.S_IFREG: "file", stat.S_IFLNK: "link", stat.S_IFIFO: "pipe",
                stat.S_IFCHR: "char", stat.S_IFBLK: "block", stat.S_IFSOCK: "socket"}[kind]
        detail = "-"
        if what == "file":
            detail = f"{info.st_size}:{digest(full)}"
        elif what == "link":
            detail = ascii(os.readlink(full))
        elif what in ("char", "block"):
            detail = f"{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"
        group = "-"
        if what != "dir" and info.st_nlink > 1:
            group = groups.setdefault((info.st_dev, info.st_ino), len(groups) + 1)
        print(ascii(path)[2:-1], what, f"{stat.S_IMODE(info.st_mode):04o}", f"{info.st_uid}:{info.st_gid}",
              info.st_mtime_ns, detail, group, attributes(full), sep="\t")


main()
