"""Entropy coding of parameters that lie on a grid: coder 4, which has coder 3's buckets and contexts of a volume.

A latent grid is smooth here and busy there, and so is the grid one resolution finer at the same place. What decisions
are mixed from: the magnitudes of the neighbours that are known, those of the tensor before at the same place, and
averages as for other parameters. Arrays without a place in space are coded as :mod:`napari_tinc.networks.entropy` does.
``docs/format.md`` gives it to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from napari_tinc.errors import FormatError
from napari_tinc.kernels import compiled, part
from napari_tinc.mixing import INPUTS, Statistics, beginning, ended, opened
from napari_tinc.networks.entropy import (
    MOST_BYTES,
    OWN_DECISIONS,
    WEIGHT,
    Symbols,
    bucket_code,
    check_ended,
    code_matrix,
    code_symbol,
    estimated_bits,
    joined,
    parted,
)

VOLUME_CODER = 4
Shape = tuple[int, ...]
"""Of what an array holds: rows and columns of a matrix; or volumes and their planes, rows and columns."""

# Symbols may have more bits than those of matrices: one coefficient may say most of a volume.
_MOST_BITS = 22
LARGEST = 2**_MOST_BITS - 1
# Contexts behind those of matrices, and sets of weights behind theirs.
_FIRST_VIEW = 112
_STARTS = (0, 96, 180, 207, 223, 239, 255)
_MOST, _FEW = 15, 2
_AVERAGE = 48
# Buckets that the estimate tells apart.
_MOST_KNOWN = 24


def _steps(*edges: int) -> npt.NDArray[np.int64]:
    """Lookup of a quantiser of sums 0 … 1023: how many edges are not above the sum."""
    return np.searchsorted(np.array(edges), np.arange(1024), side="right").astype(np.int64)


_SAME = _steps(1, 2, 3, 5, 8, 12, 18, 26, 38, 60, 100)
_ABOVE = _steps(1, 3, 6, 12, 24, 48)
_BOTH = _steps(1, 2, 3, 5, 7, 10, 14, 19, 26, 36, 50, 70, 100, 160, 300)


def encode_latents(tensors: Sequence[Symbols], shapes: Sequence[Sequence[Shape]], codes: Sequence[int]) -> bytes:
    """Code tensors of symbols one after the other into one stream.

    Parameters
    ----------
    tensors : sequence of ndarray of int32
    shapes : sequence of sequence of tuple of int
        Per tensor: of the arrays that its symbols make up, one after the other.
    codes : sequence of int
        Per tensor, see :func:`napari_tinc.networks.entropy.bucket_code`.
    """
    parts = _parts(shapes, codes)
    symbols = joined(tensors, codes)
    coder, buffer = beginning(), np.empty((MOST_BYTES + 2) * symbols.size + 8, np.uint8)
    _code_parts(coder, buffer, Statistics.fresh(WEIGHT).model, parts, _scratch(parts), symbols, False)
    return ended(buffer[: coder[2]].tobytes(), coder)


def decode_latents(stream: bytes, shapes: Sequence[Sequence[Shape]], codes: Sequence[int]) -> list[Symbols]:
    """Invert :func:`encode_latents`.

    Raises
    ------
    FormatError
        If the stream does not hold the symbols asked for, and nothing else.
    """
    parts = _parts(shapes, codes)
    coder, symbols = opened(stream), np.zeros(int(parts[:, 2:6].prod(1).sum()), np.int32)
    content = np.frombuffer(stream, np.uint8).copy()
    if not _code_parts(coder, content, Statistics.fresh(WEIGHT).model, parts, _scratch(parts), symbols, True):
        raise FormatError(f"expected symbols up to {LARGEST} in a stream, got a larger one: the file is damaged")
    check_ended(stream, coder)
    return parted(symbols, [sum(math.prod(shape) for shape in own) for own in shapes], codes)


def estimated_latent_bits(symbols: Symbols, shapes: Sequence[Shape]) -> float:
    """Estimate what a tensor takes, within some 5 %: the entropy of its buckets given their neighbours' magnitudes.

    Never more than what :func:`napari_tinc.networks.entropy.estimated_bits` says, which knows no neighbours.
    """
    most = estimated_bits(symbols)
    code = bucket_code(symbols)
    if code == 0:
        return most
    magnitudes, total = np.abs(symbols.ravel()), 0.0
    for shape in shapes:
        here, magnitudes = np.split(magnitudes, [int(np.prod(shape))])
        if len(shape) < 4:
            return most
        buckets = np.minimum(here.reshape(shape) >> (code - 1), _MOST_KNOWN - 1)
        around = np.zeros(shape, np.int64)
        for axis in (1, 2, 3):
            ahead, behind = [slice(None)] * 4, [slice(None)] * 4
            ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
            around[tuple(ahead)] += buckets[tuple(behind)]
        joint = np.bincount(
            (np.minimum(around, _MOST_KNOWN - 1) * _MOST_KNOWN + buckets).ravel(), minlength=_MOST_KNOWN**2
        )
        counts = joint.reshape(_MOST_KNOWN, _MOST_KNOWN)
        total += float(_code_length(counts.sum(1)) - _code_length(counts.ravel()))
        total += here.size * (code - 1) + np.count_nonzero(here)
    return min(most, total)


def _code_length(counts: npt.NDArray[np.int64]) -> float:
    """Σ n log₂ n."""
    found = counts[counts > 0]
    return float(found @ np.log2(found))


def _parts(shapes: Sequence[Sequence[Shape]], codes: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return tensor, whether a volume, volumes, planes, rows, columns and bits in a bucket of every array coded."""
    parts = [
        (number, len(shape) == 4, *(1,) * (4 - len(shape)), *shape, code - 1)
        for number, (own, code) in enumerate(zip(shapes, codes, strict=True))
        for shape in own
        if code
    ]
    return np.array(parts, np.int64).reshape(-1, 7)


def _scratch(
    parts: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return room for columns of a matrix, two planes with a margin, and what the array before says of every place."""
    volumes = parts[parts[:, 1] == 1]
    plane = int(((volumes[:, 4] + 2) * (volumes[:, 5] + 2)).max(initial=0))
    size = int(volumes[:, 2:6].prod(1).max(initial=0))
    columns = np.zeros((2, int(parts[:, 5].max(initial=0))), np.int64)
    return columns, np.zeros((2, plane), np.int32), np.zeros((2, size), np.int32)


@part()
def _look_around(model, tensor, same, above, faces, mean, few):  # type: ignore[no-untyped-def]
    """Say which context every input uses for the first decision about a symbol, and which weights mix them."""
    both = _BOTH[min(same + above, 1023)]
    views = model.contexts
    views[0] = np.uint64(_FIRST_VIEW + _STARTS[0] + 12 * (tensor & 7) + _SAME[min(same, 1023)])
    views[1] = np.uint64(_FIRST_VIEW + _STARTS[1] + 7 * _SAME[min(same, 1023)] + _ABOVE[min(above, 1023)])
    views[2] = np.uint64(_FIRST_VIEW + _STARTS[2] + faces)
    views[3] = np.uint64(_FIRST_VIEW + _STARTS[3] + both)
    views[4] = np.uint64(_FIRST_VIEW + _STARTS[4] + _BOTH[min(above, 1023)])
    views[5] = np.uint64(_FIRST_VIEW + _STARTS[5] + min(mean >> 3, 15))
    views[6] = np.uint64(_FIRST_VIEW + _STARTS[6] + few)
    for i in range(INPUTS):
        model.contexts[i] *= np.uint64(OWN_DECISIONS)
    model.row = np.uint64(1 + (both >= 3) + (both >= 6))


@part()
def _sum_up(buckets, sums, count, planes, rows, columns):  # type: ignore[no-untyped-def]
    """Four times every bucket plus those of its six neighbours: what a finer grid sees of it."""
    area = rows * columns
    for volume in range(count):
        for z in range(planes):
            for y in range(rows):
                for x in range(columns):
                    at = ((volume * planes + z) * rows + y) * columns + x
                    total = 4 * buckets[at]
                    if z > 0:
                        total += buckets[at - area]
                    if z < planes - 1:
                        total += buckets[at + area]
                    if y > 0:
                        total += buckets[at - columns]
                    if y < rows - 1:
                        total += buckets[at + columns]
                    if x > 0:
                        total += buckets[at - 1]
                    if x < columns - 1:
                        total += buckets[at + 1]
                    sums[at] = total


@compiled
def _code_parts(coder, content, models, parts, scratch, symbols, decoding):  # type: ignore[no-untyped-def]
    """Encode or decode all arrays; return whether all symbols are in their bounds."""
    model, place, most_bits = models[0], 0, np.int64(_MOST_BITS)
    columns_of, planes_of, (sums, buckets) = scratch[0], scratch[1], scratch[2]
    before = np.zeros(4, np.int64)
    for number in range(len(parts)):
        tensor, bits = parts[number, 0], parts[number, 6]
        if not parts[number, 1]:
            rows, width = parts[number, 4], parts[number, 5]
            model.row = np.uint64(0)
            if not code_matrix(
                coder, content, model, tensor, rows, width, bits, columns_of, symbols, place, most_bits, decoding
            ):
                return False
            place += rows * width
            continue
        count, planes, rows, width = parts[number, 2], parts[number, 3], parts[number, 4], parts[number, 5]
        has_parent, mean, line = before[0] == count, _AVERAGE, width + 2
        at = 0
        for volume in range(count):
            here, behind = planes_of[0], planes_of[1]
            here[:] = 0
            for z in range(planes):
                here, behind = behind, here
                here[:] = 0
                for y in range(rows):
                    for x in range(width):
                        p = (y + 1) * line + x + 1
                        west, north, back = here[p - 1], here[p - line], behind[p]
                        same = 3 * (west + north + back) + 2 * (
                            here[p - line - 1]
                            + here[p - line + 1]
                            + behind[p - 1]
                            + behind[p + 1]
                            + behind[p - line]
                            + behind[p + line]
                        )
                        above = 0
                        if has_parent:
                            pz, py = z * before[1] // planes, y * before[2] // rows
                            px = x * before[3] // width
                            above = sums[((volume * before[1] + pz) * before[2] + py) * before[3] + px]
                        faces = min(west, _FEW) + 3 * min(north, _FEW) + 9 * min(back, _FEW)
                        few = min(west, 7) + min(north, 7) + min(back, 7)
                        _look_around(model, tensor, same, above, faces, mean, few)
                        symbol = code_symbol(coder, content, model, symbols[place], bits, most_bits, decoding)
                        if abs(symbol) >> most_bits:
                            return False
                        symbols[place] = symbol
                        bucket = abs(symbol) >> bits
                        mean += (16 * bucket - mean) >> 5
                        bucket = min(bucket, _MOST)
                        here[p] = bucket
                        buckets[at] = bucket
                        place += 1
                        at += 1
        _sum_up(buckets, sums, count, planes, rows, width)
        before[0], before[1], before[2], before[3] = count, planes, rows, width
    return True


__all__ = ["LARGEST", "VOLUME_CODER", "Shape", "decode_latents", "encode_latents", "estimated_latent_bits"]
