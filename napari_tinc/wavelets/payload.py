"""The wavelet layer's segment in a frame, specified in ``docs/format.md``."""

from __future__ import annotations

import math

from napari_tinc.errors import FormatError
from napari_tinc.format.cursor import Cursor, integer, u16, varint, zigzag
from napari_tinc.quantiser import STEP_CODES
from napari_tinc.wavelets.blocks import MAX_BLOCK, SIDE_CODES, CodedWavelets, Pyramid, WaveletHead
from napari_tinc.wavelets.coefficients import LARGEST

# Every axis of 2**31 voxels split by itself.
_MAX_OCTAVES = 3 * 31


def pack_wavelets(coded: CodedWavelets) -> bytes:
    """Store a wavelet layer: how it is cut and quantised, the lengths of its streams, the streams."""
    return b"".join([_head(coded), coded.trunk, *coded.streams])


def packed_wavelets_size(coded: CodedWavelets) -> int:
    """Bytes of what :func:`pack_wavelets` returns."""
    return len(_head(coded)) + len(coded.trunk) + sum(map(len, coded.streams))


def _head(coded: CodedWavelets) -> bytes:
    head, pyramid = coded.head, coded.head.pyramid
    masks = [sum(1 << axis for axis in axes) for axes in pyramid.splits]
    parts = [bytes([pyramid.side.bit_length() - 1, len(masks), *masks]), u16(head.step_code), bytes(head.offsets)]
    parts += [zigzag(head.dc), varint(len(coded.trunk))]
    return b"".join([*parts, *(varint(len(stream)) for stream in coded.streams)])


def parse_wavelets(payload: bytes, spatial: tuple[int, ...]) -> CodedWavelets:
    """Invert :func:`pack_wavelets` for a volume of this spatial shape.

    Raises
    ------
    FormatError
        If the payload is not a wavelet layer of such a volume.
    """
    cursor = Cursor(payload, 0, "a wavelet segment")
    shape = (1,) * (3 - len(spatial)) + spatial
    side = integer("block side code", cursor.u8("the block side"), SIDE_CODES[0], SIDE_CODES[-1])
    pyramid = Pyramid(shape, _splits_of(cursor, shape), 2**side)  # type: ignore[arg-type]
    for octave in range(pyramid.octaves):
        symbols = len(pyramid.orientations(octave)) * math.prod(s.stop for s in pyramid.box(octave, (0, 0, 0)))
        integer("symbols of a block", symbols, 1, MAX_BLOCK)
    step_code = integer("step code", cursor.u16("the step code"), 0, STEP_CODES - 1)
    offsets = cursor.u8("a reconstruction offset"), cursor.u8("a reconstruction offset")
    dc = integer("low-pass symbol", cursor.zigzag("the low-pass symbol"), -LARGEST, LARGEST)
    trunk, *streams = cursor.streams(1 + pyramid.blocks)
    return CodedWavelets(WaveletHead(pyramid, step_code, offsets, dc), trunk, tuple(streams))


def _splits_of(cursor: Cursor, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Read which axes each octave splits: the longest among them, and in the end all down to one sample."""
    sides, splits = list(shape), []
    for _ in range(integer("octaves", cursor.u8("the octaves"), 0, _MAX_OCTAVES)):
        mask = integer("split axes of an octave", cursor.u8("the split axes"), 1, 7)
        axes = tuple(axis for axis in range(3) if mask >> axis & 1)
        # The longest, or else a coarse octave might have nearly as many samples as the volume.
        if any(sides[axis] < 2 for axis in axes) or any(sides[a] == max(sides) and a not in axes for a in range(3)):
            raise FormatError(
                f"expected octaves that split the longest axes, and none of 1 sample, got {axes} of {sides}: "
                "damaged file"
            )
        sides = [(n + 1) // 2 if axis in axes else n for axis, n in enumerate(sides)]
        splits.append(axes)
    if sides != [1, 1, 1]:
        raise FormatError(f"expected octaves down to one coefficient, got {sides}: damaged file")
    return tuple(splits)


__all__ = ["pack_wavelets", "packed_wavelets_size", "parse_wavelets"]
