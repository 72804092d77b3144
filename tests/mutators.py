"""Damage with checksums that hold; ``benchmarks/attack.py`` uses it, too."""

from __future__ import annotations

import random
from dataclasses import replace

from napari_tinc.format import Frame, pack


def varint(value: int) -> bytes:
    groups = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([group | 0x80 for group in groups[:-1]] + groups[-1:])


def with_plan(frame: Frame, plan: bytes) -> bytes:
    return pack(replace(frame, header=replace(frame.header, plan=plan)))


def with_payload(frame: Frame, index: int, payload: bytes) -> bytes:
    """Replace a segment and put a checksum that holds on it."""
    parts = list(frame.segments)
    parts[index] = replace(parts[index], payload=payload)
    return pack(replace(frame, segments=tuple(parts)))


def flipped(content: bytes, bit: int) -> bytes:
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def edited(content: bytes, source: random.Random) -> bytes:
    """Change, insert or delete up to four bytes, or cut the end off."""
    damaged = bytearray(content)
    for _ in range(source.randint(1, 4)):
        position = source.randrange(len(damaged))
        edit = source.choice(["change", "change", "insert", "delete", "cut"])
        if edit == "change":
            damaged[position] = source.randrange(256)
        elif edit == "insert":
            damaged.insert(position, source.randrange(256))
        elif len(damaged) > 1:
            del damaged[position : None if edit == "cut" and position else position + 1]
    return bytes(damaged)
