#!/usr/bin/env python3
"""A registry that misbehaves as the repository's name says. Python's standard library only.

usage: evil-registry.py ADDRESS PORT LOG [OTHER] [CERTIFICATE KEY [AUTHORITY]]

LOG gets a line for each request: METHOD PATH auth=… range=…. OTHER (host:port) is where it points
when it is to point elsewhere. The repository `good` is honest; `good/2` is one with two equal layers.
With AUTHORITY, whoever asks has to have a certificate of that. Prints "ready" once it listens.
"""
import base64
import gzip
import hashlib
import http.server
import io
import json
import ssl
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
counts = {}
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
# Repository: what its tag names, where that is not MANIFEST.
TAGS = {"index": INDEX, "nested": NESTED, "no-platform": NO_PLATFORM, "docker": DOCKER, "schema1": SCHEMA1, "zstd": ZSTD,
        "artifact": ARTIFACT, "attestation": PROVENANCE, "sha512": SHA512, "signed": SIGNED, "chart": CHART,
        "both": BOTH, "good/2": TWICE, "fewer-layers": FEWER, "record-in-type": HOSTILE}
MANIFESTS = {digest(data): data for data in (MANIFEST, INDEX, NESTED, NO_PLATFORM, DOCKER, TWICE, FEWER, ATTESTATION,
                                             ZSTD, SIGNED)}
BLOBS = {digest(data): data for data in (CONFIG, CONFIG2, *LAYERS)}
BIG = digest(LAYERS[1])


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

        # Who may ask
        if repo in ("login", "login-cdn") and auth != LOGIN:
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
        if urllib.parse.parse_qs(query) != {"a": ["b"], "service": ["evil"], "scope": [f"repository:{repo}:pull"]}:
            return self.error(400, "bad query " + query)
        key = "access_token" if repo == "expires" else "token"
        # Each of these is good for two requests.
        more = f"-{self.times(repo, 'token')}" if repo == "expires" else ""
        return self.answer(200, json.dumps({key: f"secret-{repo}{more}"}).encode(), [("Content-Type", "application/json")])

    def tags(self, repo, query):
        """2500 tags in pages of at most 1000, or what the repository's name says."""
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
        data = MANIFESTS.get(name) if name.startswith("sha256:") else TAGS.get(repo, MANIFEST)
        if data is None or name == "none":
            return self.error(404, "manifest unknown")
        headers = [("Content-Type", json.loads(data).get("mediaType", OCI + "manifest.v1+json")),
                   ("Docker-Content-Digest", digest(data))]
        if repo == "few-left":
            headers += [("ratelimit-limit", "100;w=21600"), ("ratelimit-remaining", "3;w=21600")]
            if name.startswith("sha256:"):
                headers += [("Warning", '299 - "this ends soon"')]
            else:
                data = INDEX
                headers[:2] = [("Content-Type", OCI + "index.v1+json")]
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
        if data is None or repo == "blob-404" and name == BIG:
            return self.error(404, "blob unknown")
        if repo == "redirect":
            return self.answer(307, b"", [("Location", f"/cdn/{name}")])
        if repo in ("redirect-cdn", "bearer-cdn", "login-cdn"):
            return self.answer(307, b"", [("Location", f"https://{OTHER}/cdn/{name}")])
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
            if name != digest(CONFIG) and not second.wait(5):
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
        if repo.startswith("half") and self.times(repo) <= 1:
            self.answer(200, data[:100_000], [("Content-Length", str(len(data)))])
            return self.hang()
        if repo.startswith("half"):
            headers = [("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")] if start else []
            return self.answer(206 if start else 200, part, headers)
        if repo == "steps":
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(part)))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            for at in range(0, len(part), 16384):
                self.wfile.write(part[at:at + 16384])
                time.sleep(0.05)
            return None
        if repo == "two-seconds":
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            for at in range(0, len(data), 16384):
                self.wfile.write(data[at:at + 16384])
                time.sleep(0.1)
            return None
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
        if repo == "drip":
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            for at in range(60):
                self.wfile.write(data[at:at + 1])
                time.sleep(0.5)
            return None
        if start and repo == "broken-twice":
            return self.answer(206, part, [("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")])
        return self.answer(200, data)


server = http.server.ThreadingHTTPServer((ADDRESS, PORT), Registry)
server.daemon_threads = True
if TLS:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*TLS)
    for path in AUTHORITY:
        context.load_verify_locations(path)
        context.verify_mode = ssl.CERT_REQUIRED
    server.socket = context.wrap_socket(server.socket, server_side=True)
print("ready", flush=True)
server.serve_forever()
