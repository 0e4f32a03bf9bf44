#!/usr/bin/env python3
"""A token server for Debian's docker-registry (distribution's token specification). Python's standard library, and openssl.

usage: token-server.py ADDRESS PORT LOG CERTIFICATE KEY

Gives a token for what is asked for to user:secret and to nobody else, signed with KEY, whose certificate it carries along.
"""
import base64
import http.server
import json
import ssl
import subprocess
import sys
import time
import urllib.parse

ADDRESS, PORT, LOG, CERTIFICATE, KEY = sys.argv[1], int(sys.argv[2]), *sys.argv[3:6]
LOGIN = "Basic " + base64.b64encode(b"user:secret").decode()


def plain(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signature(text):
    """ES256: the two numbers of OpenSSL's DER, 32 bytes each."""
    der = subprocess.run(["openssl", "dgst", "-sha256", "-sign", KEY], input=text.encode(), stdout=subprocess.PIPE, check=True).stdout
    numbers, at = [], 2
    for _ in range(2):
        length = der[at + 1]
        numbers.append(der[at + 2:at + 2 + length].lstrip(b"\0").rjust(32, b"\0"))
        at += 2 + length
    return plain(b"".join(numbers))


def token(scope):
    kind, name, actions = scope.split(":")
    certificate = ssl.PEM_cert_to_DER_cert(open(CERTIFICATE).read())
    now = int(time.time())
    head = {"typ": "JWT", "alg": "ES256", "x5c": [base64.b64encode(certificate).decode()]}
    body = {"iss": "tests", "aud": "real", "sub": "user", "nbf": now - 5, "iat": now, "exp": now + 60, "jti": str(now),
            "access": [{"type": kind, "name": name, "actions": actions.split(",")}]}
    text = ".".join(plain(json.dumps(part).encode()) for part in (head, body))
    return f"{text}.{signature(text)}"


class Tokens(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        auth = self.headers.get("Authorization", "-")
        with open(LOG, "a") as log:
            log.write(f"GET {self.path} {auth}\n")
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        good = auth == LOGIN and query.get("service") == ["real"]
        body = json.dumps({"token": token(query["scope"][0])} if good else {"errors": [{"code": "DENIED", "message": "no"}]})
        self.send_response(200 if good else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())


open(LOG, "a").close()
server = http.server.ThreadingHTTPServer((ADDRESS, PORT), Tokens)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(CERTIFICATE, KEY)
server.socket = context.wrap_socket(server.socket, server_side=True)
print("ready", flush=True)
server.serve_forever()
