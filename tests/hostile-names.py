#!/usr/bin/env python3
"""Names that are none, the same ones in every run, and what every tool makes of them.

usage: hostile-names.py REGISTRY COUNT REAL...

REGISTRY (host:port) is asked for REGISTRY/NAME. REAL are ids and names of what is there, of which the others are near: no
word that comes out is one of them, or the beginning of a container's id, which means it. What a name may be is said here once more, as the specification has it, and must agree.
"""
import random
import re
import subprocess
import sys

REGISTRY, COUNT, REAL = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
TAG, DIGEST = "[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", "sha256:[0-9a-f]{64}"
NAME = re.compile(rf"(?=[^:@]{{1,250}}([:@]|\Z)){PART}(?:/{PART})*(?::{TAG})?(?:@{DIGEST})?", re.ASCII)
FIXED = ["", ".", "..", "/", "//", "path", "level", "ID", "gen", "top", "@", ":", "-", "--", "-x", "--help", "--root=/", "*", "?",
         "~", "$HOME", "`id`", "$(id)", ";", "|", "a b", " ", "\n", "a\n", "\na", "\t", "\r", "\x1b[2J", "\x7f", "\\", "%2f", "a%2fb", "%2e%2e",
         "%00", "../..", "../../etc/passwd", "/etc/passwd", "a/../b", "./a", "a/.", "a/..", "a//b", "a/", "names", "layers", ".new_x",
         "img_", "ps_", "img_*", "ps_?????", "img_42001", "img_107535", "ps_042045", "ps_+42045", "vol_x", "0", "-1", "é", "ａ", "аdmin",
         "a\u200bb", "\u202ea", "a\u2024b", "a\u2044b", "a\u0338", "x" * 10_000, "/" * 10_000, "../" * 3_000, "a/" * 5_000 + "a",
         "x:" + "y" * 10_000, "a@sha256:" + "0" * 64 + "0", "a@sha256:" + "A" * 64, "a@md5:" + "0" * 32, "A", "a:b:c", "a::b", "a:@b",
         "host:0/a", "[::1/a", "user:secret@host/a", "http://a/b", "file:///etc/passwd"]
# Characters that look like those of a name, or mean something to somebody.
ODD = [*"./:@-_%*?~$ \n\t\\'\"`\x01\x7f", "é", "о", "ѕ", "１", "٥", "‐", "⁄", "․", "\u200b", "\u202e", "\u0301", "\udcff", "..", "%2f", "%00", "A"]


def near(draw):
    """One of the real ones with something wrong, or a word of odd characters."""
    if draw.random() < 0.3:
        return "".join(draw.choice([*ODD, *"ab0"]) for _ in range(draw.randrange(1, 12)))
    word = draw.choice(REAL)
    for _ in range(draw.randrange(1, 3)):
        at = draw.randrange(len(word) + 1)
        word = word[:at] + draw.choice(["", draw.choice(ODD), draw.choice(ODD), word[at:at + 1] * 2]) + word[at + draw.randrange(2):]
    return word


def run(*words, stdin=None):
    done = subprocess.run([word.encode("utf-8", "surrogateescape") for word in words], input=stdin, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, **({} if stdin else {"stdin": subprocess.DEVNULL}))
    lines = done.stderr.decode(errors="replace").splitlines()
    assert "panicked" not in done.stderr.decode(errors="replace") and len(lines) == 1 and len(lines[0]) < 600, (words, lines)
    assert not re.search(r"[\x00-\x1f\x7f]", lines[0]), (words, lines)
    # A pipe is told that there is no more.
    assert done.stdout in (b"", b"failed\n"), (words, done.stdout)
    return done.returncode


draw = random.Random(27)
names = [*FIXED, *(f(real) for real in REAL for f in (str.upper, lambda x: x + "\n", lambda x: " " + x, lambda x: x + "/", lambda x: x + "/rootfs",
                                                     lambda x: x[:-1], lambda x: x + "0", lambda x: "./" + x, lambda x: x + "/../" + x))]
while len(names) < COUNT:
    names.append(near(draw))
same = {real.lower() for real in REAL}
begins = {mark + real[3:end] for real in REAL if real.startswith("ps_") for end in range(4, 10) for mark in ("ps_", "")}
good = 0
for at, name in enumerate(names):
    if name in begins or name.lower() in same and name not in FIXED and not name.isupper():
        continue
    if NAME.fullmatch(name):
        # Nothing is wrong with it: the registry is asked.
        good += 1
        done = subprocess.run(["bocker-pull", "digest", "--", f"{REGISTRY}/near/{name}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert done.returncode == ("@" in name), (name, done)
    else:
        status = run("bocker-pull", "digest", "--", f"{REGISTRY}/{name}")
        assert status == 2, (name, status)
        assert name == "-" or run("bocker-pull", "digest", "--", name) == 2 or re.match(r"[^/]*[.:\[]|localhost", name), name
    # Nothing here is called that.
    for words in (("bocker", "rm"), ("bocker", "rmi"), ("bocker-store", "path"), ("bocker-store", "volume", "rm"), ("bocker-net", "down"),
                  ("bocker-cg", "delete"), ("bocker", "exec"), ("bocker", "logs"), ("bocker-store", "snapshot"), ("bocker-store", "commit"))[
                      at % 2::2]:
        if name == "-" or words[1] == "exec" and name == "":
            continue
        more = {"exec": ["true"], "commit": ["new"]}.get(words[1], [])
        status = run(*words, "--", name, *more)
        assert status in (1, 2, 125), (words, name, status)
# What cannot be a word of a command line.
assert run("bocker-pull", "digest", "-", stdin=f"{REGISTRY}/a\0b\n".encode()) == 2
print(len(names), good)
