#!/usr/bin/env python3
"""Frames that a container has no right to send, and some that it has.

    forge.py send INTERFACE MAC ADDRESS OTHER_MAC OTHER_ADDRESS [ADDRESS6 OTHER_ADDRESS6]    sends one of each
    forge.py hear INTERFACE SECONDS                                prints the names of those that arrive

A frame ends with its name, so whoever hears it knows which it was.
"""
import socket
import struct
import sys
import time

ALL = b"\xff" * 6
MARK = b"forged-frame:"


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ether(to, source, kind, rest):
    return to + source + struct.pack("!H", kind) + rest


def udp(source, name):
    data = struct.pack("!HHHH", 9, 9, 8 + len(MARK + name), 0) + MARK + name
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(data), 1, 0, 64, 17, 0, socket.inet_aton(source), b"\xff" * 4)
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + data


def arp(sender_mac, sender, name):
    return struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 2, sender_mac, socket.inet_aton(sender), ALL, socket.inet_aton(sender)) + MARK + name


def router_advertisement(name):
    body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + MARK + name
    source = socket.inet_pton(socket.AF_INET6, "fe80::bad")
    return struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + source + socket.inet_pton(socket.AF_INET6, "ff02::1") + body


def neighbour_advertisement(source, target, target_mac, name, behind=b""):
    """RFC 4861, 4.4: this target is at that MAC, whatever you have heard before. `behind`: a header that comes first."""
    # The name is an option that nobody knows, in units of eight bytes.
    unknown = (b"\xfd\0" + MARK + name).ljust(64, b"\0")
    body = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + target + b"\x02\x01" + target_mac + unknown[:1] + b"\x08" + unknown[2:]
    to = socket.inet_pton(socket.AF_INET6, "ff02::1")
    total = checksum(source + to + struct.pack("!II", len(body), 58) + body)
    body = body[:2] + struct.pack("!H", total) + body[4:]
    first = 58 if not behind else 0
    return struct.pack("!IHBB", 6 << 28, len(behind + body), first, 255) + source + to + behind + body


def frames(own_mac, own, other_mac, other, own6=None, other6=None):
    a, b = mac(own_mac), mac(other_mac)
    yield "honest-ip", lambda n: ether(ALL, a, 0x0800, udp(own, n))
    yield "honest-arp", lambda n: ether(ALL, a, 0x0806, arp(a, own, n))
    yield "ip-of-another", lambda n: ether(ALL, a, 0x0800, udp(other, n))
    yield "mac-of-another", lambda n: ether(ALL, b, 0x0800, udp(own, n))
    yield "all-of-another", lambda n: ether(ALL, b, 0x0800, udp(other, n))
    yield "arp-for-another", lambda n: ether(ALL, a, 0x0806, arp(a, other, n))
    yield "arp-with-its-mac", lambda n: ether(ALL, a, 0x0806, arp(b, own, n))
    yield "arp-from-its-mac", lambda n: ether(ALL, b, 0x0806, arp(a, own, n))
    yield "arp-all-of-another", lambda n: ether(ALL, b, 0x0806, arp(b, other, n))
    yield "router-advertisement", lambda n: ether(mac("33:33:00:00:00:01"), a, 0x86DD, router_advertisement(n))
    yield "vlan", lambda n: ether(ALL, a, 0x8100, struct.pack("!HH", 7, 0x0800) + udp(own, n))
    yield "vlan-of-another", lambda n: ether(ALL, a, 0x8100, struct.pack("!HH", 7, 0x0800) + udp(other, n))
    yield "priority-tag", lambda n: ether(ALL, a, 0x8100, struct.pack("!HH", 0, 0x0800) + udp(other, n))
    yield "two-tags", lambda n: ether(ALL, a, 0x88A8, struct.pack("!HHHH", 7, 0x8100, 7, 0x0800) + udp(other, n))
    yield "unknown-protocol", lambda n: ether(ALL, a, 0x88B5, MARK + n)
    if own6:
        o, t = (socket.inet_pton(socket.AF_INET6, one) for one in (own6, other6))
        all_nodes = mac("33:33:00:00:00:01")
        yield "honest-neighbour", lambda n: ether(all_nodes, a, 0x86DD, neighbour_advertisement(o, o, a, n))
        yield "neighbour-for-another", lambda n: ether(all_nodes, a, 0x86DD, neighbour_advertisement(o, t, a, n))
        yield "neighbour-of-another", lambda n: ether(all_nodes, a, 0x86DD, neighbour_advertisement(t, t, a, n))
        # An empty hop-by-hop header before it.
        yield "neighbour-behind", lambda n: ether(all_nodes, a, 0x86DD, neighbour_advertisement(o, t, a, n, b"\x3a\0\x01\x04\0\0\0\0"))
    # The bridge takes these for itself, and learns from them.
    yield "lldp-of-another", lambda n: ether(mac("01:80:c2:00:00:0e"), b, 0x88CC, MARK + n)


def send(interface, *who):
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind((interface, 0))
        for name, build in frames(*who):
            out.send(build(name.encode()).ljust(60, b"\0"))


def hear(interface, seconds):
    heard = set()
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as inward:
        inward.bind((interface, 0))
        print("listening", file=sys.stderr, flush=True)
        end = time.monotonic() + float(seconds)
        while (left := end - time.monotonic()) > 0:
            inward.settimeout(left)
            try:
                frame, address = inward.recvfrom(2048)
            except socket.timeout:
                break
            if MARK in frame and address[2] != socket.PACKET_OUTGOING:
                heard.add(frame.split(MARK)[1].rstrip(b"\0").decode())
    print("\n".join(sorted(heard)))


if __name__ == "__main__":
    {"send": send, "hear": hear}[sys.argv[1]](*sys.argv[2:])
