#!/usr/bin/python3
"""Layers and OCI layouts for the tests, byte by byte: also those that no honest tool writes.

    mklayer.py layout OUT.tar LAYER...   an OCI layout as bocker-pull writes it: each LAYER a file of lines,
                                         lowest layer first; a line is one entry (see Layer.line)
    mklayer.py pack OUT.tar DIR          an OCI layout directory (skopeo's, umoci's) in the same order
    mklayer.py attacks DIR SENTINEL      a layout NAME.tar in DIR for each attack on the tree SENTINEL
    mklayer.py broken DIR                … for each thing that can be wrong with the stream
    mklayer.py good DIR                  … for each unusual thing that is right

Only headers that are asked for are written; nothing is normalised.
"""
import gzip
import hashlib
import json
import os
import sys

BLOCK = 512


def pad(data):
    return data + bytes(-len(data) % BLOCK)


def number(value, width):
    """Octal digits, or GNU tar's base 256 where they do not suffice."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return bytes([0x80 if value >= 0 else 0xff]) + value.to_bytes(width - 1, "big", signed=value < 0)


def checked(block):
    """A header block with its checksum."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def header(name, kind=b"0", link=b"", size=0, mode=0o644, uid=0, gid=0, mtime=1, major=0, minor=0,
           magic=b"ustar\x0000", prefix=b""):
    block = bytearray(BLOCK)

    def put(at, data, width):
        block[at:at + len(data[:width])] = data[:width]

    put(0, name, 100)
    put(100, number(mode, 8), 8)
    put(108, number(uid, 8), 8)
    put(116, number(gid, 8), 8)
    put(124, size if isinstance(size, bytes) else number(size, 12), 12)
    put(136, number(mtime, 12), 12)
    put(156, kind, 1)
    put(157, link, 100)
    put(257, magic, 8)
    put(329, number(major, 8), 8)
    put(337, number(minor, 8), 8)
    put(345, prefix, 155)
    return checked(block)


def pax(records, kind=b"x"):
    """Extended records: a dictionary, or pairs where a key comes twice."""
    data = b""
    for key, value in records.items() if isinstance(records, dict) else records:
        value = value if isinstance(value, bytes) else str(value).encode()
        rest = len(key) + len(value) + 3
        length = rest + len(str(rest))
        length = rest + len(str(length))
        data += b"%d %s=%s\n" % (length, key.encode(), value)
    return header(b"PaxHeaders/x", kind, size=len(data)) + pad(data)


class Layer:
    """A tar archive that grows."""

    def __init__(self):
        self.data = b""
        self.end = bytes(1024)

    def add(self, name, kind=b"0", data=b"", link=b"", records=None, **fields):
        name = name if isinstance(name, bytes) else name.encode()
        link = link if isinstance(link, bytes) else link.encode()
        records = dict(records or {})
        if len(name) > 100:
            records["path"] = name
        if len(link) > 100:
            records["linkpath"] = link
        if records:
            self.data += pax(records)
        fields.setdefault("size", len(data))
        self.data += header(name, kind, link, **fields) + pad(data)
        return self

    def file(self, name, data=b"", **more):
        return self.add(name, b"0", data if isinstance(data, bytes) else data.encode(), **more)

    def dir(self, name, **more):
        more.setdefault("mode", 0o755)
        return self.add(name, b"5", **more)

    def symlink(self, name, to, **more):
        return self.add(name, b"2", link=to, mode=0o777, **more)

    def hard(self, name, to, **more):
        return self.add(name, b"1", link=to, **more)

    def raw(self, data):
        self.data += data
        return self

    def line(self, text):
        """KIND NAME [ARGUMENT] [KEY=VALUE...]; KIND is file, dir, symlink, hard, fifo, char or block; names and
        arguments may have Python escapes. Keys: mode (octal), uid, gid, mtime, x:ATTRIBUTE (a hex value)."""
        words = text.split()
        words = [w.encode().decode("unicode_escape").encode("latin-1") for w in words]
        kind, name, plain, records, fields = words[0].decode(), words[1], [], {}, {}
        for word in words[2:]:
            key, equals, value = word.decode("latin-1").partition("=")
            if not equals:
                plain.append(word)
            elif key.startswith("x:"):
                records["SCHILY.xattr." + key[2:]] = bytes.fromhex(value)
            elif key == "mtime":
                records["mtime"] = value
            elif key in ("major", "minor"):
                fields[key] = int(value)
            else:
                fields[key] = int(value, 8 if key == "mode" else 10)
        argument = plain[0] if plain else b""
        kinds = {"fifo": b"6", "char": b"3", "block": b"4"}
        if kind in kinds:
            return self.add(name, kinds[kind], records=records, **fields)
        if kind == "dir":
            return self.dir(name, records=records, **fields)
        return getattr(self, kind)(name, argument, records=records, **fields)

    def tar(self):
        return self.data + self.end


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Image:
    """An OCI layout; every part can be replaced before it is written."""

    def __init__(self, layers, compress=True, config=None):
        tars = [layer.tar() if isinstance(layer, Layer) else layer for layer in layers]
        self.blobs = [gzip.compress(tar, 1, mtime=0) if compress else tar for tar in tars]
        self.config = json.dumps(config or {
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/sh"], "Entrypoint": None},
            "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar in tars]}}).encode()
        self.kind = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if compress else "")
        self.index = None

    def describe(self, data, kind):
        return {"mediaType": kind, "digest": digest(data), "size": len(data)}

    def manifest(self):
        return json.dumps({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.describe(self.config, "application/vnd.oci.image.config.v1+json"),
            "layers": [self.describe(blob, self.kind) for blob in self.blobs]}).encode()

    def stream(self, manifest=None, names=None, order=None, without=(), extra=()):
        """The entries in bocker-pull's order; `names` gives a blob another digest's name."""
        manifest = manifest or self.manifest()
        parts = [("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')]
        parts += [(blob_name(data, names), data) for data in [manifest, self.config, *self.blobs]]
        index = self.index or json.dumps({
            "schemaVersion": 2,
            "manifests": [self.describe(manifest, "application/vnd.oci.image.manifest.v1+json")]}).encode()
        parts.append(("index.json", index))
        parts = [part for part in parts if part[0] not in without] + list(extra)
        if order:
            parts = [parts[i] for i in order]
        out = Layer()
        seen = set()
        for name, data in parts:
            # A layer that occurs twice is one blob.
            if name.startswith("blobs/") and name in seen:
                continue
            seen.add(name)
            out.file(name, data)
        return out


def blob_name(data, names=None):
    return "blobs/" + ((names or {}).get(data) or digest(data)).replace(":", "/")


def pack(directory):
    """A layout directory as a stream: manifest, configuration, layers lowest first, index last."""
    def blob(name):
        with open(os.path.join(directory, "blobs", *name.split(":")), "rb") as file:
            return file.read()

    def top(name):
        with open(os.path.join(directory, name), "rb") as file:
            return file.read()

    index = json.loads(top("index.json"))
    manifest = index["manifests"][0]["digest"]
    parsed = json.loads(blob(manifest))
    out = Layer().file("oci-layout", top("oci-layout"))
    seen = set()
    for name in [manifest, parsed["config"]["digest"], *(layer["digest"] for layer in parsed["layers"])]:
        if name not in seen:
            out.file("blobs/" + name.replace(":", "/"), blob(name))
        seen.add(name)
    return out.file("index.json", top("index.json"))


def one(*layers):
    return Image(list(layers)).stream()


def base():
    """A lower layer for attacks that need one."""
    return Layer().dir("etc/").file("etc/passwd", "inside\n").dir("d/").file("d/f", "inside\n")


# Attacks. Each gives a stream; each either must be refused or must stay inside (store.sh knows which).
# {S} is the sentinel tree outside.
def attacks(sentinel):
    s = sentinel
    up = "../" * 20 + s.lstrip("/")
    deep = "/".join(["d"] * 600)
    return {
        # refused
        "dotdot": one(Layer().file("../../escape", "x")),
        "dotdot-inside": one(Layer().dir("a/").file("a/../b", "x")),
        "dotdot-hardlink": one(Layer().hard("a", up + "/file")),
        "hardlink-missing": one(Layer().hard("a", "/nothing/there")),
        "hardlink-outside-absolute": one(Layer().hard("a", s + "/file")),
        "hardlink-through-link": one(Layer().symlink("l", s).hard("a", "l/file")),
        "hardlink-to-directory": one(Layer().dir("d/").hard("a", "d")),
        "root-is-a-link": one(Layer().symlink("./", s)),
        "root-is-a-file": one(Layer().file(".", "x")),
        "root-whiteout": one(Layer().file(".wh..", "")),
        "whiteout-empty": one(base(), Layer().file("d/.wh.", "")),
        "whiteout-dot": one(base(), Layer().file("d/.wh..", "")),
        "whiteout-dotdot": one(base(), Layer().file("d/.wh...", "")),
        "whiteout-of-whiteout": one(base(), Layer().file("d/.wh..wh.f", "")),
        "path-through-whiteout": one(Layer().file(".wh.d/f", "x")),
        "file-as-parent": one(base(), Layer().file("etc/passwd/x", "x")),
        "link-loop": one(Layer().symlink("a", "b").symlink("b", "a").file("a/x", "x")),
        "symlink-empty": one(Layer().symlink("l", "")),
        "name-too-long": one(Layer().file("n" * 256, "x")),
        "path-too-long": one(Layer().file("/".join(["n" * 200] * 21), "x")),
        "path-too-deep": one(Layer().file(deep, "x")),
        "name-with-nul": one(Layer().raw(pax({"path": b"a\0b"})).add("x")),
        "device-out-of-range": one(Layer().add("dev", b"3", major=5000, minor=1)),
        "owner-out-of-range": one(Layer().file("f", "x", uid=2**32)),
        "owner-minus-one": one(Layer().file("f", "x", records={"uid": 2**32 - 1})),
        "smuggled-pax-size": one(smuggled()),
        "size-negative": one(Layer().file("f", "", size=b"\xff" * 12)),
        "size-overflow": one(Layer().file("f", "", records={"size": 2**64 - 1})),
        "size-lies": one(Layer().file("f", "x", size=1 << 40)),
        "pax-record-huge": one(Layer().raw(header(b"x", b"x", size=64 << 20)).raw(bytes(64 << 20)).file("f")),
        "long-name-huge": one(Layer().raw(header(b"x", b"L", size=64 << 20)).raw(b"n" * (64 << 20)).file("f")),
        "pax-damaged": one(Layer().raw(header(b"x", b"x", size=512)).raw(b"9999 path=x".ljust(512, b"\n")).file("f")),
        "pax-twice": one(Layer().raw(pax({"path": "a"})).raw(pax({"path": "b"})).file("f")),
        "pax-alone": one(Layer().raw(pax({"path": "a"}))),
        "pax-global-path": one(Layer().raw(pax({"path": s + "/file"}, b"g")).file("f", "x")),
        "two-long-names": one(Layer().raw(pax({"path": "a"})).raw(header(b"x", b"L", size=2)).raw(pad(b"b\0")).file("f")),
        "checksum": one(Layer().raw(b"x" + header(b"f")[1:])),
        "unknown-type": one(Layer().add("f", b"Z")),
        "directory-with-data": one(Layer().add("d/", b"5", b"data")),
        "zero-block-inside": one(Layer().file("a").raw(bytes(512)).file("b")),
        "sparse-bomb": one(Layer().file("f", "abc", records={"GNU.sparse.map": "0,3,9223372036854775807,0",
                                                              "GNU.sparse.size": str(2**64 - 1)})),
        "sparse-overlap": one(Layer().file("f", "abc", records={"GNU.sparse.map": "0,2,1,1", "GNU.sparse.size": 9})),
        "tail-bomb": one(layer_with_tail()),
        "truncated-layer": one(truncated()),
        "zstd": zstd(),
        # inside
        "link-absolute": one(Layer().symlink("l", s).file("l/escape", "x")),
        "link-relative": one(Layer().symlink("l", up).file("l/escape", "x")),
        "link-parent-chain": one(Layer().symlink("a", "/").symlink("b", "a/" + up).file("b/escape", "x")),
        "link-over-layers": one(Layer().symlink("l", s), Layer().file("l/escape", "x")),
        "link-as-leaf": one(Layer().symlink("f", s + "/file"), Layer().file("f", "inside\n", mode=0o777, uid=7)),
        "link-as-leaf-same-layer": one(Layer().symlink("f", s + "/file").file("f", "inside\n")),
        "link-then-directory": one(Layer().symlink("l", s).dir("l/", mode=0o777, uid=7)),
        "link-then-hardlink": one(Layer().symlink("l", s + "/file").hard("h", "l").file("h", "x", mode=0o777)),
        "link-chmod": one(Layer().symlink("l", s + "/file", records={"SCHILY.xattr.user.x": b"1"}, uid=7, mtime=9)),
        "link-proc-self": one(Layer().symlink("l", "/proc/self/cwd").file("l/escape", "x")),
        "absolute-name": one(Layer().file(s + "/file", "inside\n")),
        "whiteout-through-link": one(Layer().symlink("l", s), Layer().file("l/.wh.file", "")),
        "opaque-through-link": one(Layer().symlink("l", s), Layer().file("l/.wh..wh..opq", "")),
        "whiteout-of-link": one(Layer().symlink("l", s), Layer().file(".wh.l", "")),
        "replace-link-to-dir": one(Layer().symlink("l", s), Layer().file("l", "x")),
        "device": one(Layer().add("dev", b"4", major=7, minor=0, mode=0o666)),
        "foreign-attributes": one(Layer().file("f", "x", records={"SCHILY.xattr.trusted.overlay.redirect": b"/etc",
                                                                   "SCHILY.xattr.security.selinux": b"x"})),
        "pax-newline-value": one(Layer().file("f", "x", records={"SCHILY.xattr.user.x": b"1\n30 path=" + s.encode()})),
        "old-directory": one(Layer().add("d/", b"\0").file("d/f", "x")),
        "everything-twice": one(*(Layer().dir("d/").file("d/f", "x").symlink("l", "d").hard("h", "d/f") for _ in "ab")),
    }


def smuggled():
    """The header says 0 bytes, PAX says 512: who believes the header sees a second entry."""
    inner = header(b"smuggled")
    return Layer().raw(pax({"size": len(inner)})).raw(header(b"outer", b"5", size=0)).raw(inner)


def layer_with_tail():
    layer = Layer().file("f", "x")
    layer.end = bytes(32 << 20)
    return layer


def truncated():
    return Layer().file("f", "x" * 5000).tar()[:2048]


def zstd():
    image = Image([Layer().file("f", "x")])
    image.blobs = [b"\x28\xb5\x2f\xfd" + bytes(100)]
    return image.stream()


def broken():
    """Streams with something wrong around the layers."""
    image = Image([base(), Layer().file("d/g", "two\n")])
    names = [name for name, _ in parts(image.stream())]
    other = Image([Layer().file("x", "x")])
    config = json.loads(image.config)
    swapped = dict(config, rootfs={"type": "layers", "diff_ids": config["rootfs"]["diff_ids"][::-1]})
    fewer = dict(config, rootfs={"type": "layers", "diff_ids": config["rootfs"]["diff_ids"][:1]})
    manifest = json.loads(image.manifest())
    both = json.dumps(dict(manifest, manifests=[])).encode()
    twice = image.manifest()[:-1] + b',"layers":[]}'
    case = image.manifest()[:-1] + b',"Layers":[]}'
    wrong_size = json.loads(image.manifest())
    wrong_size["layers"][0]["size"] += 1
    kind = json.dumps(dict(manifest, mediaType="application/vnd.oci.image.index.v1+json")).encode()
    bare = image.stream()
    bare.end = b""
    late = image.stream()
    late.end = bytes(1024) + b"garbage"
    gz = Image([Layer().file("f", "x")])
    gz.blobs = [gz.blobs[0] + b"garbage"]
    return {
        "empty": b"",
        "not-tar": b"<html>" * 1000,
        "failed": cut(image.stream(), 3, Layer().add("failed").tar()),
        "failed-in-layer": cut(image.stream(), 4, zeroed(image.blobs[1]) + Layer().add("failed").tar()),
        "failed-first": Layer().add("failed").tar(),
        "no-index": image.stream(without=["index.json"]).tar(),
        "no-layout": image.stream(without=["oci-layout"]).tar(),
        "no-layer": image.stream(without=[names[4]]).tar(),
        "no-config": image.stream(without=[names[2]]).tar(),
        "no-manifest": image.stream(without=[names[1]]).tar(),
        "cut-in-layer": bare.tar()[:len(bare.tar()) - 1600],
        "cut-before-index": cut(image.stream(), 5, b""),
        "wrong-layer": image.stream(names={image.blobs[0]: digest(b"other")}).tar(),
        "flipped-bit": bytes(image.stream().tar()).replace(image.blobs[1], flip(image.blobs[1])),
        "flipped-config": bytes(image.stream().tar()).replace(image.config, image.config.replace(b"/bin/sh", b"/bin/xx")),
        "diff-ids-swapped": Image([base(), Layer().file("d/g", "two\n")], config=swapped).stream().tar(),
        "diff-ids-missing": Image([base(), Layer().file("d/g", "two\n")], config=fewer).stream().tar(),
        "layers-and-manifests": image.stream(manifest=both).tar(),
        "key-twice": image.stream(manifest=twice).tar(),
        "key-in-other-case": image.stream(manifest=case).tar(),
        "size-is-wrong": image.stream(manifest=json.dumps(wrong_size).encode()).tar(),
        "media-type-confused": image.stream(manifest=kind).tar(),
        "index-of-another": image.stream(extra=[]).tar().replace(digest(image.manifest()).encode(), digest(b"x").encode()),
        "two-images": two_images(image, other),
        "garbage-after": late.tar(),
        "gzip-garbage": gz.stream().tar(),
        "stranger": image.stream(extra=[("etc/passwd", b"x")]).tar(),
        "blob-is-a-link": Layer().symlink("blobs/sha256/" + "0" * 64, "/etc/passwd").tar(),
        "blob-name-climbs": Layer().file("blobs/sha256/../../../x", "x").tar(),
        "index-twice": image.stream(extra=[("index.json", b"{}")]).tar(),
        "manifest-huge": Image([]).stream(manifest=b'{"layers":[],"config":{},"x":"' + b"x" * (5 << 20) + b'"}').tar(),
        "json-deep": Image([]).stream(manifest=b'{"layers":[],"config":{},"x":' + b"[" * 100000).tar(),
    }


def zeroed(data):
    """The entry of a blob whose second half never came: bocker-pull fills it up and says so in the next entry."""
    return Layer().file(blob_name(data), data[:len(data) // 2] + bytes(len(data) - len(data) // 2)).data


def flip(data):
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]


def two_images(one_image, other):
    manifests = [one_image.describe(i.manifest(), "application/vnd.oci.image.manifest.v1+json") for i in (one_image, other)]
    one_image.index = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
    stream = one_image.stream()
    one_image.index = None
    return stream.tar()


def parts(stream):
    """Names and sizes of the entries of a stream without extended headers."""
    data, at = stream.data, 0
    while at < len(data):
        name = data[at:at + 100].rstrip(b"\0").decode()
        size = int(data[at + 124:at + 135], 8)
        yield name, size
        at += BLOCK + size + -size % BLOCK


def cut(stream, entries, end):
    at = 0
    for _, size in list(parts(stream))[:entries]:
        at += BLOCK + size + -size % BLOCK
    return stream.data[:at] + end


def good():
    """Streams that must work, each with something unusual but right."""
    twice = Layer().file("same", "same\n")
    members = gzip.compress(base().tar()[:1024], mtime=0) + gzip.compress(base().tar()[1024:], mtime=0)
    multi = Image([base()])
    multi.blobs = [members]
    plain = Image([base()], compress=False)
    reverse = Image([base(), Layer().file("d/f", "two\n"), Layer().file("d/f", "three\n")])
    docker = Image([base()])
    docker.kind = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    unpadded = base()
    unpadded.end = b""
    unfinished = base().tar()[:-1024 - 500]
    return {
        "plain-tar": plain.stream(),
        "gzip-members": multi.stream(),
        "docker-types": docker.stream(),
        "backwards": reverse.stream(order=[6, 5, 4, 3, 2, 1, 0]),
        "same-layer-twice": Image([twice, base(), twice]).stream(),
        "no-layers": Image([]).stream(),
        "no-padding": Image([unfinished]).stream(),
        "no-end-mark": Image([unpadded]).stream(),
        "127-layers": Image([Layer().file("f%d" % i, "x") for i in range(127)]).stream(),
        "absolute-hardlink": one(base(), Layer().hard("h", "/d/f")),
        "hardlink-through-absolute-link": one(base(), Layer().symlink("l", "/d").hard("h", "l/f")),
        "var-run": one(Layer().dir("run/").dir("var/").symlink("var/run", "/run"), Layer().file("var/run/x", "x")),
        "dangling-parent": one(Layer().symlink("l", "/made/later"), Layer().file("l/x", "x")),
        "hardlink-to-itself": one(base(), Layer().hard("d/f", "d/f")),
        "longest-name": one(Layer().file("n" * 255, "x").file("/".join(["p" * 200] * 20), "x")),
        "not-utf8": one(Layer().file(b"\xff\xfe\x80", "x").symlink("l", b"\xff")),
        "git-comment": one(Layer().raw(pax({"comment": "c"}, b"g")).file("f", "x")),
    }


def write(path, stream):
    with open(path, "wb") as file:
        file.write(stream if isinstance(stream, bytes) else stream.tar())


def main():
    verb, *rest = sys.argv[1:]
    if verb == "layout":
        layers = []
        for name in rest[1:]:
            layer = Layer()
            with open(name, encoding="ascii") as file:
                for text in file:
                    if text.strip() and not text.startswith("#"):
                        layer.line(text)
            layers.append(layer)
        write(rest[0], Image(layers).stream())
    elif verb == "pack":
        write(rest[0], pack(rest[1]))
    elif verb in ("attacks", "broken", "good"):
        table = attacks(rest[1]) if verb == "attacks" else broken() if verb == "broken" else good()
        os.makedirs(rest[0], exist_ok=True)
        for name, stream in table.items():
            write(os.path.join(rest[0], name + ".tar"), stream)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
