#!/usr/bin/python3
"""Layers for tests/system/walls.sh, each an OCI layout NAME.tar (or, for parsers, an archive) in DIR.

    walls.py breakouts DIR SENTINEL    what containerd, umoci and go-archive test their extractors with, in our words
    walls.py whiteouts DIR             … every spelling of a whiteout over the same lower layer
    walls.py parsers DIR               … archives of which tar parsers are known to think differently
    walls.py bombs DIR                 … what grows

NAME.check holds what must be true of the tree in shell (its directory is the root), or `refused`.
"""
import gzip
import os
import sys

from mklayer import BLOCK, Image, Layer, header, one, pad, pax, write

REFUSED = "refused"


def long_name(name, kind=b"L"):
    """GNU tar's way."""
    return header(b"././@LongLink", kind, size=len(name) + 1, magic=b"ustar  \0") + pad(name + b"\0")


def passwd():
    return Layer().dir("etc", mode=0o770).file("/etc/passwd", "inside")


def breakouts(s):
    """containerd's TestBreakouts by its names, then umoci's and go-archive's."""
    unbroken = "is \"$(cat etc/unbroken)\" unbroken"
    local = "same localpasswd etc/passwd"
    users = passwd().file("/etc/whitedout", "x").symlink("localetc", "/etc")
    up = "../" * 20 + s.lstrip("/")
    etc = "is \"$(cat etc/passwd)\" inside"
    return {
        "SymlinkAbsolute": ([Layer().dir("etc").symlink("localetc", "/etc").file("/localetc/unbroken", "unbroken")], unbroken),
        "SymlinkUpAndOut": ([Layer().dir("etc").dir("dummy").symlink("localetc", "/dummy/../etc")
                             .file("/localetc/unbroken", "unbroken")], unbroken),
        "SymlinkMultipleAbsolute": ([Layer().dir("etc").dir("dummy").symlink("/dummy/etc", "/etc").symlink("localetc", "/dummy/etc")
                                     .file("/localetc/unbroken", "unbroken")], unbroken),
        "SymlinkMultipleRelative": ([Layer().dir("etc").dir("dummy").symlink("/dummy/etc", "/etc")
                                     .symlink("localetc", "./dummy/etc").file("/localetc/unbroken", "unbroken")], unbroken),
        "SymlinkEmptyFile": ([Layer().dir("etc").file("etc/emptied", "notempty").symlink("localetc", "/etc")
                              .file("/localetc/emptied", "")], "[ -f etc/emptied ] && [ ! -s etc/emptied ]"),
        "HardlinkRelative": ([passwd().dir("breakouts").symlink("breakouts/d1", "../../etc")
                              .hard("breakouts/mypasswd", "/breakouts/d1/passwd")], "same breakouts/mypasswd etc/passwd"),
        "HardlinkDownAndOut": ([passwd().dir("breakouts").dir("downandout").symlink("breakouts/d1", "../downandout/../../etc")
                                .hard("breakouts/mypasswd", "/breakouts/d1/passwd")], "same breakouts/mypasswd etc/passwd"),
        "HardlinkAbsolute": ([passwd().symlink("localetc", "/etc").hard("localpasswd", "/localetc/passwd")], local),
        "HardlinkRelativeLong": ([passwd().symlink("localetc", "../../../../../../../etc").hard("localpasswd", "/localetc/passwd")],
                                 local),
        # Its first step is not there, in containerd's reading neither: there the lookup is by name.
        "HardlinkRelativeUpAndOut": ([passwd().symlink("localetc", "upandout/../../../etc").hard("localpasswd", "/localetc/passwd")],
                                     REFUSED),
        "HardlinkDirectRelative": ([passwd().hard("localpasswd", "../../../../../etc/passwd")], REFUSED),
        "HardlinkDirectAbsolute": ([passwd().hard("localpasswd", "/etc/passwd")], local),
        "SymlinkParentDirectory": ([passwd().symlink("..", "/etc/")], REFUSED),
        "SymlinkEmptyFilename": ([passwd().symlink("", "/etc/")], REFUSED),
        "SymlinkParentRelative": ([passwd().symlink("localetc/sub/..", "/etc/")], REFUSED),
        "SymlinkSlashEnded": ([passwd().dir("localetc/").hard("/localetc/localpasswd", "/etc/passwd")],
                              "same localetc/localpasswd etc/passwd"),
        "SymlinkOverrideDirectory": ([passwd().dir("/localetc/"), Layer().symlink("localetc", "/etc")
                                      .hard("/localetc/localpasswd", "/etc/passwd")], "[ -L localetc ]; same etc/localpasswd etc/passwd"),
        "SymlinkOverrideDirectoryRelative": ([passwd().dir("/localetc/"), Layer().symlink("localetc", "../../etc")
                                              .hard("/localetc/localpasswd", "/etc/passwd")], "same etc/localpasswd etc/passwd"),
        "DirectoryOverrideSymlink": ([passwd().symlink("localetc", "/etc"), Layer().dir("/localetc/")
                                      .hard("/localetc/localpasswd", "/etc/passwd")],
                                     "[ ! -L localetc ]; same localetc/localpasswd etc/passwd"),
        "DirectoryOverrideSymlinkAndHardlink": ([passwd().symlink("localetc", "etc").hard("/localetc/localpasswd", "/etc/passwd"),
                                                 Layer().dir("/localetc/").file("/localetc/localpasswd", "different")],
                                                etc + "; is \"$(cat localetc/localpasswd)\" different"),
        "WhiteoutRootParent": ([passwd(), Layer().file(".wh...")], REFUSED),
        "WhiteoutParent": ([passwd(), Layer().file("etc/.wh...")], REFUSED),
        "WhiteoutRoot": ([passwd(), Layer().file(".wh..")], REFUSED),
        "WhiteoutCurrentDirectory": ([passwd(), Layer().file("etc/.wh..")], REFUSED),
        "WhiteoutSymlink": ([users, Layer().file(".wh.localetc")], etc + "; [ ! -L localetc ]"),
        "WhiteoutSymlinkPath": ([users, Layer().file("localetc/.wh.whitedout")], etc + "; [ ! -e etc/whitedout ]"),
        "WhiteoutDirectoryName": ([users, Layer().file(".wh.etc/somefile", "non-empty")], REFUSED),
        "WhiteoutDeadSymlinkParent": ([passwd().symlink("localetc", "/dne"), Layer().file("localetc/.wh.etc")],
                                      etc + "; [ ! -e dne ]"),
        "WhiteoutRelativePath": ([passwd().symlink("localetc", "/dne"), Layer().file("dne/../.wh.etc")], REFUSED),
        "HardlinkSymlinkBeforeCreateTarget": ([Layer().dir("etc").symlink("localpasswd", "/etc/passwd")
                                               .hard("localpasswd-dup", "localpasswd").file("/etc/passwd", "after")],
                                              "same localpasswd localpasswd-dup; [ -L localpasswd-dup ]"),
        "HardlinkSymlinkRelative": ([passwd().symlink("passwdlink", "../../../../../etc/passwd").hard("localpasswd", "/passwdlink")],
                                    "same localpasswd passwdlink; [ -L localpasswd ]"),
        "HardlinkSymlinkAbsolute": ([passwd().symlink("passwdlink", "/etc/passwd").hard("localpasswd", "/passwdlink")],
                                    "same localpasswd passwdlink; [ -L localpasswd ]"),
        "HardlinkSymlinkChmod": ([Layer().symlink("/tmp/outside", s + "/file").hard("sketchylink", "/tmp/outside", mode=0o777)],
                                 "[ -L sketchylink ]"),
        "DirectoryCreation": ([passwd(), Layer().dir("/etc/subdir").dir("/etc/subdir2/").dir("/other/noparent-1/1")],
                              etc + "; [ -d etc/subdir ] && [ -d etc/subdir2 ] && [ -d other/noparent-1/1 ]"),
        # umoci: what is a link in one layer is a parent, a whiteout's parent, the target of an owner in the next.
        "umoci-link-dot": ([Layer().symlink(".", s), Layer().file("escape")], REFUSED),
        "umoci-link-slash": ([Layer().symlink("/", s), Layer().file("escape")], REFUSED),
        "umoci-owner-through-link": ([Layer().symlink("l", s), Layer().dir("l/d", uid=7, mode=0o777)], "[ -d .%s/d ]" % s),
        "umoci-nested-links": ([Layer().symlink("a", "/b").symlink("b", "c/../../../../").symlink("c", up), Layer().file("a/x", "x")],
                               "true"),
        "umoci-whiteout-nested-links": ([Layer().symlink("a", "/b").symlink("b", up), Layer().file("a/.wh.file")], "true"),
        "umoci-xattrs-through-link": ([Layer().symlink("l", s + "/file", records={"SCHILY.xattr.user.x": b"1"})], "[ -L l ]"),
        # go-archive: names that are not local; links that point out; what real builders (kaniko) and bases (/var/run) have.
        "go-dotdot": ([Layer().dir("..", mode=0o777).file("../victim/x", "x")], REFUSED),
        "go-slash-dotdot": ([Layer().file("/../victim/x", "x")], REFUSED),
        "go-hard-out": ([Layer().hard("x", up + "/file")], REFUSED),
        "go-hard-sibling": ([Layer().symlink("l", s + "-evil").hard("x", "l/file")], REFUSED),
        "go-link-then-file": ([Layer().symlink("l", s).file("l/x", "x")], "[ -f .%s/x ]" % s),
        "go-link-then-hard-to-it": ([Layer().symlink("l", s + "/file").hard("h", "l"), Layer().file("h", "x", mode=0o777)],
                                    "[ -f h ] && [ -L l ]"),
        "go-kaniko-hard": ([passwd(), Layer().hard("etc/again", "/etc/passwd")], "same etc/again etc/passwd"),
        "go-absolute-parent": ([Layer().dir("data").symlink("mnt", "/data"), Layer().file("mnt/x", "x")], "[ -f data/x ]"),
        "go-var-run": ([Layer().dir("run").dir("var").symlink("var/run", "/run"), Layer().file("var/run/x", "x")],
                       "[ -f run/x ] && [ -L var/run ]"),
    }


def whiteouts():
    """What must be there of d/f d/g d/sub/h e/f, and what else."""
    def lower():
        return (Layer().dir("d/").file("d/f", "f").file("d/g", "g").dir("d/sub/").file("d/sub/h", "h").dir("e/").file("e/f", "f")
                .symlink("l", "d").symlink("abs", "/d").file("d/" + "n" * 251, "n").file(b"d/\xff\n", "x"))

    def has(*gone, more=""):
        checks = []
        for name in ("d/f", "d/g", "d/sub/h", "e/f", "d/" + "n" * 251):
            checks.append("[ %s-e %s ]" % ("! " if any(name.startswith(g) for g in gone) else "", name))
        return "; ".join(["! find . -name '.wh*' | grep -q ."] + checks + ([more] if more else []))

    w = Layer
    f = has("d/f")
    content = has("d/")
    many = {
        "plain": (w().file("d/.wh.f"), f),
        "dot": (w().file("./d/.wh.f"), f),
        "absolute": (w().file("/d/.wh.f"), f),
        "slashes": (w().file("d//.//.wh.f"), f),
        "pax": (w().raw(pax({"path": b"d/.wh.f"})).add("x"), f),
        "long": (w().raw(long_name(b"d/.wh.f")).add("x"), f),
        "longest": (w().file("d/.wh." + "n" * 251), has("d/" + "n" * 251)),
        "not-utf8": (w().file(b"d/.wh.\xff\n"), has(more="[ ! -e d/$'\\377\\n' ]")),
        "directory": (w().dir("d/.wh.f/"), f),
        "directory-without-slash": (w().dir("d/.wh.f"), f),
        "symlink": (w().symlink("d/.wh.f", "/etc/passwd"), f),
        "hard": (w().hard("d/.wh.f", "e/f"), f),
        "pipe": (w().add("d/.wh.f", b"6"), f),
        "device": (w().add("d/.wh.f", b"3"), f),
        "with-data": (w().file("d/.wh.f", "data"), f),
        "twice": (w().file("d/.wh.f").file("d/.wh.f"), f),
        "not-there": (w().file("d/.wh.x").file("x/.wh.y").file("d/f/.wh.z"), has(more="[ ! -e x ]")),
        "of-a-directory": (w().file(".wh.d"), has("d")),
        "of-a-link": (w().file(".wh.l"), has(more="[ ! -L l ]")),
        "through-a-link": (w().file("l/.wh.f"), f),
        "through-an-absolute-link": (w().file("abs/.wh.f"), f),
        "through-a-link-of-its-own": (w().symlink("new", "/d").file("new/.wh.f"), f),
        "opaque": (w().file("d/.wh..wh..opq"), content),
        "opaque-dot": (w().file("./d/./.wh..wh..opq"), content),
        "opaque-directory": (w().dir("d/.wh..wh..opq/"), content),
        "opaque-through-a-link": (w().file("l/.wh..wh..opq"), content),
        "opaque-first": (w().file("d/.wh..wh..opq").file("d/new", "n"), has("d/", more="[ -f d/new ]")),
        "opaque-last": (w().file("d/new", "n").file("d/g", "2").file("d/.wh..wh..opq"),
                        has("d/f", "d/s", "d/n", more="[ -f d/new ] && is \"$(cat d/g)\" 2")),
        "opaque-between": (w().file("d/sub/new", "n").file("d/.wh..wh..opq").dir("d/"), has("d/", more="[ -f d/sub/new ]")),
        "opaque-of-the-root": (w().file(".wh..wh..opq").file("new", "n"), has("d", "e", more="is \"$(ls -A)\" new")),
        "opaque-of-the-root-dot": (w().dir("./").file("./.wh..wh..opq"), has("d", "e", more="is \"$(ls -A)\" ''")),
        "opaque-not-there": (w().file("x/.wh..wh..opq"), has(more="[ ! -e x ]")),
        "own-before": (w().file("d/f", "2").file("d/.wh.f"), has(more="is \"$(cat d/f)\" 2")),
        "own-after": (w().file("d/.wh.f").file("d/f", "2"), has(more="is \"$(cat d/f)\" 2")),
        "own-directory": (w().file("d/new", "n").file(".wh.d"), has("d/", more="is \"$(ls -A d)\" new")),
        "own-link-to-what-goes": (w().hard("kept", "d/f").file("d/.wh.f"), has("d/f", more="is \"$(cat kept)\" f")),
        "aufs": (w().file(".wh..wh.aufs").dir(".wh..wh.plnk").file(".wh..wh.plnk/1.2").dir(".wh..wh.orph"), has()),
    }
    for name, bad in {"empty": "d/.wh.", "itself": "d/.wh..", "parent": "d/.wh...", "root": ".wh..", "above-root": ".wh...",
                      "root-empty": ".wh.", "dot-empty": "./.wh.", "of-whiteout": "d/.wh..wh.f", "of-opaque": "d/.wh..wh..wh..opq",
                      "through": ".wh.d/f", "through-opaque": "d/.wh..wh..opq/f", "dotdot": "d/../.wh.e"}.items():
        many["bad-" + name] = (w().file(bad), REFUSED)
        many["bad-" + name + "-directory"] = (w().dir(bad + "/"), REFUSED)
        many["bad-" + name + "-pax"] = (w().raw(pax({"path": bad.encode()})).add("x"), REFUSED)
    return {name: ([lower(), layer], check) for name, (layer, check) in many.items()}


def sealed(block):
    """With the right checksum."""
    block = bytearray(block)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:BLOCK])
    return bytes(block)


def patched(block, at, data):
    block = bytearray(block)
    block[at:at + len(data)] = data
    return sealed(block)


def old_sparse(places, more=0, real=801, stored=513):
    block = bytearray(header(b"s", b"S", size=stored, magic=b"ustar  \0"))
    for place, offset in places:
        block[386 + 24 * place:386 + 24 * place + 24] = b"%011o\0%011o\0" % (offset, 512 if offset == 0 else 1)
    block[482] = more
    block[483:495] = b"%011o\0" % real
    return sealed(block)


def parsers():
    """`both`: everybody must take it, and the same. Else: we refuse, or see what GNU tar sees."""
    x = pad(b"x" * 512)
    end = bytes(1024)
    f = header(b"f")
    signed = bytearray(header(b"caf\xe9\xff"))
    signed[148:156] = b"%06o\0 " % (sum((b if b < 128 else b - 256) for b in signed[:148] + b" " * 8 + signed[156:]) & 0o777777)
    one_map = pad(b"3\n0\n512\n600\n1\n801\n0\n".ljust(512, b"\0"))
    v1 = {"GNU.sparse.major": 1, "GNU.sparse.minor": 0, "GNU.sparse.name": b"s", "GNU.sparse.realsize": 801}

    def sparse(records, data=b"x" * 512 + b"c"):
        return pax(records) + header(b"s", size=len(data)) + pad(data)

    agree = {
        "plain": Layer().dir("d/").file("d/f", "x").symlink("l", "d/f").hard("h", "d/f").add("p", b"6").data,
        "pax-size": pax({"size": 512}) + header(b"f", size=0) + x + header(b"g"),
        "pax-all": pax({"path": b"p" * 200, "uid": 2**31 - 2, "gid": 70000, "mtime": "12.25", "comment": "c"}) + f,
        "pax-newlines": pax({"path": b"a\nb", "comment": b"1\n20 path=evil\n"}) + f,
        "pax-last-counts": pax_twice("first", "second") + f,
        "long-name": long_name(b"d" * 150) + header(b"d" * 100),
        "long-link": long_name(b"t" * 150, b"K") + header(b"l", b"2", b"t" * 100),
        "long-name-and-pax-times": long_name(b"d" * 150) + pax({"mtime": "5.5"}) + header(b"d" * 100),
        "ustar-prefix": patched(f, 345, b"dir"),
        "ustar-prefix-other-version": patched(patched(f, 345, b"dir"), 257, b"ustar\0\0\0"),
        "base256": header(b"f", uid=0o10000000, gid=2**31 - 2),
        "base256-size": header(b"f", size=b"\x80" + (512).to_bytes(11, "big")) + x,
        "spaces": patched(header(b"f", size=b"        1000") + x, 124, b"       1000 ")[:1024],
        "old-directory": header(b"d/", b"\0") + header(b"d/f"),
        "contiguous": header(b"f", b"7", size=512) + x,
        "hard-link-with-size": header(b"f", size=512) + x + header(b"h", b"1", b"f", size=512) + header(b"g"),
        "sparse-old": old_sparse([(0, 0), (1, 800)]) + pad(b"x" * 512 + b"c"),
        "sparse-0.1": sparse({"GNU.sparse.numblocks": 3, "GNU.sparse.map": "0,512,600,1,801,0", "GNU.sparse.size": 801, "GNU.sparse.name": "s"}),
        "sparse-1.0": sparse(v1, one_map + b"x" * 512 + b"c"),
    }
    differ = {
        "concatenated": f + end + header(b"second"),
        "garbage-after": f + end + b"garbage" * 1000,
        "one-zero-block": f + bytes(512),
        "pax-size-smuggles": pax({"size": 512}) + header(b"outer", b"5") + header(b"smuggled"),
        "pax-size-zero": pax({"size": 0}) + header(b"f", size=512) + header(b"smuggled"),
        "pax-and-long-name": pax({"path": b"a"}) + long_name(b"b") + f,
        "long-name-and-pax": long_name(b"b") + pax({"path": b"a"}) + f,
        "long-name-nul": long_name(b"a\0b") + f,
        "pax-nul": pax({"path": b"a\0b"}) + f,
        "pax-key-nul": pax({"path\0x": b"a"}) + f,
        "pax-global": pax({"path": b"a", "uid": 7}, b"g") + f + header(b"g"),
        "pax-global-size": pax({"size": 512}, b"g") + header(b"f") + header(b"smuggled"),
        "pax-short": header(b"x", b"x", size=9) + pad(b"8 path=a\n") + f,
        "pax-long": header(b"x", b"x", size=9) + pad(b"99 path=a\n") + f,
        "pax-negative": pax({"size": -1}) + f,
        "pax-overflow": pax({"size": 2**64 + 512}) + header(b"f", size=512) + x,
        "pax-uid-overflow": pax({"uid": 2**32}) + f,
        "pax-unfinished": pax({"path": b"a"}),
        "size-after-nul": patched(header(b"f", size=512), 124, b"\x00" + b"0000001000\0") + x,
        "size-negative": header(b"f", size=b"\xff" * 12) + x,
        "size-octal-negative": header(b"f", size=b"-0000001000\0") + x,
        "size-hex": header(b"f", size=b"0x000000200\0") + x,
        "size-base256-odd": header(b"f", size=b"\x81" + (512).to_bytes(11, "big")) + x,
        "size-of-a-directory": header(b"d/", b"5", size=512) + header(b"smuggled"),
        "size-of-a-link": header(b"l", b"2", b"x", size=512) + header(b"smuggled"),
        "size-of-a-device": header(b"n", b"6", size=512) + header(b"smuggled"),
        "v7-prefix": patched(patched(f, 345, b"dir"), 257, bytes(8)),
        "gnu-prefix": patched(patched(f, 345, b"dir"), 257, b"ustar  \0"),
        "v7-directory-by-header": pax({"path": b"d"}) + header(b"d/", b"\0", size=512) + header(b"smuggled"),
        "v7-directory-by-pax": pax({"path": b"d/"}) + header(b"d", b"\0", size=512) + x,
        "file-with-slash": header(b"d/", size=512) + x,
        "checksum-signed": bytes(signed),
        "checksum-wrong": b"x" + f[1:],
        "checksum-blank": patched(f, 148, b"        ")[:148] + b" " * 8 + f[156:],
        "type-unknown": header(b"f", b"Z", size=512) + x,
        "type-volume": header(b"v", b"V") + f,
        "type-solaris": header(b"x", b"X", size=11) + pad(b"11 path=ab\n") + f,
        "zero-block-between": f + bytes(512) + header(b"g"),
        "truncated": header(b"f", size=2000) + x,
        "truncated-header": f + f[:300],
        "sparse-old-gap": old_sparse([(0, 0), (2, 800)]) + pad(b"x" * 512 + b"c"),
        "sparse-old-gap-then-more": old_sparse([(0, 0), (1, 800)], more=1) + pad(b"x" * 512 + b"c"),
        "sparse-old-real-too-small": old_sparse([(0, 0), (1, 800)], real=2) + pad(b"x" * 512 + b"c"),
        "sparse-numblocks": sparse({"GNU.sparse.numblocks": 1, "GNU.sparse.map": "0,512,800,1", "GNU.sparse.size": 801}),
        "sparse-ends-early": sparse({"GNU.sparse.map": "0,512,600,1", "GNU.sparse.size": 801}),
        "sparse-odd-pieces": sparse({"GNU.sparse.map": "0,1,8,1", "GNU.sparse.size": 9}, b"ab"),
        "sparse-old-ends-early": old_sparse([(0, 0), (1, 600)]) + pad(b"x" * 512 + b"c"),
        "sparse-overlap": sparse({"GNU.sparse.map": "0,2,1,1", "GNU.sparse.size": 9}),
        "sparse-negative": sparse({"GNU.sparse.map": "0,-1", "GNU.sparse.size": 9}),
        "sparse-overflow": sparse({"GNU.sparse.map": "18446744073709551615,2", "GNU.sparse.size": 9}),
        "sparse-name-of-a-directory": pax({"GNU.sparse.name": b"elsewhere"}) + header(b"d/", b"5"),
        "sparse-1.0-endless": sparse(v1, pad(b"99999999\n".ljust(512, b"\0"))),
        "star": patched(patched(f, 345, b"p" * 100), 508, b"tar\0"),
    }
    out = {name: (data + end, "both") for name, data in agree.items()}
    out.update({name: (data + end, "") for name, data in differ.items()})
    for name in ("truncated", "truncated-header", "one-zero-block"):
        out[name] = (differ[name], "")
    half = agree["plain"] + end
    out["gzip-members.gz"] = (gzip.compress(half[:700], mtime=0) + gzip.compress(half[700:], mtime=0), "both")
    out["gzip-garbage.gz"] = (gzip.compress(half, mtime=0) + b"garbage", "")
    out["gzip-cut.gz"] = (gzip.compress(half, mtime=0)[:-9], "")
    return out


def pax_twice(first, second):
    records = b"".join(pax({"path": name})[BLOCK:].rstrip(b"\0") for name in (first, second))
    return header(b"x", b"x", size=len(records)) + pad(records)


def packed(*pieces):
    """A layer of pieces, each so many times: a gzip member is the same bytes again, so a bomb is made in no time."""
    image = Image([b""])
    image.blobs = [b"".join(gzip.compress(data, 1, mtime=0) * count for data, count in pieces)]
    return image.stream()


def bombs():
    """Each with what must be said of it, in a store of 192 MB."""
    some = bytes(1 << 20)
    names = {"SCHILY.xattr.trusted.%03d%s" % (n, "x" * 200): b"" for n in range(1000)}
    long = "/".join(["p" * 200] * 19)
    paths = b"".join(pax({"path": ("%s/%d" % (long, n)).encode()}) + header(b"d", b"5") for n in range(36000))
    # Each directory by a name that is short enough, through a link to the deepest before it.
    deep = [Layer().dir("d/" * (k + 1)).data for k in range(500)] + [Layer().symlink("l", "d/" * 500).data]
    deep += [Layer().dir("l/" + "d/" * (k + 1)).data for k in range(500)]
    # Forty links of four kilobytes to a lookup.
    hop = "a/../" * 815
    slow = Layer().dir("a/").symlink("l0", hop + "a")
    for n in range(1, 39):
        slow.symlink("l%d" % n, hop + "l%d" % (n - 1))
    return {
        "zeros": (packed(*([(header(b"f", size=64 << 20), 1), (some, 64)] * 8)), "no room"),
        "announced": (packed((header(b"f", size=20 << 30), 1), (some, 1)), "no room"),
        "attributes": (packed((pax({"SCHILY.xattr.trusted.x": some[:1 << 19]}) + header(b"f"), 2100)), "no room"),
        "attributes-kept": (packed(((pax({"SCHILY.xattr.user.%d" % m: some[:3000] for m in range(4)}) + header(b"f")) * 50, 1800)), "no room"),
        "attributes-names": (one(Layer().raw((pax(names) + header(b"f")) * 50)), None),
        "links": (packed(((pax({"linkpath": b"x" * 4000}) + header(b"l", b"2")) * 100, 2600)), "no room"),
        "whiteout-with-data": (packed((header(b".wh.f", size=20 << 30), 1), (some, 1)), "no room"),
        "entries": (packed((b"".join(header(b"%d" % n) for n in range(1000)), 2000)), "no room"),
        "paths": (packed((paths, 1)), "names and paths are more than 128 MiB"),
        "pax-record": (packed((header(b"x", b"x", size=1 << 30), 1), (some, 1024)), "more than 1 MiB"),
        "global-headers": (packed((header(b"g", b"g", size=1 << 20) + b"1048576 comment=" + b"x" * (1048576 - 17) + b"\n", 1100)),
                           "global extended headers"),
        "depth-20000": (one(Layer().file("d/" * 20000 + "f")), "longer than 4095 bytes"),
        "depth-2000": (one(Layer().file("d/" * 2000 + "f")), "deeper than 512"),
        "depth-by-links": (packed((b"".join(deep), 1)), "deeper than 512"),
        "links-to-links": (packed((slow.data, 1), ((header(b"l38/x") + header(b"l37/y")) * 1000, 500)), "too many steps"),
    }


def main():
    verb, to, *rest = sys.argv[1:]
    os.makedirs(to, exist_ok=True)
    if verb == "parsers":
        for name, (data, check) in parsers().items():
            write(f"{to}/{name}", data)
            write(f"{to}/{name}.check", check.encode())
        return
    if verb == "bombs":
        for name, (layer, said) in bombs().items():
            write(f"{to}/{name}.tar", layer)
            write(f"{to}/{name}.check", (said or "").encode())
        return
    for name, (layers, check) in (breakouts(*rest) if verb == "breakouts" else whiteouts()).items():
        write(f"{to}/{name}.tar", one(*layers))
        write(f"{to}/{name}.check", check.encode())


if __name__ == "__main__":
    main()
