"""Hostile TIFF, OME-TIFF, ImageJ, NPY, Zarr and OME-Zarr files through the readers."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from mutators import edited

from napari_tinc.arrays.inputs import check_volume
from napari_tinc.arrays.metadata import Metadata
from napari_tinc.files import read_volume, write_volume

VOLUME = np.arange(6 * 40 * 44, dtype=np.uint16).reshape(6, 40, 44)
WAYS: dict[str, dict[str, Any]] = {
    "plain": {"metadata": None},
    "tiles": {"metadata": None, "tile": (16, 16)},
    "zlib": {"metadata": None, "compression": "zlib", "rowsperstrip": 8},
    "lzw": {"metadata": None, "compression": "lzw", "predictor": True},
    "zstd": {"metadata": None, "compression": "zstd", "tile": (16, 16)},
    "ome": {"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm"}},
    "imagej": {"imagej": True, "metadata": {"axes": "ZYX", "spacing": 2, "unit": "um"}},
    "big": {"metadata": None, "bigtiff": True},
}
NUMBERS = [0, 1, 2, 3, 8, 16, 255, 2**15, 2**16 - 1, 2**16, 2**20, 2**31 - 1, 2**31, 2**32 - 1]
WORDS = ["", "\0", "\x1b[31m", "9**9**9", "..", "/etc/passwd", "../../..", "x" * 3000, "é", "\ud800"]
JSON_VALUES: list[Any] = [None, True, -1, 0, 1, 2.5, 2**31, 2**62, 1e400, [], {}, [1], [2**31] * 3, "raw", *WORDS[:7]]
DESCRIPTIONS = ["'|O'", "'<u2'", "'<f8'", "'<c16'", "'|S9'", "[('a','<u2')]", "'<M8[s]'", "'>i8'", "'|V3'", "1"]
SHAPES = [
    "(6, 40, 44)",
    "(2147483647, 2147483647, 4)",
    "(-1, 3)",
    "()",
    "(0, 4)",
    "(10**9,)",
    "(1,)*40",
    "'a'",
    "(2**62, 4)",
]
BOMB = '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {name} "{f"&{below};" * 10}">' for below, name in zip("abcdefgh", "bcdefghi", strict=True)
)  # fmt: skip


def attack(seed: int, number: int) -> str:
    """Write one hostile file, read it, and see that what comes out can be compressed and written."""
    source = random.Random(f"{seed} {number}")
    with tempfile.TemporaryDirectory() as folder:
        path = source.choice((_tiff, _tiff, _npy, _zarr, _zarr))(Path(folder), source)
        axes = source.choice((None,) * 12 + ("zyx", "yx", "tczyx", "é"))
        volume = read_volume(path, axes)
        check_volume(volume.data, volume.metadata)
        if volume.data.size < 2**20 and source.random() < 0.1:
            write_volume(Path(folder, "again.zarr"), volume.data, volume.metadata)
            read_volume(Path(folder, "again.zarr"))
    return "read"


@cache
def _tiffs() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.tif")
        made = {}
        for name, how in WAYS.items():
            tifffile.imwrite(path, VOLUME, photometric="minisblack", **how)
            made[name] = path.read_bytes()
    return made


def _tiff(folder: Path, source: random.Random) -> Path:
    way = source.choice(list(WAYS))
    data = _tiffs()[way]
    edits = [_with_entry, _with_entry, _nearby, _cut, *[_with_xml] * (3 * (way == "ome"))]
    for _ in range(source.choice((1, 1, 2, 3))):
        data = source.choice(edits)(data, source)
    path = folder / f"a{'.ome' if way == 'ome' else ''}.tif"
    path.write_bytes(data)
    return path


def _cut(data: bytes, source: random.Random) -> bytes:
    return data[: source.randrange(1, len(data))] if len(data) > 1 else data


def _with_entry(data: bytes, source: random.Random) -> bytes:
    """Give one tag of one page another type, count or value."""
    if data[:4] != b"II*\0" or len(data) < 8:
        return _nearby(data, source)
    (place,) = struct.unpack_from("<I", data, 4)
    for _ in range(source.randrange(4)):
        if place + 2 > len(data):
            return data
        (following,) = struct.unpack_from("<H", data, place)
        after = place + 2 + 12 * following
        if after + 4 > len(data) or not struct.unpack_from("<I", data, after)[0]:
            break
        (place,) = struct.unpack_from("<I", data, after)
    if place + 2 > len(data):
        return data
    (tags,) = struct.unpack_from("<H", data, place)
    entry = place + 2 + 12 * source.randrange(max(1, tags))
    if entry + 12 > len(data):
        return data
    tag, kind, count, value = struct.unpack_from("<HHII", data, entry)
    what = source.randrange(4)
    tag = source.choice((tag, 256, 257, 258, 259, 277, 322, 339)) if what == 0 else tag
    kind = source.randrange(1, 19) if what == 1 else kind
    count = source.choice(NUMBERS) if what == 2 else count
    value = source.choice((*NUMBERS, value + 1, max(0, value - 1))) if what == 3 else value
    changed = bytearray(data)
    struct.pack_into("<HHII", changed, entry, tag, kind, count % 2**32, value % 2**32)
    return bytes(changed)


def _nearby(data: bytes, source: random.Random) -> bytes:
    """Edit the first bytes, or the last, where headers and directories are."""
    cut = min(len(data), 600)
    return (
        edited(data[:cut], source) + data[cut:] if source.random() < 0.6 else data[:-cut] + edited(data[-cut:], source)
    )


def _with_xml(data: bytes, source: random.Random) -> bytes:
    """Change OME-XML in place; the length stays, or else it would only be cut."""
    start, stop = data.find(b"<?xml"), data.find(b"</OME>") + 6
    if start < 0 or stop < 6:
        return data
    text = data[start:stop]
    changes = [
        (b'SizeZ="6"', source.choice((b'SizeZ="9"', b'SizeZ="-"', b'SizeC="6"'))),
        (
            b'PhysicalSizeX="0.5"',
            source.choice((b'PhysicalSizeX="-.5"', b'PhysicalSizeX="1e9"', b'PhysicalSizeX="NaN"')),
        ),
        (b'DimensionOrder="XYCZT"', source.choice((b'DimensionOrder="XXXXX"', b'DimensionOrder="TZCYX"'))),
        (b'Type="uint16"', source.choice((b'Type="double"', b'Type="uint8" '))),
        (b"<?xml", b"<!xml"),
        (text, (BOMB.encode() + b"]><OME>&i;</OME>")[: len(text)].ljust(len(text))),
    ]
    old, new = source.choice(changes)
    return data[:start] + text.replace(old, new[: len(old)].ljust(len(old))) + data[stop:]


def _npy(folder: Path, source: random.Random) -> Path:
    path = folder / "a.npy"
    np.save(path, VOLUME)
    data = path.read_bytes()
    if source.random() < 0.6:
        said = f"{{'descr': {source.choice(DESCRIPTIONS)}, 'fortran_order': {source.choice(['True', 'False', '2'])}, "
        header = f"{said}'shape': {source.choice(SHAPES)}, }}".ljust(117).encode() + b"\n"
        data = (
            b"\x93NUMPY"
            + bytes([source.choice((1, 2, 3, 9)), 0])
            + struct.pack("<H", len(header))
            + header
            + data[128:]
        )
    if source.random() < 0.5:
        data = edited(data[:140], source) + data[140:]
    path.write_bytes(data[: source.choice((None, None, source.randrange(1, len(data))))])
    return path


@cache
def _zarrs() -> Path:
    folder = Path(tempfile.mkdtemp())
    zarr.create_array(folder / "3.zarr", data=VOLUME, chunks=(3, 16, 16))
    zarr.create_array(folder / "2.zarr", data=VOLUME, chunks=(3, 16, 16), zarr_format=2)
    zarr.create_array(folder / "s.zarr", data=VOLUME, chunks=(3, 8, 8), shards=(3, 16, 16))
    metadata = Metadata("czyx", (1.0, 2.0, 0.5, 0.5), ("", *("micrometer",) * 3), ("a", "b"), "cells")
    write_volume(folder / "o.zarr", np.stack([VOLUME] * 2), metadata)
    return folder


def _zarr(folder: Path, source: random.Random) -> Path:
    path = folder / "a.zarr"
    shutil.copytree(_zarrs() / f"{source.choice('32so')}.zarr", path)
    for _ in range(source.choice((1, 1, 2, 3))):
        files = sorted(file for file in path.rglob("*") if file.is_file() and not file.is_symlink())
        said = [file for file in files if file.name in ("zarr.json", ".zarray", ".zattrs", ".zgroup")]
        file = source.choice(said if said and source.random() < 0.7 else files)
        if file in said and source.random() < 0.8:
            try:
                fields = json.loads(file.read_text())
            except (OSError, ValueError):
                continue
            _change(fields, source)
            file.write_text(json.dumps(fields))
        elif source.random() < 0.3:
            _linked(file, path, source)
        else:
            file.write_bytes(edited(file.read_bytes() or b"x", source))
    return path


def _change(fields: Any, source: random.Random) -> None:
    """Replace, delete or add one value somewhere in a tree of JSON."""
    while True:
        keys: list[Any] = list(fields) if isinstance(fields, dict) else list(range(len(fields)))
        if not keys:
            return
        key = source.choice(keys)
        if isinstance(fields[key], dict | list) and fields[key] and source.random() < 0.7:
            fields = fields[key]
            continue
        if isinstance(fields, dict) and source.random() < 0.15:
            del fields[key]
        else:
            fields[key] = source.choice(JSON_VALUES)
        return


def _linked(file: Path, root: Path, source: random.Random) -> None:
    """Put a link in the place of a file: to itself, to nothing, to a folder, to a device, to another chunk."""
    others = sorted(other for other in root.rglob("*") if other.is_file())
    target = source.choice(
        [file, Path("nowhere"), root, Path("/dev/null"), Path("/etc/hostname"), source.choice(others)]
    )
    file.unlink()
    os.symlink(target, file)


__all__ = ["attack"]
