#!/usr/bin/env python3
"""A proxy that knows CONNECT and nothing else, and connects to this machine whatever the host. Python's standard library only.

usage: connect-proxy.py ADDRESS PORT LOG
"""
import http.server
import select
import socket
import sys

ADDRESS, PORT, LOG = sys.argv[1], int(sys.argv[2]), sys.argv[3]


class Proxy(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_CONNECT(self):
        with open(LOG, "a") as log:
            log.write(f"CONNECT {self.path}\n")
        other = socket.create_connection(("127.0.0.1", int(self.path.split(":")[1])))
        self.send_response(200)
        self.end_headers()
        pair = {self.connection: other, other: self.connection}
        while True:
            for one in select.select(list(pair), [], [])[0]:
                data = one.recv(65536)
                if not data:
                    self.close_connection = True
                    return
                pair[one].sendall(data)


open(LOG, "a").close()
server = http.server.ThreadingHTTPServer((ADDRESS, PORT), Proxy)
print("ready", flush=True)
server.serve_forever()
