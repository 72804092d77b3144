"""The wavelet layer's segment in a frame, specified in ``docs/format.md``."""

from __future__ import annotations

import math

from napari_tinc.errors import FormatError, TruncatedError
from napari_tinc.format.cursor import Cursor, integer, u16, varint, zigzag
from napari_tinc.format.ranged import RangedSegment, RangedStreams
from napari_tinc.quantiser import STEP_CODES
from napari_tinc.wavelets.blocks import MAX_BLOCK, SIDE_CODES, CodedWavelets, Pyramid, WaveletHead
from napari_tinc.wavelets.coefficients import LARGEST

# Every axis of 2**31 voxels split by itself.
_MAX_OCTAVES = 3 * 31
# Of a segment that is read by ranges, what is read at first.
_FIRST = 2**12


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
    head = _parse_head(cursor, spatial)
    trunk, *streams = cursor.streams(1 + head.pyramid.blocks)
    return CodedWavelets(head, trunk, tuple(streams))


def open_wavelets(segment: RangedSegment, spatial: tuple[int, ...]) -> CodedWavelets:
    """Read no more of a segment than its head and the trunk; streams of blocks are read when they are needed.

    Raises
    ------
    FormatError
        If the segment is not a wavelet layer of such a volume, or what is at hand ends before its streams begin.
    """
    wanted = min(segment.held, _FIRST)
    while True:
        begun = segment.read(0, wanted)
        try:
            cursor = Cursor(begun, 0, "a wavelet segment")
            head = _parse_head(cursor, spatial)
            lengths = cursor.lengths(1 + head.pyramid.blocks)
            break
        except TruncatedError:
            if wanted == segment.held:
                raise
            wanted = min(segment.held, 8 * wanted)
    start = cursor.position
    if start + sum(lengths) != segment.length:
        raise FormatError(f"expected {start + sum(lengths)} bytes of wavelets, got {segment.length}: damaged file")
    end = start + lengths[0]
    held = min(end, segment.held)
    trunk = begun[start:held] if held <= len(begun) else segment.read(start, held)
    return CodedWavelets(head, trunk, RangedStreams(segment, end, lengths[1:]), held < end)


def _parse_head(cursor: Cursor, spatial: tuple[int, ...]) -> WaveletHead:
    """Read everything up to the lengths of the streams."""
    shape = (1,) * (3 - len(spatial)) + spatial
    side = integer("block side code", cursor.u8("the block side"), SIDE_CODES[0], SIDE_CODES[-1])
    pyramid = Pyramid(shape, _splits_of(cursor, shape), 2**side)  # type: ignore[arg-type]
    for octave in range(pyramid.octaves):
        symbols = len(pyramid.orientations(octave)) * math.prod(s.stop for s in pyramid.box(octave, (0, 0, 0)))
        integer("symbols of a block", symbols, 1, MAX_BLOCK)
    step_code = integer("step code", cursor.u16("the step code"), 0, STEP_CODES - 1)
    offsets = cursor.u8("a reconstruction offset"), cursor.u8("a reconstruction offset")
    dc = integer("low-pass symbol", cursor.zigzag("the low-pass symbol"), -LARGEST, LARGEST)
    return WaveletHead(pyramid, step_code, offsets, dc)


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


__all__ = ["open_wavelets", "pack_wavelets", "packed_wavelets_size", "parse_wavelets"]
