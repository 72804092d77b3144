"""The directional layer's segment in a frame, specified in ``docs/format.md``."""

from __future__ import annotations

import math

from napari_tinc.directional.layer import CodedDirections
from napari_tinc.directional.layout import LEAST_CODE, MAX_TILE, MAX_VOXELS, ROOT_CODES, Layout
from napari_tinc.directional.prediction import RULES
from napari_tinc.format.cursor import Cursor, integer, u16, varint
from napari_tinc.quantiser import STEP_CODES

# The code of the rules is in the highest bits of the first side code.
_RULES_SHIFT = 6


def pack_directions(coded: CodedDirections) -> bytes:
    """Store a directional layer: how it is cut and quantised, the lengths of its streams, the streams."""
    return b"".join([_head(coded), *coded.streams])


def packed_directions_size(coded: CodedDirections) -> int:
    """Bytes of what :func:`pack_directions` returns."""
    return len(_head(coded)) + sum(map(len, coded.streams))


def _head(coded: CodedDirections) -> bytes:
    layout = coded.layout
    first, *others = layout.root_codes
    parts = [
        bytes([first | coded.rules.code << _RULES_SHIFT, *others]),
        *map(varint, layout.roots),
        u16(coded.step_code),
        bytes(coded.offsets),
    ]
    return b"".join([*parts, *(varint(len(stream)) for stream in coded.streams)])


def parse_directions(payload: bytes, spatial: tuple[int, ...]) -> CodedDirections:
    """Invert :func:`pack_directions` for a volume of this spatial shape.

    Raises
    ------
    FormatError
        If the payload is not a directional layer of such a volume.
    """
    cursor = Cursor(payload, 0, "a directional segment")
    shape = (1,) * (3 - len(spatial)) + spatial
    integer("voxels of an item with directions", math.prod(shape), 1, MAX_VOXELS)
    first, *others = (cursor.u8("the side of a root block") for _ in shape)
    rules, first = divmod(first, 1 << _RULES_SHIFT)
    codes = tuple(
        integer("side code of a root block", code, ROOT_CODES[0], ROOT_CODES[-1]) for code in (first, *others)
    )
    integer("longest side code of a root block", max(codes), LEAST_CODE, ROOT_CODES[-1])
    roots = tuple(
        integer("root blocks of a tile", cursor.varint("the root blocks of a tile"), 1, -(-n >> code))
        for n, code in zip(shape, codes, strict=True)
    )
    layout = Layout(shape, codes, roots)  # type: ignore[arg-type]
    integer("voxels of a tile", math.prod(layout.tile_sides), 1, MAX_TILE)
    step_code = integer("step code", cursor.u16("the step code"), 0, STEP_CODES - 1)
    offsets = cursor.u8("a reconstruction offset"), cursor.u8("a reconstruction offset")
    return CodedDirections(layout, RULES[rules], step_code, offsets, cursor.streams(layout.tiles))


__all__ = ["pack_directions", "packed_directions_size", "parse_directions"]
