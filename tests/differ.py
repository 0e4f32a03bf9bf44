#!/usr/bin/python3
"""What two listings (tests/listing.py) say differently, a line for each path and column.

    differ.py OURS THEIRS      PATH COLUMN: OURS | THEIRS;  or PATH: only ours, PATH: only theirs
"""
import sys

COLUMNS = ("type", "mode", "owner", "time", "content", "links", "attributes", "data")


def read(name):
    with open(name, encoding="utf-8") as file:
        return {line.split("\t")[0]: line.rstrip("\n").split("\t")[1:] for line in file}


def main():
    ours, theirs = (read(name) for name in sys.argv[1:3])
    for path in sorted(ours | theirs):
        if path not in theirs or path not in ours:
            print(f"{path}: only {'ours' if path in ours else 'theirs'}")
            continue
        for column, one, other in zip(COLUMNS, ours[path], theirs[path]):
            if one != other:
                print(f"{path} {column}: {one} | {other}")


main()
