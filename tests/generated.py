#!/usr/bin/python3
"""The generated set: images that hold every kind of entry in every way that a layer may have it, byte for byte the same
each time. What bocker-store makes of them is compared to what umoci and GNU tar make (tests/system/peers.sh).

    generated.py DIR      for each set a directory DIR/NAME: an OCI layout (tagged x) in `layout`, the same as
                          bocker-pull's stream in `image.tar`, its layers as `1.tar`, `2.tar`, ...
"""
import io
import json
import os
import sys
import tarfile

import mklayer
from mklayer import Layer

# What stands at a name, and what comes over it.
KINDS = ("file", "empty-dir", "full-dir", "link-to-file", "link-to-dir", "dangling", "absolute", "hard", "fifo", "char", "block")


def ground(layer):
    """What the links of `put` point to."""
    return layer.dir("./", mtime=10**9).dir("at/", mtime=10**9).file("at/file", "a file\n").dir("at/dir/", mtime=10**9 + 1).file("at/dir/inner", "x")


def put(layer, kind, name, generation):
    """One thing at a name; another owner, mode, time and content in each generation."""
    uid, time = 100 * generation, 10**9 + 1000 * generation
    records = {"mtime": f"{time}.{generation}5"}
    if kind == "file":
        layer.file(name, f"generation {generation}\n" * generation, mode=0o640 + generation, uid=uid, gid=uid + 1,
                   records={**records, f"SCHILY.xattr.user.{generation}": b"\0="})
    elif kind in ("empty-dir", "full-dir"):
        layer.dir(name + "/", mode=0o750 + generation, uid=uid, gid=uid + 1,
                  records={**records, f"SCHILY.xattr.user.{generation}": b"d"})
        if kind == "full-dir":
            layer.file(f"{name}/{generation}", "x").dir(f"{name}/sub/", mtime=time).symlink(f"{name}/sub/link", "../..")
            layer.add(f"{name}/sub/pipe", b"6")
    elif kind == "hard":
        layer.hard(name, "at/file")
    elif kind in ("fifo", "char", "block"):
        layer.add(name, {"fifo": b"6", "char": b"3", "block": b"4"}[kind], mode=0o600 + generation, uid=uid,
                  major=0 if kind == "fifo" else generation, minor=0 if kind == "fifo" else 3, records=records)
    else:
        target = {"link-to-file": "file", "link-to-dir": "dir", "dangling": f"nowhere{generation}", "absolute": "/at/dir"}[kind]
        layer.symlink(name, target, uid=uid, gid=uid + 1, records=records)
    return layer


def replaced():
    """Everything by everything: in the next layer, in the same one, after a whiteout, beside one."""
    pairs = [(old, new) for old in KINDS for new in KINDS]
    sets = {}
    for name, full in (("replaced", False), ("replaced-full", True)):
        # GNU tar removes no directory that has something in it: those are sets of their own.
        over, one = [ground(Layer()), Layer()], ground(Layer())
        for old, new in pairs:
            if (old == "full-dir" and new not in ("empty-dir", "full-dir")) == full:
                put(over[0], old, f"at/{old}-{new}", 1)
                put(over[1], new, f"at/{old}-{new}", 2)
                put(put(one, old, f"at/{old}-{new}", 1), new, f"at/{old}-{new}", 2)
        sets[name + "-over-layers"], sets[name + "-in-one-layer"] = over, [one]
    hidden, same = [ground(Layer()), Layer(), Layer()], [ground(Layer()), Layer()]
    for old, new in pairs:
        put(hidden[0], old, f"at/{old}-{new}", 1)
        hidden[1].file(f"at/.wh.{old}-{new}")
        put(hidden[2], new, f"at/{old}-{new}", 2)
        # The entry and the whiteout of what was there in one layer, in both orders.
        for order in ("hidden-first", "hidden-last"):
            name = f"{old}-{new}-{order}"
            put(same[0], old, "at/" + name, 1)
            if order == "hidden-first":
                same[1].file("at/.wh." + name)
            put(same[1], new, "at/" + name, 2)
            if order == "hidden-last":
                same[1].file("at/.wh." + name)
    return {**sets, "replaced-after-whiteout": hidden, "replaced-beside-whiteout": same}


def links():
    """Hard links: within and over layers, of every kind that has them, whose first name goes or changes."""
    one, two, three = ground(Layer()), Layer(), Layer()
    for name in ("kept", "first-gone", "first-new", "second-new", "all-gone", "late"):
        one.file(f"{name}-1", name, uid=7, mode=0o4755, records={"SCHILY.xattr.user.x": b"1"}).hard(f"{name}-2", f"{name}-1")
    one.hard("chain-3", "kept-2").hard("./dotted", "./kept-1").hard("rooted", "/kept-1").hard("at//slashes", "at//file")
    one.symlink("link-1", "at/file").hard("link-2", "link-1").add("pipe-1", b"6").hard("pipe-2", "pipe-1")
    one.add("null-1", b"3", major=1, minor=3).hard("null-2", "null-1").symlink("through", "at").hard("at/via-link", "through/file")
    one.file("sized-1", "12345").add("sized-2", b"1", link=b"sized-1", size=5)
    two.file(".wh.first-gone-1").file("first-new-1", "new", mode=0o600).file("second-new-2", "new", mtime=5)
    two.file(".wh.all-gone-1").file(".wh.all-gone-2").hard("late-3", "late-1").hard("link-3", "link-2").hard("pipe-3", "pipe-1")
    # Its own target, replaced after it in the same layer; and a link over a lower directory and file.
    two.hard("before", "kept-1").file("kept-1", "replaced").hard("after", "kept-1").hard("at/dir", "kept-1").hard("late-2", "kept-1")
    three.hard("over-two-layers", "first-new-2").file(".wh.late-1").hard("late-4", "late-3").file("late-3", "other").dir("kept-2/")
    return {"links-without-whiteouts": [one, Layer().hard("late-3", "late-1").hard("before", "kept-1").file("kept-1", "new").hard("after", "kept-1")],
            "links": [one, two, three]}


def whiteouts():
    one, two, three = ground(Layer()), Layer(), Layer()
    for name in ("gone", "opaque", "opaque-late", "opaque-twice", "emptied", "back", "through"):
        one.dir(name + "/", mtime=10**9).file(f"{name}/file", "1").dir(f"{name}/sub/", mtime=10**9).file(f"{name}/sub/file", "1")
    one.symlink("link", "through").symlink("hidden-link", "through").file("a", "1").file("b", "1").dir("not.wh./").file("plain.wh.x", "1")
    two.file(".wh.gone").file(".wh.a").file(".wh.hidden-link").file("emptied/.wh.file").file("emptied/.wh.sub")
    two.dir("opaque/", mode=0o700, mtime=10**9).file("opaque/.wh..wh..opq").file("opaque/new", "2").dir("opaque/sub/", mtime=10**9)
    two.dir("opaque-late/", mtime=10**9).file("opaque-late/new", "2").file("opaque-late/file", "2").file("opaque-late/.wh..wh..opq")
    two.file("opaque-twice/.wh..wh..opq").file("opaque-twice/two", "2").file("link/.wh.sub").file(".wh.never-there").file("none/.wh.none")
    two.file(".wh.back").file("back-not-yet", "2")
    three.file("opaque-twice/.wh..wh..opq").file("opaque-twice/three", "3").dir("back/", mode=0o711, mtime=10**9).file("back/file", "3")
    three.file("gone", "a file now").hard("b-too", "b").file(".wh.b")
    return {"whiteouts": [one, two, three]}


def names():
    layer, upper = ground(Layer()), Layer()
    short = ["...", "..a", "a..", ".hidden", "-dash", "--", " space ", "tab\tand\nline", "back\\slash", "\\n", "st*r?[x]", "quote'\"",
             "%41", "a=b", "\u00e9", "e\u0301", "\U0001f4e6", ".wh", ".whx", "a.wh.b", "\x01\x7f"]
    for name in short:
        layer.file("short/" + name, name.encode())
    for name in (b"\xff\xfe\x80", b"caf\xe9", b"\xed\xa0\x80", b"\xc0\xaf", bytes(range(1, 47)) + bytes(range(48, 256))):
        layer.file(b"odd/" + name, b"x").symlink(b"odd/link-" + name[:200], name).hard(b"odd/hard-" + name[:200], b"odd/" + name)
    for length in (1, 99, 100, 101, 200, 254, 255):
        layer.file("n" * length, "x").symlink("l" * length, "t" * length).hard("h" * length, "n" * length).dir("d" * length + "/", mtime=1)
    # A path whose head stands in ustar's prefix: at the limits of both fields.
    for head, tail in ((1, 100), (155, 100), (155, 1), (100, 99)):
        layer.dir("p" * head + "/", mtime=2)
        layer.raw(mklayer.header(b"q" * tail, size=1, prefix=b"p" * head)).raw(mklayer.pad(b"x"))
    # The same with bytes that are no prefix, since the format has none there: GNU's and the oldest.
    layer.raw(mklayer.header(b"gnu", magic=b"ustar  \0", prefix=b"00000000001")).raw(mklayer.header(b"oldest", magic=bytes(8), prefix=b"p"))
    # A version that nobody has defined is still ustar.
    layer.raw(mklayer.header(b"versionless", magic=b"ustar\0\0\0", prefix=b"p"))
    for length in (100, 101, 1000, 4094, 4095):
        layer.symlink(f"target-{length}", "t" * length)
    for raw in ("./dotted", "slashes//in///it", "./././", "deep/./in/it", "/rooted", "//rooted-twice"):
        layer.file(raw.rstrip("/") or raw, "x") if not raw.endswith("/") else layer.dir(raw, mtime=10**9)
    layer.raw(long_name(b"L", b"g" * 150)).file("shadow", "x").raw(long_name(b"K", b"t" * 150)).symlink("gnu-link", "shadow")
    layer.raw(long_name(b"L", b"both" * 30)).raw(long_name(b"K", b"to" * 60)).symlink("shadow", "shadow")
    upper.file("short/...", "again").file(b"odd/\xff\xfe\x80", "again").file("n" * 255, "again").dir("d" * 255, mode=0o700, mtime=3)
    # As long as a path can be; umoci's own is longer by its root.
    longest = Layer()
    parts = "/".join(["p" * 200] * 20)
    return {"names": [layer, upper],
            "longest-path": [longest.dir("./", mtime=4).file("/".join([parts, "q" * (4095 - len(parts) - 1)]), "end")]}


def long_name(kind, name):
    return mklayer.header(b"././@LongLink", kind, size=len(name) + 1) + mklayer.pad(name + b"\0")


def numbers():
    """Times, owners and modes: in octal, in base 256 and in PAX."""
    layer = ground(Layer())
    for time in (0, 1, -1, 8**11 - 1, 8**11, -(2**31), -(2**31) - 1, 2**31, 2**32, 253402300799):
        layer.file(f"time/{time}", mtime=time)
    for time in ("0.5", "-0.5", "-1", "-1.25", "-0.000000001", "1.000000001", "1.999999999", "1.9999999999", "1000000000.",
                 "2147483648.123456789", "4294967296.1", "253402300799.999999999", "-2147483648.5", "0001.5", "1.5000"):
        layer.file(f"pax-time/{time}", records={"mtime": time})
        layer.dir(f"pax-time/dir{time}", records={"mtime": time}).symlink(f"pax-time/link{time}", "x", records={"mtime": time})
    for owner in (0, 1, 1000, 65534, 65535, 65536, 8**7 - 1, 8**7, 2**31 - 2, 2**31 - 1, 2**31, 2**32 - 2):
        layer.file(f"owner/{owner}", uid=owner, gid=owner, mode=0o6755).symlink(f"owner/link{owner}", "x", uid=owner, gid=owner)
        layer.file(f"pax-owner/{owner}", records={"uid": owner, "gid": owner}).dir(f"owner/dir{owner}", uid=owner, gid=owner, mode=0o3777)
    for mode in (0, 1, 0o400, 0o644, 0o777, 0o1000, 0o1777, 0o2000, 0o2755, 0o4000, 0o4711, 0o6755, 0o7777, 0o7000):
        layer.file(f"mode/{mode:o}", "x", mode=mode).dir(f"mode/dir{mode:o}", mode=mode).add(f"mode/pipe{mode:o}", b"6", mode=mode)
        layer.file(f"mode/user{mode:o}", "x", mode=mode, uid=5).add(f"mode/char{mode:o}", b"3", mode=mode, gid=5, major=1, minor=mode)
    # With the kind of file in the mode, as some write it.
    layer.file("mode/with-kind", "x", mode=0o100640).dir("mode/dir-with-kind/", mode=0o40750)
    for major, minor in ((0, 0), (1, 255), (255, 256), (259, 65535), (4095, 1048575)):
        layer.add(f"device/{major}-{minor}", b"3", major=major, minor=minor).add(f"device/block{major}-{minor}", b"4", major=major, minor=minor)
    # How others fill a number's field: with spaces, or without an end.
    for name, field in (("spaces", b"   644 \0"), ("no-end", b"00000644"), ("space-end", b"0000644 ")):
        layer.raw(fields("field-" + name, 100, field))
    for name, field in (("spaces", b"       755 \0"), ("no-end", b"000000000755"), ("empty", bytes(12))):
        layer.raw(fields("time-" + name, 136, field))
    return {"numbers": [layer]}


def fields(name, at, field):
    """A header of an empty file with bytes of its own in one place."""
    block = bytearray(mklayer.header(name.encode()))
    block[at:at + len(field)] = field
    return mklayer.checked(block)


def attributes():
    one, two = ground(Layer()), Layer()
    capability = {2: bytes.fromhex("0100000200200000000000000000000000000000"),
                  3: bytes.fromhex("0100000300200000000000000000000000000000a0860100")}
    x = "SCHILY.xattr."
    for name in ("kept", "dropped", "changed"):
        one.file(name, "x", records={x + "user.one": b"1", x + "user.two": b"2"})
        one.dir("dir-" + name, records={x + "user.one": b"1", x + "user.two": b"2"})
    one.file("empty", records={x + "user.empty": b""}).file("binary", records={x + "user.binary": bytes(range(256))})
    one.file("long", records={x + "user." + "n" * 250: b"v" * 3000}).file("equals", records={x + "user.v": b"a=b=c\n7 x=y\n"})
    one.file("many", records={f"{x}user.{n}": str(n) for n in range(60)}).file("percent", records={x + "user.a%b": b"%"})
    one.file("no-permission", mode=0, uid=9, records={x + "user.one": b"1"}).file("twice", records={x + "user.one": b"1"})
    one.file("capability", "x", mode=0o755, records={x + "security.capability": capability[2]})
    one.file("capability-of-a-user", "x", mode=0o4755, uid=5, gid=6, records={x + "security.capability": capability[2], x + "user.one": b"1"})
    one.file("capability-of-a-namespace", "x", mode=0o755, records={x + "security.capability": capability[3]})
    one.hard("capability-too", "capability")
    acl = bytes.fromhex("0200000001000700ffffffff02000500e803000004000500ffffffff10000500ffffffff20000500ffffffff")
    one.dir("acl/", records={x + "system.posix_acl_default": acl, x + "system.posix_acl_access": acl})
    one.file("acl/none").dir("acl/sub/").file("acl/own", mode=0o640, records={x + "system.posix_acl_access": acl}).add("acl/pipe", b"6")
    two.file("dropped", "x").file("changed", "x", records={x + "user.one": b"new"}).dir("dir-dropped").file("capability", "gone", mode=0o755)
    two.dir("dir-changed", records={x + "user.one": b"new"}).file("acl/later").dir("acl/later-sub/").symlink("acl/link", "x")
    return {"attributes": [one, two]}


def sparse():
    """Holes in all of GNU tar's formats; and what is long or zero without being sparse."""
    layer = ground(Layer())
    kib = 1024
    # Pieces of whole blocks but for the file's end: where others begin is where parsers part.
    shapes = {"middle": (4096 * kib, [(1024 * kib, b"m" * 1024), (2048 * kib, b"x" * 512)]), "all-hole": (3072 * kib, []),
              "ends-with-data": (1024 * kib + 5, [(0, b"b" * 512), (1024 * kib, b"end!!")]),
              "many": (8192 * kib, [(at * 128 * kib, b"%d" % (at % 10) * 512) for at in range(50)]), "dense": (600, [(0, b"d" * 600)])}
    for name, (size, pieces) in shapes.items():
        pieces = closed(size, pieces)
        data = b"".join(piece for _, piece in pieces)
        layer.raw(sparse_pax(f"{name}-0.0", size, pieces, 0)).raw(mklayer.header(f"{name}-0.0".encode(), size=len(data)) + mklayer.pad(data))
        layer.raw(sparse_pax(f"{name}-0.1", size, pieces, 1)).raw(mklayer.header(b"GNUSparseFile.0/x", size=len(data)) + mklayer.pad(data))
        text = mklayer.pad(b"%d\n" % len(pieces) + b"".join(b"%d\n%d\n" % (at, len(piece)) for at, piece in pieces)) + data
        layer.raw(mklayer.pax({"GNU.sparse.major": 1, "GNU.sparse.minor": 0, "GNU.sparse.name": f"{name}-1.0", "GNU.sparse.realsize": size}))
        layer.raw(mklayer.header(b"GNUSparseFile.0/x", size=len(text)) + mklayer.pad(text))
    layer.file("zeros", bytes(256 * kib)).file("empty").file("one-block", b"b" * 512).file("odd", b"o" * 513)
    old = ground(Layer())
    for name, (size, pieces) in shapes.items():
        old.raw(sparse_old(name, size, pieces))
    # Beyond what octal digits can say.
    old.raw(sparse_old("huge", 2**34, [(0, b"b" * 512), (2**33 + 2**32, b"far out!" * 64)]))
    return {"sparse": [layer], "sparse-old": [old], "contiguous": [ground(Layer()).add("contiguous", b"7", b"data")]}


def closed(size, pieces):
    """A hole at the end is closed by an empty piece, as GNU tar does it."""
    return pieces if pieces and pieces[-1][0] + len(pieces[-1][1]) == size else pieces + [(size, b"")]


def sparse_pax(name, size, pieces, minor):
    records = [("GNU.sparse.size", size), ("GNU.sparse.numblocks", len(pieces))]
    if minor == 0:
        for at, piece in pieces:
            records += [("GNU.sparse.offset", at), ("GNU.sparse.numbytes", len(piece))]
    else:
        records += [("GNU.sparse.name", name), ("GNU.sparse.map", ",".join(f"{at},{len(piece)}" for at, piece in pieces))]
    return mklayer.pax(records)


def sparse_old(name, size, pieces):
    """GNU tar's first format: four pieces in the header, 21 in each block after it."""
    pieces = closed(size, pieces)
    data = b"".join(piece for _, piece in pieces)
    words = [mklayer.number(at, 12) + mklayer.number(len(piece), 12) for at, piece in pieces]
    block = bytearray(mklayer.header(name.encode(), b"S", size=len(data), magic=b"ustar  \0"))
    block[386:386 + 96] = b"".join(words[:4]).ljust(96, b"\0")
    block[482] = len(words) > 4
    block[483:495] = mklayer.number(size, 12)
    out, rest = mklayer.checked(block), words[4:]
    while rest:
        here, rest = rest[:21], rest[21:]
        out += b"".join(here).ljust(504, b"\0") + bytes([bool(rest)]) + bytes(7)
    return out + mklayer.pad(data)


def implied():
    """Directories that no layer describes, and links as parents."""
    one, two = Layer(), Layer()
    one.file("no/entry/for/this", "x").dir("setgid/", mode=0o2775, gid=50, mtime=10**9).file("setgid/file", "x").file("setgid/made/file", "x")
    one.dir("real/", mtime=10**9).symlink("link", "real").file("link/file", "x").symlink("rooted", "/real").file("rooted/other", "x")
    one.dir("deep/", mtime=10**9).dir("deep/er/", mtime=10**9).symlink("deep/er/up", "../../real").file("deep/er/up/third", "x")
    two.dir("no/entry/", mode=0o711, uid=3, mtime=10**9).file("real/later", "x").file("setgid/later", "x").add("setgid/pipe", b"6")
    two.dir("link/sub/", mtime=10**9).symlink("setgid/link", "x").file("late/file", "x").dir("late/", mode=0o700, mtime=10**9)
    return {"implied": [one, two]}


def by_python():
    """The same tree as Python's tarfile writes it, in its three formats."""
    out = {}
    for name, form in (("ustar", tarfile.USTAR_FORMAT), ("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        data = io.BytesIO()
        with tarfile.open(fileobj=data, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
            for path, kind, more in (
                    (".", tarfile.DIRTYPE, {"mtime": 10**9}), ("dir", tarfile.DIRTYPE, {"mode": 0o1777, "mtime": 10**9 + 1}),
                    ("dir/file", tarfile.REGTYPE, {"mode": 0o4755, "uid": 1000, "gid": 1001, "size": 1000}),
                    ("dir/link", tarfile.SYMTYPE, {"linkname": "file"}), ("dir/hard", tarfile.LNKTYPE, {"linkname": "dir/file"}),
                    ("pipe", tarfile.FIFOTYPE, {}), ("char", tarfile.CHRTYPE, {"devmajor": 1, "devminor": 3}),
                    ("block", tarfile.BLKTYPE, {"devmajor": 7, "devminor": 1}), ("\u00e9\u20ac", tarfile.REGTYPE, {}),
                    ("not\udcffutf8", tarfile.REGTYPE, {}), ("d" * 80 + "/" + "e" * 80, tarfile.REGTYPE, {}),
                    ("old", tarfile.REGTYPE, {"mtime": 0}),
                    *([("n" * 200, tarfile.REGTYPE, {}), ("to-long", tarfile.SYMTYPE, {"linkname": "t" * 300}),
                       ("before", tarfile.REGTYPE, {"mtime": -1000}), ("far", tarfile.REGTYPE, {"mtime": 2**34}),
                       ("high", tarfile.REGTYPE, {"uid": 2**31 - 2, "gid": 2**31 - 2})] if name != "ustar" else []),
                    *([("half", tarfile.REGTYPE, {"mtime": 1.5}), ("before-half", tarfile.REGTYPE, {"mtime": -1.5})] if name == "pax" else [])):
                info = tarfile.TarInfo(path)
                info.type, info.mode, info.mtime = kind, 0o755 if kind == tarfile.DIRTYPE else 0o644, 10**9
                for key, value in more.items():
                    setattr(info, key, value)
                archive.addfile(info, io.BytesIO(b"x" * info.size))
        out["python-" + name] = [data.getvalue()]
    return out


def write(directory, layers):
    os.makedirs(directory)
    image = mklayer.Image(layers)
    manifest = image.manifest()
    described = image.describe(manifest, "application/vnd.oci.image.manifest.v1+json")
    image.index = json.dumps({"schemaVersion": 2, "manifests": [
        {**described, "annotations": {"org.opencontainers.image.ref.name": "x"}}]}).encode()
    stream = image.stream()
    mklayer.write(os.path.join(directory, "image.tar"), stream)
    layout = os.path.join(directory, "layout")
    os.mkdir(layout)
    with tarfile.open(os.path.join(directory, "image.tar")) as archive:
        archive.extractall(layout)
    for number, layer in enumerate(layers, 1):
        mklayer.write(os.path.join(directory, f"{number}.tar"), layer)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sets = {}
    for made in (replaced(), links(), whiteouts(), names(), numbers(), attributes(), sparse(), implied(), by_python()):
        sets.update(made)
    for name, layers in sets.items():
        write(os.path.join(sys.argv[1], name), layers)


if __name__ == "__main__":
    main()
