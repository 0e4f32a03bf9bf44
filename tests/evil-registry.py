#!/usr/bin/env python3
"""A registry that misbehaves as the repository's name says. Python's standard library only.

usage: evil-registry.py ADDRESS PORT LOG [OTHER] [CERTIFICATE KEY [AUTHORITY]]

LOG gets a line for each request: METHOD PATH auth=… range=…, and for some bodies how much of them went out. OTHER
(host:port) is where it points when it is to point elsewhere. The repository `good` is honest; `good/2` is one with two equal layers.
With AUTHORITY, whoever asks has to have a certificate of that; with $OFFER_H2, it offers HTTP/2, which it does not speak. Prints "ready" once it listens.
"""
import base64
import gzip
import hashlib
import http.server
import io
import json
import os
import socket
import ssl
import struct
import sys
import tarfile
import threading
import time
import urllib.parse

ADDRESS, PORT, LOG = sys.argv[1], int(sys.argv[2]), sys.argv[3]
OTHER = sys.argv[4] if len(sys.argv) > 4 else "127.0.0.1:9"
TLS = sys.argv[5:7]
AUTHORITY = sys.argv[7:8]
SCHEME = "https" if TLS else "http"
# The login of the repositories login*, and the identity token of login-identity.
LOGIN = "Basic " + base64.b64encode(b"user:secret").decode()
IDENTITY = "identity/secret+x="
OCI = "application/vnd.oci.image."
counts, firsts = {}, {}
lock = threading.Lock()
both, second = threading.Barrier(2), threading.Event()


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer(name, size):
    """A gzipped tar of one file that does not compress."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size = size
        body = b"".join(hashlib.sha256(name.encode() + n.to_bytes(4, "big")).digest() for n in range(size // 32 + 1))
        archive.addfile(info, io.BytesIO(body[:size]))
    return out.getvalue(), gzip.compress(out.getvalue(), mtime=0)


TARS = [layer("one", 1000), layer("two", 300_000)]
CONFIG = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["/one"]},
                     "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar, _ in TARS]}}).encode()
LAYERS = [zipped for _, zipped in TARS]


def descriptor(kind, data, **more):
    return {"mediaType": OCI + kind, "digest": digest(data), "size": len(data), **more}


def manifest_of(config=CONFIG, layers=LAYERS, **more):
    return json.dumps({"schemaVersion": 2, "mediaType": OCI + "manifest.v1+json",
                       "config": descriptor("config.v1+json", config),
                       "layers": [descriptor("layer.v1.tar+gzip", data) for data in layers], **more}).encode()


def index_of(*entries):
    return json.dumps({"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": list(entries)}).encode()


def platform(data, arch, kind="manifest.v1+json", **more):
    return descriptor(kind, data, platform={"os": "unknown" if arch == "unknown" else "linux", "architecture": arch, **more})


MANIFEST = manifest_of()
ATTESTATION = manifest_of(layers=[])
CONFIG2 = json.dumps({"rootfs": {"type": "layers", "diff_ids": [digest(TARS[0][0])] * 2}}).encode()
TWICE = manifest_of(CONFIG2, [LAYERS[0], LAYERS[0]])
INDEX = index_of(platform(ATTESTATION, "unknown"), platform(ATTESTATION, "s390x"), platform(MANIFEST, "arm64", variant="v8"),
                 platform(MANIFEST, "amd64"))
NESTED = index_of(platform(INDEX, "amd64", "index.v1+json"))
NO_PLATFORM = index_of(platform(ATTESTATION, "unknown"), platform(MANIFEST, "s390x"))
DOCKER = MANIFEST.replace(b"application/vnd.oci.image.manifest.v1+json", b"application/vnd.docker.distribution.manifest.v2+json")
SCHEMA1 = b'{"schemaVersion":1,"name":"a","tag":"b","fsLayers":[{"blobSum":"sha256:00"}],"history":[]}'
ZSTD = manifest_of().replace(b"tar+gzip", b"tar+zstd")
ARTIFACT = manifest_of(artifactType="text/x-recipe").replace(b"vnd.oci.image.config.v1", b"vnd.oci.empty.v1")
PROVENANCE = manifest_of().replace(b"vnd.oci.image.layer.v1.tar+gzip", b"vnd.in-toto+json")
SHA512 = manifest_of().replace(digest(LAYERS[1]).encode(), b"sha512:" + b"0" * 128)
SIGNED = index_of(descriptor("manifest.v1+json", ARTIFACT, artifactType="text/x-recipe"), platform(MANIFEST, "amd64"))
CHART = manifest_of().replace(b"vnd.oci.image.config.v1", b"vnd.cncf.helm.config.v1")
BOTH = manifest_of(manifests=[])
FEWER = manifest_of(layers=LAYERS[:1])
HOSTILE = manifest_of().replace(b"+gzip", b"\\nend\\n")
SWAPPED = json.dumps({"rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar, _ in TARS[::-1]]}}).encode()
CALLED_INDEX = index_of(platform(MANIFEST, "amd64", "index.v1+json"), platform(MANIFEST, "arm64", "index.v1+json"))
BIG_LINE = f'"size": {len(LAYERS[1])}'.encode()
# As large as a manifest may be, and more: layers, entries of an index. Made when they are asked for.
LAYER_LINE = json.dumps(descriptor("layer.v1.tar+gzip", LAYERS[0])).encode()
BEFORE_LAYERS = MANIFEST[:MANIFEST.index(b'"layers"')]
LARGE = {"many-layers": lambda: BEFORE_LAYERS + b'"layers": [' + b", ".join([LAYER_LINE] * 20_000) + b"]}",
         "100k-layers": lambda: BEFORE_LAYERS + b'"layers": [' + b", ".join([LAYER_LINE] * 100_000) + b"]}",
         "many-entries": lambda: index_of(*[platform(MANIFEST, f"a{n}") for n in range(15_000)])}
IDS_100K = CONFIG.replace(b'"diff_ids": [', b'"diff_ids": [' + b'"sha256:0", ' * 100_000)
MANY_IDS = manifest_of(IDS_100K)
# A layer that is said to lie elsewhere, as foreign layers did.
FOREIGN = manifest_of().replace(digest(LAYERS[1]).encode() + b'"', digest(LAYERS[1]).encode() + f'", "urls": ["https://{OTHER}/cdn/{digest(LAYERS[1])}"]'.encode())
# Repository: what its tag names, where that is not MANIFEST.
TAGS = {"index": INDEX, "nested": NESTED, "no-platform": NO_PLATFORM, "docker": DOCKER, "schema1": SCHEMA1, "zstd": ZSTD,
        "artifact": ARTIFACT, "attestation": PROVENANCE, "sha512": SHA512, "signed": SIGNED, "chart": CHART,
        "both": BOTH, "good/2": TWICE, "fewer-layers": FEWER, "record-in-type": HOSTILE,
        "wrong-diff": manifest_of(SWAPPED), "urls": FOREIGN, "entry-called-index": CALLED_INDEX,
        "bend/index/none": INDEX, "bend/entry/none": INDEX,
        "key-twice": MANIFEST.replace(b'"layers":', b'"layers": [], "layers":'),
        "digest-twice": MANIFEST.replace(b'"digest":', b'"digest": "sha256:0", "digest":'),
        "negative-size": MANIFEST.replace(BIG_LINE, b'"size": -1'), "float-size": MANIFEST.replace(BIG_LINE, b'"size": 1e3'),
        "huge-size": MANIFEST.replace(BIG_LINE, b'"size": 18446744073709551615'),
        "huger-size": MANIFEST.replace(BIG_LINE, b'"size": 18446744073709551616'),
        "large-config": MANIFEST.replace(f'"size": {len(CONFIG)}'.encode(), b'"size": 1099511627776'),
        "many-ids": MANY_IDS}
MANIFESTS = {digest(data): data for data in (MANIFEST, INDEX, NESTED, NO_PLATFORM, DOCKER, TWICE, FEWER, ATTESTATION,
                                             ZSTD, SIGNED)}
BLOBS = {digest(data): data for data in (CONFIG, CONFIG2, SWAPPED, IDS_100K, *LAYERS)}
BIG = digest(LAYERS[1])
PARTS = {digest(CONFIG): "config", digest(LAYERS[0]): "first", BIG: "last"}
# Where a registry is not to send us, by number: as realms and as redirects.
ELSEWHERE = [url for host in (
    "127.0.0.1", "127.1", "2130706433", "0x7f.1", "017700000001", "localhost", "LOCALHOST.", "a.localhost", "0.0.0.0", "0",
    "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
    "10.0.0.1", "172.31.255.255", "192.168.0.1", "169.254.169.254", "[fe80::1]", "[fd00:ec2::254]", "[fec0::1]", "100.64.0.1",
    "224.0.0.1", "[ff02::1]", "255.255.255.255") for url in [f"https://{host}:{OTHER.rsplit(':', 1)[-1]}/x"]] + [
    f"http://{OTHER}/x", f"https://user:secret@{OTHER}/x", "file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/x",
    "//127.0.0.1:1/x", "data:,x", "unix:/run/x"]


class Registry(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two packets: do not wait 40 ms between them.
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def times(self, *key):
        """How often this has been asked for, this time included."""
        with lock:
            counts[key] = counts.get(key, 0) + 1
            return counts[key]

    def answer(self, status, body, headers=(), length=True):
        self.send_response(status)
        names = [name.lower() for name, _ in headers]
        for name, value in headers:
            self.send_header(name, value)
        if length and "content-length" not in names:
            self.send_header("Content-Length", str(len(body)))
        if not length:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)

    def error(self, status, message="no", headers=()):
        body = json.dumps({"errors": [{"code": "NO", "message": message}]}).encode()
        self.answer(status, body, [("Content-Type", "application/json"), *headers])

    def endless(self, status=200):
        self.send_response(status)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for _ in range(4096):
            self.wfile.write(b" " * 65536)

    def drip(self, status=200):
        """A byte now and then, without end."""
        self.send_response(status)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        for _ in range(120):
            self.wfile.write(b" ")
            time.sleep(0.5)

    def raw(self, start, piece, pause=0.0):
        """Bytes that are no answer yet, until nobody wants more."""
        self.close_connection = True
        self.wfile.write(start)
        while True:
            self.wfile.write(piece)
            time.sleep(pause)

    def sent(self, part, start=0):
        """Says in the log how much of a body goes out."""
        with lock, open(LOG, "a") as log:
            log.write(f"SENT {self.path} {start} {len(part)}\n")

    def bent(self, data, how, headers=()):
        """The bytes as they should not be, as `how` says."""
        other = {CONFIG: CONFIG2, LAYERS[0]: LAYERS[1], LAYERS[1]: LAYERS[0], MANIFEST: TWICE, INDEX: NESTED}[data]
        headers = [*headers]
        body = {"none": data, "flipped": data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], "shorter": data[:-9], "longer": data + b"x",
                "empty": b"", "other": other, "zeros": bytes(len(data)), "packed": gzip.compress(data), "cut": data[:-9],
                "more": data + b"x"}[how]
        if how == "packed":
            headers.append(("Content-Encoding", "gzip"))
        # The last two end with the connection, without a word on their length.
        return self.answer(200, body, headers, length=how not in ("cut", "more"))

    def is_out(self, repo):
        """The first time; with 503-wait for longer than whoever does not wait as it says would try."""
        first, now = firsts.setdefault(repo, time.monotonic()), time.monotonic()
        return self.times(repo) <= 1 or repo.endswith("503-wait") and now - first < 1.7

    def out(self, how, data, headers=()):
        """No answer, half of one, or another one, as `how` says; the connection ends where it does."""
        status = {"500": 500, "502": 502, "503": 503, "504": 504, "429": 429, "503-wait": 503}.get(how)
        if status:
            return self.error(status, "wait", [("Retry-After", {"429": "1", "503-wait": "2"}[how])] if how in ("429", "503-wait") else [])
        self.close_connection = True
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers)
        whole = f"{head}\r\n".encode() + data
        at = {"connect": 0, "reset": 0, "status": 7, "head": len(head) // 2, "body": len(head) + 2, "half": len(whole) - len(data) // 2,
              "half-reset": len(whole) - len(data) // 2, "last": len(whole) - 1}[how]
        self.wfile.write(whole[:at])
        if how.endswith("reset"):
            # Time for what was sent to be read: a reset takes it away.
            time.sleep(0.1)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()
            self.connection.close()
        return None

    @staticmethod
    def repeat(auth):
        """A login in all its forms, in other words."""
        pair = base64.b64decode(auth.split()[1]).decode()
        return f"not with {auth}, {pair} or {pair.split(':')[1]}"

    def hang(self):
        self.wfile.flush()
        time.sleep(60)
        self.close_connection = True

    def challenge(self, realm):
        self.error(401, "authentication required",
                   [("WWW-Authenticate", f'Basic realm="x", Bearer realm="{realm}",service="evil",scope="repository:other:push"')])

    def do_POST(self):
        """Only the token server of login-identity: an identity token for a token."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        with lock, open(LOG, "a") as log:
            log.write(f"POST {self.path} auth={self.headers.get('Authorization', '-')} body={body}\n")
        repo = self.path.partition("?")[0].removeprefix("/token/")
        if repo == "login-identity-away":
            return self.answer(307, b"", [("Location", f"https://{OTHER}/token/{repo}")])
        if urllib.parse.parse_qs(body) != {
                "grant_type": ["refresh_token"], "service": ["evil"], "client_id": ["bocker-pull"],
                "scope": [f"repository:{repo}:pull"], "refresh_token": [IDENTITY]}:
            return self.error(401, "bad form")
        return self.answer(200, json.dumps({"access_token": f"secret-{repo}"}).encode())

    def do_GET(self):
        auth = self.headers.get("Authorization", "-")
        with lock, open(LOG, "a") as log:
            log.write(f"GET {self.path} auth={auth} range={self.headers.get('Range', '-')}\n")
        try:
            self.route(auth)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.close_connection = True

    def route(self, auth):
        here = f"{SCHEME}://{self.headers['Host']}"
        path, _, query = self.path.partition("?")
        if path.startswith("/token"):
            return self.token(path.removeprefix("/token/"), query)
        if path.startswith("/cdn/"):
            return self.answer(200, BLOBS[path.removeprefix("/cdn/")])
        parts = path.split("/")
        repo, kind, name = "/".join(parts[2:-2]), parts[-2], parts[-1]
        if repo.startswith("outage/token/") and auth != "Bearer secret-out":
            return self.challenge(f"{here}/token/{repo}?a=b")
        # Nobody is to have a connection left.
        self.close_connection |= repo.startswith("goes-away")
        if repo == "token-at-cdn" and auth != f"Bearer secret-{repo}":
            return self.challenge(f"https://{OTHER}/token/{repo}?a=b")
        if repo == "realm":
            return self.challenge(ELSEWHERE[int(name)])
        if repo == "goto":
            return self.answer(302, b"", [("Location", ELSEWHERE[int(name)])])
        if repo in ("echo", "echo-kindly") and auth == "-":
            return self.error(401, "who?", [("WWW-Authenticate", 'Basic realm="x"')])
        if repo == "echo":
            return self.error(403, self.repeat(auth))
        if repo.startswith("raw/"):
            ok, page = b"HTTP/1.1 200 OK\r\n", b"x" * 8000
            chunked = ok + b"Transfer-Encoding: chunked\r\n"
            return self.raw(*{
                "drip-head": (ok + b"X: ", b"x", 0.5), "header": (ok + b"X: ", page), "headers": (ok, b"X: y\r\n" * 1000),
                "status": (b"HTTP/1.1 200 ", page), "interim": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 20, 0.002),
                "chunk-size": (chunked + b"\r\n", b"0" * 500, 0.002), "chunk-extension": (chunked + b"\r\n1;", page),
                "chunk-huge": (chunked + b"\r\nffffffffffffffff\r\n", page), "trailers": (
                    chunked + b"\r\n2\r\n{}\r\n0\r\n", b"X: y\r\n" * 1000), "chunks": (
                    chunked + b"\r\n", b"1\r\n \r\n" * 100, 0.002),
                # The frame that begins HTTP/2, then empty DATA frames.
                "h2": (b"\0\0\0\4\0\0\0\0\0", b"\0\0\0\0\0\0\0\0\1" * 1000), "noise": (b"", bytes(range(256)) * 30),
            }[repo.removeprefix("raw/")])

        # Who may ask
        if repo in ("login", "login-cdn", "login-port", "login-hang") and auth != LOGIN:
            return self.error(401, "who?", [("WWW-Authenticate", 'Basic realm="x"')])
        if repo in ("login-token", "login-identity", "login-identity-away", "login-away", "bearer", "bearer-cdn", "expires", "token-denied", "token-junk", "token-endless", "token-404") and (
                auth != f"Bearer secret-{repo}" if repo != "expires" else
                not auth.startswith("Bearer secret-expires") or self.times(repo, auth) > 2):
            return self.challenge(f"{here}/token/{repo}?a=b")
        if repo == "bearer-foreign":
            return self.challenge(f"http://{OTHER}/token/x")
        if repo == "bearer-file":
            return self.challenge("file:///etc/passwd")
        if repo == "basic":
            return self.error(401, "who?", [("WWW-Authenticate", 'Basic realm="x"')])
        if repo in ("401", "403", "404", "500", "418"):
            return self.error(int(repo))
        if repo == "escape":
            return self.error(403, "\x1b]0;owned\x07\x1b[2J\nbocker-pull: fine")
        if repo == "429" and self.times(repo) <= 2:
            return self.error(429, "slow down", [("Retry-After", "1")])
        if repo == "429-long":
            return self.error(429, "slow down", [("Retry-After", "3600")])
        if repo == "503-twice" and self.times(repo, path) <= 2:
            return self.error(503)
        if repo == "reset" or repo == "reset-once" and self.times(repo, path) <= 1:
            self.close_connection = True
            return None
        if repo == "endless-error":
            return self.endless(403)
        if repo == "drip-error":
            return self.drip(403)
        if repo == "drip-token":
            return self.challenge(f"{here}/token/{repo}?a=b")
        if repo == "slow":
            return self.hang()
        if repo == "redirect-loop":
            return self.answer(307, b"", [("Location", self.path)])
        if parts[-2:] == ["tags", "list"]:
            return self.tags("/".join(parts[2:-2]), urllib.parse.parse_qs(query))
        if kind == "manifests":
            return self.manifest(repo, name)
        return self.blob(repo, name)

    def token(self, repo, query):
        if repo == "login-away":
            return self.answer(302, b"", [("Location", f"https://{OTHER}/token/{repo}?{query}")])
        if repo == "login-token" and self.headers.get("Authorization") != LOGIN:
            return self.error(401, "wrong password")
        if repo == "token-denied":
            return self.error(403, "denied")
        if repo == "token-404":
            return self.error(404)
        if repo == "token-junk":
            return self.answer(200, b"<html>", [("Content-Type", "text/html")])
        if repo == "token-endless":
            return self.endless()
        if repo == "drip-token":
            return self.drip()
        if repo.startswith("outage/token/"):
            data = json.dumps({"token": "secret-out"}).encode()
            return self.out(repo.split("/")[2], data) if self.is_out(repo) else self.answer(200, data)
        if urllib.parse.parse_qs(query) != {"a": ["b"], "service": ["evil"], "scope": [f"repository:{repo}:pull"]}:
            return self.error(400, "bad query " + query)
        key = "access_token" if repo == "expires" else "token"
        # Each of these is good for two requests.
        more = f"-{self.times(repo, 'token')}" if repo == "expires" else ""
        return self.answer(200, json.dumps({key: f"secret-{repo}{more}"}).encode(), [("Content-Type", "application/json")])

    def tags(self, repo, query):
        """2500 tags in pages of at most 1000, or what the repository's name says."""
        if repo == "tags-page":
            return self.endless()
        if repo == "tags-drip":
            return self.drip()
        tags = [f"t{n:04}" for n in range(2500)]
        last, most = query.get("last", [""])[0], int(query["n"][0])
        page = [tag for tag in tags if tag > last][:most]
        target = f"/v2/{repo}/tags/list?last={page[-1]}&n={most}" if page and page[-1] != tags[-1] else ""
        if repo == "tags-endless":
            target = f"/v2/{repo}/tags/list?last=a&n={self.times(repo) + 1}"
            page = []
        if repo == "tags-elsewhere":
            target = f"http://{OTHER}/v2/{repo}/tags/list?n=1"
        if repo == "tags-lines":
            page = ["a\nb"]
        body = {"name": repo, "tags": page if repo != "tags-none" else None}
        if repo == "tags-none":
            target = ""
        return self.answer(200, json.dumps(body).encode(), [("Link", f'<{target}>; rel="next"')] if target else [])

    def manifest(self, repo, name):
        if repo == "html":
            return self.answer(200, b"<html>Please log in</html>", [("Content-Type", "text/html; charset=utf-8")])
        if repo == "brackets":
            return self.answer(200, b"[" * (4 << 20))
        data = MANIFESTS.get(name) if name.startswith("sha256:") else LARGE.get(repo, lambda: TAGS.get(repo, MANIFEST))()
        if data is None or name == "none":
            return self.error(404, "manifest unknown")
        headers = [("Content-Type", json.loads(data).get("mediaType", OCI + "manifest.v1+json")),
                   ("Docker-Content-Digest", digest(data))]
        if repo.startswith("outage/manifest/") and self.is_out(repo):
            return self.out(repo.split("/")[2], data, headers)
        if repo.startswith("bend/"):
            part, how = repo.split("/")[1:]
            if part in ("index", "entry"):
                data = MANIFEST if name == digest(MANIFEST) else INDEX
                headers = [("Content-Type", json.loads(data)["mediaType"])]
            here = "entry" if part == "entry" and name.startswith("sha256:") else "index" if data == INDEX else "manifest"
            return self.bent(data, how if part == here else "none", headers[:1])
        if repo == "called-index":
            headers[0] = ("Content-Type", OCI + "index.v1+json")
        if repo == "one-byte-chunks":
            self.send_response(200)
            for header in (*headers, ("Transfer-Encoding", "chunked")):
                self.send_header(*header)
            self.end_headers()
            return self.wfile.write(b"".join(b"1\r\n%c\r\n" % byte for byte in data) + b"0\r\n\r\n")
        if repo == "drip-manifest":
            return self.drip()
        if repo == "few-left":
            headers += [("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "3;w=21600")]
            if name.startswith("sha256:"):
                headers += [("Warning", '299 - "this ends soon"')]
            else:
                data = INDEX
                headers[:2] = [("Content-Type", OCI + "index.v1+json")]
        if repo == "echo-kindly":
            headers += [("Warning", f'299 - "{self.repeat(self.headers["Authorization"])}"')]
        if repo == "many-left":
            headers += [("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "50;w=21600")]
        if repo == "wrong-manifest":
            return self.answer(200, DOCKER, headers[:1])
        if repo == "lying-header":
            return self.answer(200, data, [headers[0], ("Docker-Content-Digest", digest(b"other"))])
        if repo == "wrong-entry" or repo == "wrong-entry-size":
            if not name.startswith("sha256:"):
                return self.answer(200, INDEX, [("Content-Type", OCI + "index.v1+json")])
            data = DOCKER if repo == "wrong-entry-size" else MANIFEST.replace(b"schemaVersion\": 2", b"schemaVersion\":2 ")
            return self.answer(200, data, headers[:1])
        if repo == "endless":
            return self.endless()
        if repo == "announced-endless":
            return self.answer(200, b"{", [("Content-Length", str(1 << 40))])
        if repo == "slow-body":
            self.answer(200, data[:20], [("Content-Length", str(len(data))), *headers])
            return self.hang()
        if repo == "encoded":
            return self.answer(200, gzip.compress(data), [("Content-Encoding", "gzip"), headers[0]])
        if repo == "redirect-private":
            return self.answer(302, b"", [("Location", "http://10.0.0.1/x")])
        if repo == "redirect-metadata":
            return self.answer(302, b"", [("Location", "https://169.254.169.254/latest")])
        if repo == "redirect-loopback":
            return self.answer(302, b"", [("Location", f"http://{OTHER}/x")])
        if repo == "redirect-literal":
            return self.answer(302, b"", [("Location", "https://127.0.0.1:9/x")])
        if repo == "redirect-file":
            return self.answer(302, b"", [("Location", "file:///etc/passwd")])
        return self.answer(200, data, headers)

    def blob(self, repo, name):
        data = BLOBS.get(name)
        if data is None or repo in ("blob-404", "urls") and name == BIG:
            return self.error(404, "blob unknown")
        part = PARTS.get(name)
        if repo.startswith("bend/"):
            kind, how = repo.split("/")[1:]
            return self.bent(data, how if kind == part else "none")
        if repo.startswith(f"outage/{part}/") and self.is_out(repo):
            return self.out(repo.split("/")[2], data)
        if repo.startswith("portions") and name != BIG:
            self.sent(data)
        if repo == "redirect":
            return self.answer(307, b"", [("Location", f"/cdn/{name}")])
        if repo in ("redirect-cdn", "bearer-cdn", "login-cdn"):
            return self.answer(307, b"", [("Location", f"https://{OTHER}/cdn/{name}")])
        if repo == "login-port":
            # The same host, but another port.
            where = f"https://{self.headers['Host'].split(':')[0]}:{OTHER.split(':')[1]}"
            return self.answer(307, b"", [("Location", f"{where}/cdn/{name}")])
        if repo == "wrong-config" and name == digest(CONFIG):
            return self.answer(200, data.replace(b"linux", b"xunil"))
        if repo == "together":
            # Nobody gets a layer before both are asked for.
            if name != digest(CONFIG):
                try:
                    both.wait(5)
                except threading.BrokenBarrierError:
                    return self.error(418, "nobody else came")
        if repo == "second-first":
            if name == BIG:
                self.answer(200, data)
                return second.set()
            if name != digest(CONFIG) and not second.wait(20):
                return self.error(418, "the second layer did not come first")
        if repo == "second-hangs" and name == BIG:
            return self.hang()
        if name != BIG:
            return self.answer(200, data)
        start = 0
        asked = self.headers.get("Range", "")
        if asked:
            start, end = (int(word) for word in asked.removeprefix("bytes=").split("-"))
            assert end == len(data) - 1, asked
        part = data[start:]
        if repo == "login-hang":
            self.answer(200, part[:1000], [("Content-Length", str(len(part)))])
            return self.hang()
        if repo.startswith("outage/") and start:
            return self.answer(206, part, [("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")])
        if repo.startswith("goes-away") and self.times(repo) <= 1:
            self.answer(200, data[:100_000], [("Content-Length", str(len(data)))])
            return threading.Thread(target=self.server.shutdown).start()
        if repo in ("portions", "portions-down"):
            # 50,000 bytes more each time, then nothing; or the connection ends.
            step = part[:50_000] if self.times(repo) <= 5 else part
            self.sent(step, start)
            self.close_connection = True
            headers = [("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")] if start else []
            self.answer(206 if start else 200, step, [("Content-Length", str(len(part))), *headers])
            return self.hang() if repo == "portions" and step != part else None
        if repo.startswith("half") and self.times(repo) <= 1:
            self.answer(200, data[:90_000], [("Content-Length", str(len(data)))])
            # What came before its turn goes on with the next piece: one that comes when all others have had theirs.
            time.sleep(0.5)
            self.wfile.write(data[90_000:100_000])
            return self.hang()
        if repo.startswith("half"):
            headers = [("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")] if start else []
            return self.answer(206 if start else 200, part, headers)
        if repo == "two-seconds":
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            for at in range(0, len(data), 16384):
                self.wfile.write(data[at:at + 16384])
                time.sleep(0.1)
            return None
        if repo == "when-told":
            # The rest when the file `go` is there.
            self.answer(200, data[:90_000], [("Content-Length", str(len(data)))])
            time.sleep(0.5)
            self.wfile.write(data[90_000:100_000])
            while not os.path.exists("go"):
                time.sleep(0.02)
            return self.wfile.write(data[100_000:])
        if repo == "wrong-digest":
            return self.answer(200, data[:-1] + bytes([data[-1] ^ 1]))
        if repo == "too-long":
            return self.answer(200, data + b"x", length=False)
        if repo == "too-short":
            return self.answer(200, data[:-1], length=False)
        if repo == "announced-long":
            return self.answer(200, data, [("Content-Length", str(len(data) + 1))])
        if repo == "announced-short":
            return self.answer(200, data, [("Content-Length", str(len(data) - 1)), ("Connection", "close")])
        if repo == "endless-blob":
            return self.endless()
        if repo == "truncated":
            self.close_connection = True
            return self.answer(200, data[:100_000], [("Content-Length", str(len(data)))])
        if repo in ("broken-twice", "broken-no-ranges", "broken-wrong-range", "broken-other") and self.times(repo) <= 2:
            if not start or repo == "broken-twice":
                self.close_connection = True
                headers = [("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")] if start else []
                return self.answer(206 if start else 200, part[:100_000], [("Content-Length", str(len(part))), *headers])
        if repo == "broken-wrong-range":
            return self.answer(206, data, [("Content-Range", f"bytes 0-{len(data) - 1}/{len(data)}")])
        if repo == "broken-other":
            return self.answer(206, bytes(len(part)), [("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")])
        if repo == "cut-unannounced":
            # A chunk that is more than what comes of it.
            self.close_connection = True
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            return self.wfile.write(b"2000\r\n" + data[:1000])
        if repo in ("drip", "drip-unannounced"):
            self.send_response(200)
            self.send_header(*(("Content-Length", str(len(data))) if repo == "drip" else ("Connection", "close")))
            self.end_headers()
            for at in range(60):
                self.wfile.write(data[at:at + 1])
                time.sleep(0.5)
            return None
        if start and repo == "broken-twice":
            return self.answer(206, part, [("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")])
        return self.answer(200, data)


# Connections that wait to be taken: the default of 5 would lose some of a test's twenty.
http.server.ThreadingHTTPServer.request_queue_size = 128
while True:
    server = http.server.ThreadingHTTPServer((ADDRESS, PORT), Registry)
    server.daemon_threads = True
    if TLS:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*TLS)
        # Whoever offers HTTP/2 gets it, which is not spoken here.
        if os.environ.get("OFFER_H2"):
            context.set_alpn_protocols(["h2", "http/1.1"])
        for path in AUTHORITY:
            context.load_verify_locations(path)
            context.verify_mode = ssl.CERT_REQUIRED
        server.socket = context.wrap_socket(server.socket, server_side=True)
    print("ready", flush=True)
    server.serve_forever(0.02)
    # goes-away: nobody listens for a moment.
    server.socket.close()
    time.sleep(0.5)
