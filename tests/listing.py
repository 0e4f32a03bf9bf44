#!/usr/bin/python3
"""One line per entry of a tree, sorted by name: what two trees must have in common to be the same.

    listing.py DIR          path, type, mode, owner, time in ns, content or target, group of hard links, attributes
    listing.py --now DIR    times within the last 10 minutes are `now`: those of directories that nothing describes
    listing.py --holes DIR  one column more: where a file's data lies, in blocks of 4096 bytes

Nothing is followed, names are escaped. Hard links show as the number of the group, in order of first names.
Attributes that an image does not carry (security.selinux, trusted.*, btrfs.*) are left out.
"""
import errno
import hashlib
import os
import stat
import sys
import time

BLOCK = 4096
KEPT = ("user.", "security.capability", "system.posix_acl_access", "system.posix_acl_default")


def digest(path):
    """Of the blocks that are not zero, with their places: the same with holes and without, and a hole takes no time."""
    whole, done = hashlib.sha256(), 0
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
        for start, end in ranges(file.fileno()):
            done = max(done, start - start % BLOCK)
            file.seek(done)
            while done < end and (block := file.read(BLOCK)):
                if block.count(0) < len(block):
                    whole.update(b"%d:%b" % (done, block))
                done += BLOCK
    return whole.hexdigest()


def attributes(path):
    names = sorted(n for n in os.listxattr(path, follow_symlinks=False) if n.startswith(KEPT))
    return ",".join(f"{n}={os.getxattr(path, n, follow_symlinks=False).hex()}" for n in names) or "-"


def ranges(fd):
    """Where an open file has data."""
    end = 0
    while True:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end


def data(path):
    with open(path, "rb") as file:
        return ",".join(f"{start // BLOCK}-{-(-end // BLOCK)}" for start, end in ranges(file.fileno())) or "-"


def entries():
    """Paths below the current directory, parents first, without recursion: a tree may be deeper than Python's stack."""
    todo = [b""]
    while todo:
        path = todo.pop()
        info = os.lstat(path or b".")
        yield path or b".", info
        if stat.S_ISDIR(info.st_mode):
            todo += [os.path.join(path, name) for name in os.listdir(path or b".")]


def main():
    *options, root = sys.argv[1:]
    # Paths relative to it: one of 4095 bytes is as long as the kernel takes.
    os.chdir(root)
    groups, now = {}, time.time()
    for path, info in sorted(entries(), key=lambda entry: b"" if entry[0] == b"." else entry[0]):
        kind = stat.S_IFMT(info.st_mode)
        what = {stat.S_IFDIR: "dir", stat.S_IFREG: "file", stat.S_IFLNK: "link", stat.S_IFIFO: "pipe",
                stat.S_IFCHR: "char", stat.S_IFBLK: "block", stat.S_IFSOCK: "socket"}[kind]
        detail = "-"
        if what == "file":
            detail = f"{info.st_size}:{digest(path)}"
        elif what == "link":
            detail = ascii(os.readlink(path))
        elif what in ("char", "block"):
            detail = f"{os.major(info.st_rdev)}:{os.minor(info.st_rdev)}"
        group = "-"
        if what != "dir" and info.st_nlink > 1:
            group = groups.setdefault((info.st_dev, info.st_ino), len(groups) + 1)
        mtime = "now" if "--now" in options and -600 < info.st_mtime - now < 10 else info.st_mtime_ns
        more = [data(path) if what == "file" else "-"] if "--holes" in options else []
        name = path if path == b"." else b"./" + path
        print(ascii(name)[2:-1], what, f"{stat.S_IMODE(info.st_mode):04o}", f"{info.st_uid}:{info.st_gid}",
              mtime, detail, group, attributes(path), *more, sep="\t")


main()
