#!/usr/bin/python3
"""Archives of images for the tests: in the forms that docker save has had, and such that lie.

    archives.py good DIR     DIR/NAME.tar for each form, the image in it named NAME:1 and localhost:5000/NAME:1
    archives.py bad DIR      DIR/NAME=REASON.tar for each lie; REASON (blanks are _) is what the refusal says
"""
import gzip
import hashlib
import io
import json
import os
import sys
import tarfile

OCI = "application/vnd.oci.image."


def sha(data):
    return hashlib.sha256(data).hexdigest()


def layer(**files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


TARS = [layer(one="one\n"), layer(two="two\n")]


def config_of(tars=TARS, **more):
    ids = ["sha256:" + sha(tar) for tar in tars]
    return json.dumps({"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": ids},
                       **more}).encode()


CONFIG = config_of()


def blob(data):
    return "blobs/sha256/" + sha(data)


def described(kind, data, **more):
    return {"mediaType": OCI + kind, "digest": "sha256:" + sha(data), "size": len(data), **more}


def old(name, layers=TARS, config=CONFIG, tags=None):
    """docker save until version 24: a directory for each layer."""
    ids = [sha(data + str(at).encode()) for at, data in enumerate(layers)]
    entries = []
    for one, data in zip(ids, layers):
        entries += [(one + "/", None), (one + "/VERSION", b"1.0"), (one + "/json", b"{}"), (one + "/layer.tar", data)]
    listed = [{"Config": sha(config) + ".json", "RepoTags": tags or [f"{name}:1", f"localhost:5000/{name}:1"],
               "Layers": [one + "/layer.tar" for one in ids]}]
    return entries + [(sha(config) + ".json", config), ("manifest.json", json.dumps(listed).encode()),
                      ("repositories", json.dumps({name: {"1": ids[-1]}}).encode())]


def new(name, layers=TARS, config=CONFIG, index=None, manifest=None, entries=None):
    """docker save since version 25: an OCI layout, and the old list beside it."""
    manifest = manifest or json.dumps({
        "schemaVersion": 2, "mediaType": OCI + "manifest.v1+json", "config": described("config.v1+json", config),
        "layers": [described("layer.v1.tar", data) for data in layers]}).encode()
    tags = [f"docker.io/library/{name}:1", f"localhost:5000/{name}:1"]
    entries = entries or [described("manifest.v1+json", manifest, annotations={
        "io.containerd.image.name": tag, "org.opencontainers.image.ref.name": "1"}) for tag in tags]
    index = index or json.dumps({"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": entries}).encode()
    listed = [{"Config": blob(config), "RepoTags": tags, "Layers": [blob(data) for data in layers]}]
    return [("blobs/", None), ("blobs/sha256/", None), *[(blob(data), data) for data in (*layers, config, manifest)],
            ("index.json", index), ("manifest.json", json.dumps(listed).encode()),
            ("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')]


def write(path, entries):
    """An entry: name, bytes; a directory: None; a link: text; anything else: a TarInfo."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in entries:
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            if data is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(data, str):
                info.type, info.linkname = tarfile.SYMTYPE, data
            elif isinstance(data, bytes):
                info.size = len(data)
            tar.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)


def good(to):
    packed = [gzip.compress(tar) for tar in TARS]
    linked = old("linked")
    where = {name: data for name, data in linked if name.endswith("/layer.tar")}
    first = next(iter(where))
    # Docker wrote a layer that is there already as a link; here the other name is a plain file.
    linked = [(name, f"../elsewhere/{'x'}/../layer.tar" if name == first else data) for name, data in linked]
    linked.append(("elsewhere/layer.tar", where[first]))
    twice_config = config_of([TARS[0], TARS[1], TARS[1]])
    arm = new("multi", config=config_of(os="plan9"))
    own = new("multi")
    inner = json.dumps({"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": [
        described("manifest.v1+json", entries[-4][1], platform={"os": system, "architecture": machine})
        for entries, system, machine in ((arm, "plan9", "amd64"), (own, "linux", os.environ.get("TEST_ARCH", "amd64")))]}).encode()
    tags = ["multi:1", "localhost:5000/multi:1"]
    multi = new("multi", entries=[described("index.v1+json", inner, annotations={
        "org.opencontainers.image.ref.name": tag}) for tag in tags])
    # What is for other machines need not be there.
    multi.append((blob(inner), inner))
    for name, entries in {
            "old": old("old"), "new": new("new"), "old-reversed": old("old-reversed")[::-1],
            "new-reversed": new("new-reversed")[::-1], "old-packed": old("old-packed", packed), "linked": linked,
            "new-packed": new("new-packed", packed), "dotted": [("./" + name, data) for name, data in old("dotted")],
            "twice": old("twice", [TARS[0], TARS[1], TARS[1]], twice_config), "multi": multi,
    }.items():
        write(f"{to}/{name}.tar", entries)


def changed(entries, name, data):
    """With other bytes, or without the entry (where they are False)."""
    assert any(one == name for one, _ in entries), name
    return [(one, data if one == name else was) for one, was in entries if one != name or data is not False]


def device(name, kind=tarfile.CHRTYPE, size=0, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    return info


def bad(to):
    o, n = old("x"), new("x")
    layer_of = [name for name, _ in o if name.endswith("/layer.tar")]
    config = sha(CONFIG) + ".json"
    manifest = n[5][1]
    wrong = TARS[0][:-600] + b"x" + TARS[0][-599:]
    listed = json.loads(dict(o)["manifest.json"])

    def relisted(**more):
        return changed(o, "manifest.json", json.dumps([{**listed[0], **more}]).encode())

    both = json.dumps({**json.loads(manifest), "manifests": []}).encode()
    huge = json.loads(manifest)
    huge["layers"][0]["size"] = 1 << 60
    huge = json.dumps(huge).encode()
    gzipped = gzip.compress(wrong)
    hostile = layer(**{"../../escape": "x"})
    for name, entries in {
            "dots=leads_out_of_it": [("../x", b""), *o],
            "dots-within=leads_out_of_it": [*n, ("blobs/../../x", b"")],
            "absolute=leads_out_of_it": [("/etc/passwd", b""), *o],
            "linked-list=not_a_plain_file": changed(o, "manifest.json", "repositories"),
            "linked-index=not_a_plain_file": changed(n, "index.json", "manifest.json"),
            "linked-marker=not_a_plain_file": changed(n, "oci-layout", "/etc/passwd"),
            "linked-config=not_a_plain_file": changed(o, config, "/etc/passwd"),
            "linked-manifest=not_a_plain_file": changed(n, blob(manifest), "/etc/passwd"),
            "link-out=leads_out_of_it": changed(o, layer_of[0], "../../../etc/passwd"),
            "link-absolute=leads_out_of_it": changed(o, layer_of[0], "/etc/passwd"),
            "link-circle=link_in_a_circle": changed(o, layer_of[0], "layer.tar"),
            "link-nowhere=there_is_no": changed(o, layer_of[0], "../none"),
            "hard-link=not_a_plain_file": [*o, ("y", device("y", tarfile.LNKTYPE, link="repositories"))],
            "device=not_a_plain_file": [*o, ("y", device("y"))],
            "twice=occurs_twice": [*o, ("manifest.json", b"[]")],
            "twice-dotted=occurs_twice": [*n, ("./index.json", b"{}")],
            "config-gone=there_is_no": changed(o, config, False),
            "layer-gone=there_is_no": changed(o, layer_of[1], False),
            "blob-gone=there_is_no": changed(n, blob(TARS[1]), False),
            "manifest-gone=there_is_no": changed(n, blob(manifest), False),
            "index-gone=there_is_no": changed(n, "index.json", False),
            "list-gone=neither": changed(o, "manifest.json", False),
            "layer-wrong=not_the_configuration's": changed(o, layer_of[0], wrong),
            "layer-packed-wrong=diff_id": changed(o, layer_of[0], gzipped),
            "config-wrong=has_the_digest": changed(o, config, CONFIG + b" "),
            "blob-wrong=has_the_digest": changed(n, blob(TARS[0]), wrong),
            "blob-longer=has_the_digest": changed(n, blob(TARS[0]), TARS[0] + bytes(512)),
            "manifest-wrong=has_the_digest": changed(n, blob(manifest), manifest + b" "),
            "size-wrong=has_the_digest": new("x", manifest=huge),
            "two-things=both_an_index_and_a_manifest": new("x", manifest=both),
            "index-of-nothing=neither": new("x", index=json.dumps({"manifests": [described("index.v1+json", b"{}")]}).encode()) + [(blob(b"{}"), b"{}")],
            "marker-wrong=not_of_version_1.0.0": changed(n, "oci-layout", b'{"imageLayoutVersion":"2.0.0"}'),
            "no-image=no_image": changed(o, "manifest.json", b"[]"),
            "no-list=not_what_it_should_be": changed(o, "manifest.json", b"<html>"),
            "key-twice=duplicate_field": changed(o, "manifest.json", b'[{"Config":"a","Config":"b","Layers":[]}]'),
            "nested=not_what_it_should_be": changed(o, "manifest.json", b"[" * 100_000),
            "large-list=larger_than_4_MiB": changed(o, "manifest.json", b" " * (5 << 20)),
            "fewer=names_2_layers": relisted(Layers=layer_of[:1]),
            "tag=upper_case": relisted(RepoTags=["X:1"]),
            "tag-escape=''": relisted(RepoTags=["\x1b[2Ja\nb:1"]),
            "config-out=there_is_no": relisted(Config="../../etc/passwd"),
            "config-directory=there_is_no": relisted(Config=layer_of[0].split("/")[0]),
            "escape=\\.\\.": old("x", [hostile], config_of([hostile])),
            "sizes=": [("huge", device("huge", tarfile.REGTYPE, 1 << 50))],
            "many=more_than_10,000_entries": [(f"f{at}", b"") for at in range(10_001)],
    }.items():
        name, _, reason = name.partition("=")
        reason = {"upper_case": "lower_case", "''": ""}.get(reason, reason)
        write(f"{to}/{name}={reason}", entries)
    with open(f"{to}/empty=it_is_empty", "wb"), open(f"{to}/noise=", "wb") as noise:
        noise.write(os.urandom(20_000))
    with open(f"{to}/page=", "wb") as page:
        page.write(b"<html>" * 1000)


os.makedirs(sys.argv[2], exist_ok=True)
{"good": good, "bad": bad}[sys.argv[1]](sys.argv[2])
