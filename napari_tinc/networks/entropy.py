"""Entropy coding of the integer symbols of a network's parameters.

A symbol's magnitude is coded as its bucket, one decision after another whether it is in a later one, by
:mod:`napari_tinc.mixing`; the bits within the bucket, and the sign, take a bit each. What decisions are mixed from: the
tensor, and the average magnitudes of the symbol's row, of its column, and of all before it, for the parameters of one
neuron tend to be as large as each other. ``docs/format.md`` gives it to the last bit, ``docs/experiments.md`` what it
gains over a range coder with a table per tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from napari_tinc.errors import FormatError
from napari_tinc.kernels import compiled, part
from napari_tinc.mixing import (
    EVEN,
    INPUTS,
    Statistics,
    beginning,
    decode,
    encode,
    ended,
    get,
    opened,
    put,
)

Symbols = npt.NDArray[np.int32]
Matrix = tuple[int, int]
"""Rows and columns of the symbols that an array holds; the last axis makes the columns."""

MIXING_CODER = 3
MAX_SYMBOL = 2**14 - 1
MAX_BUCKET_CODE = 14
# A bucket is as wide as makes the mean magnitude about this many buckets, in powers of two.
_BUCKETS_OF_THE_MEAN = 3
# Decisions that have contexts of their own, and after how many the rest is an Elias-gamma code.
OWN_DECISIONS, _DECISIONS = 8, 24
_MOST_BITS = 14
# The inputs have the same say at first.
WEIGHT = 65536 // INPUTS
# Averages are in 16ths of a bucket; contexts tell apart 16 half buckets.
_AVERAGE = 16 * _BUCKETS_OF_THE_MEAN
_TENSORS, _AVERAGES, _NEAR = 32, 16, 7
# Bits of a symbol: all decisions at their worst, both halves of the Elias-gamma code, the bucket's bits, the sign.
MOST_BYTES = (_DECISIONS * 13 + 2 * _MOST_BITS + MAX_BUCKET_CODE + 1) // 8 + 1


def bucket_code(symbols: Symbols) -> int:
    """Choose the width of a tensor's buckets: 2**(code - 1) symbols; 0 if all symbols are 0."""
    mean = np.abs(symbols).mean() if symbols.size else 0
    if mean == 0:
        return 0
    return 1 + min(max(round(math.log2(mean / _BUCKETS_OF_THE_MEAN)), 0), MAX_BUCKET_CODE - 1)


def estimated_bits(symbols: Symbols) -> float:
    """Estimate what a tensor takes, within 2 %: the code length of the better of two distributions.

    These are the discrete Gaussian, p(k) ∝ exp(-k²/2s²), and Laplace distributions, p(k) ∝ θ^|k|, with the symbols' own
    mean square and mean magnitude m: θ = (√(1 + m²) - 1) / m.
    """
    counts = np.bincount(np.abs(symbols.ravel()))
    if len(counts) < 2:
        return 0.0
    magnitude, total = np.arange(len(counts)), counts.sum()
    square, mean = counts @ magnitude**2 / total, counts @ magnitude / total
    lengths = []
    for exponent in (magnitude**2 / (2 * square), magnitude * -math.log((math.sqrt(1 + mean**2) - 1) / mean)):
        mass = 2 * np.exp(-exponent).sum() - 1
        lengths.append(float(counts @ exponent + total * np.log(mass)))
    return min(lengths) / math.log(2)


def encode_symbols(tensors: Sequence[Symbols], matrices: Sequence[Sequence[Matrix]], codes: Sequence[int]) -> bytes:
    """Code tensors of symbols one after the other into one stream.

    Parameters
    ----------
    tensors : sequence of ndarray of int32
    matrices : sequence of sequence of (int, int)
        Per tensor: rows and columns of the matrices that its symbols make up, one after the other.
    codes : sequence of int
        Per tensor, see :func:`bucket_code`.
    """
    parts = _parts(matrices, codes)
    symbols = joined(tensors, codes)
    coder, buffer = beginning(), np.empty(MOST_BYTES * symbols.size + 8, np.uint8)
    _code_parts(coder, buffer, Statistics.fresh(WEIGHT).model, parts, _scratch(parts), symbols, False)
    return ended(buffer[: coder[2]].tobytes(), coder)


def decode_symbols(stream: bytes, matrices: Sequence[Sequence[Matrix]], codes: Sequence[int]) -> list[Symbols]:
    """Invert :func:`encode_symbols`.

    Raises
    ------
    FormatError
        If the stream does not hold the symbols asked for, and nothing else.
    """
    parts = _parts(matrices, codes)
    coder, symbols = opened(stream), np.zeros(int((parts[:, 1] * parts[:, 2]).sum()), np.int32)
    content = np.frombuffer(stream, np.uint8).copy()
    if not _code_parts(coder, content, Statistics.fresh(WEIGHT).model, parts, _scratch(parts), symbols, True):
        raise FormatError(f"expected symbols up to {MAX_SYMBOL} in a stream, got a larger one: the file is damaged")
    check_ended(stream, coder)
    return parted(symbols, [sum(rows * columns for rows, columns in own) for own in matrices], codes)


def joined(tensors: Sequence[Symbols], codes: Sequence[int]) -> Symbols:
    """Return the symbols of all tensors whose code is not 0, one after the other."""
    coded = [tensor.ravel() for tensor, code in zip(tensors, codes, strict=True) if code]
    return np.concatenate([*coded, np.zeros(0, np.int32)]).astype(np.int32)


def parted(symbols: Symbols, sizes: Sequence[int], codes: Sequence[int]) -> list[Symbols]:
    """Invert :func:`joined`; tensors of so many symbols whose code is 0 are zeros."""
    tensors = []
    for size, code in zip(sizes, codes, strict=True):
        own, symbols = np.split(symbols, [size if code else 0])
        tensors.append(own if code else np.zeros(size, np.int32))
    return tensors


def check_ended(stream: bytes, coder: npt.NDArray[np.int64]) -> None:
    """Raise `FormatError` if a stream goes on after all of its symbols were read."""
    if len(stream) > coder[2]:
        more = len(stream) - int(coder[2])
        raise FormatError(f"expected a stream to end after its symbols, got {more} bytes more: the file is damaged")


def _parts(matrices: Sequence[Sequence[Matrix]], codes: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return tensor, rows, columns and bits within a bucket of every matrix that is coded."""
    parts = [
        (number % _TENSORS, rows, columns, code - 1)
        for number, (own, code) in enumerate(zip(matrices, codes, strict=True))
        for rows, columns in own
        if code
    ]
    return np.array(parts, np.int64).reshape(-1, 4)


def _scratch(parts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return room for the average and the last bucket of every column."""
    return np.zeros((2, int(parts[:, 2].max(initial=0))), np.int64)


@part()
def _look_at(model, tensor, row, column, all_before, near):  # type: ignore[no-untyped-def]
    """Say which context every input uses for the first decision about a symbol."""
    views = model.contexts
    views[0] = np.uint64(0)
    views[1] = np.uint64(1 + tensor)
    views[2] = np.uint64(1 + _TENSORS + min(row >> 3, _AVERAGES - 1))
    views[3] = np.uint64(1 + _TENSORS + _AVERAGES + min(column >> 3, _AVERAGES - 1))
    views[4] = np.uint64(1 + _TENSORS + 2 * _AVERAGES + min((row + column) >> 4, _AVERAGES - 1))
    views[5] = np.uint64(1 + _TENSORS + 3 * _AVERAGES + min(all_before >> 3, _AVERAGES - 1))
    views[6] = np.uint64(1 + _TENSORS + 4 * _AVERAGES + near)
    for i in range(INPUTS):
        model.contexts[i] *= np.uint64(OWN_DECISIONS)


@part()
def _next_decision(model):  # type: ignore[no-untyped-def]
    for i in range(INPUTS):
        model.contexts[i] += np.uint64(1)


@part()
def _encode_symbol(coder, buffer, model, symbol, bits, most_bits):  # type: ignore[no-untyped-def]
    """Its bucket, the bits in it, its sign."""
    magnitude = abs(symbol)
    bucket, passed, more = magnitude >> bits, 0, True
    while more and passed < _DECISIONS:
        more = bucket > passed
        encode(coder, buffer, model, np.int64(more))
        if more:
            passed += 1
            if passed < OWN_DECISIONS:
                _next_decision(model)
    if passed == _DECISIONS:
        rest, length = bucket - _DECISIONS + 1, 0
        while rest >> (length + 1):
            length += 1
        for i in range(min(length + 1, most_bits)):
            put(coder, buffer, np.int64(i < length), EVEN)
        for position in range(length - 1, -1, -1):
            put(coder, buffer, (rest >> position) & 1, EVEN)
    for position in range(bits - 1, -1, -1):
        put(coder, buffer, (magnitude >> position) & 1, EVEN)
    if magnitude:
        put(coder, buffer, np.int64(symbol < 0), EVEN)


@part()
def _decode_symbol(coder, stream, model, bits, most_bits):  # type: ignore[no-untyped-def]
    """Invert `_encode_symbol`."""
    magnitude = 0
    while magnitude < _DECISIONS and decode(coder, stream, model):
        magnitude += 1
        if magnitude < OWN_DECISIONS:
            _next_decision(model)
    if magnitude == _DECISIONS:
        rest, length = 1, 0
        while length < most_bits and get(coder, stream, EVEN):
            length += 1
        for _ in range(length):
            rest = 2 * rest + get(coder, stream, EVEN)
        magnitude += rest - 1
    for _ in range(bits):
        magnitude = 2 * magnitude + get(coder, stream, EVEN)
    if magnitude == 0:
        return 0
    return -magnitude if get(coder, stream, EVEN) else magnitude


@part()
def code_symbol(coder, content, model, symbol, bits, most_bits, decoding):  # type: ignore[no-untyped-def]
    """Read a symbol below 2**most_bits from the content, or write this one; return it."""
    if decoding:
        return _decode_symbol(coder, content, model, bits, most_bits)
    _encode_symbol(coder, content, model, np.int64(symbol), bits, most_bits)
    return np.int64(symbol)


@part()
def code_matrix(coder, content, model, tensor, rows, width, bits, scratch, symbols, place, most_bits, decoding):  # type: ignore[no-untyped-def]
    """Encode or decode the symbols of a matrix, from ``place`` on; return whether all are in their bounds."""
    columns, above = scratch[0], scratch[1]
    all_before = _AVERAGE
    for x in range(width):
        columns[x], above[x] = _AVERAGE, 0
    for _ in range(rows):
        row, left = all_before, 0
        for x in range(width):
            _look_at(model, tensor % _TENSORS, row, columns[x], all_before, left + above[x])
            symbol = code_symbol(coder, content, model, symbols[place], bits, most_bits, decoding)
            if abs(symbol) >> most_bits:
                return False
            symbols[place] = symbol
            bucket = abs(symbol) >> bits
            left = min(bucket, _NEAR)
            above[x] = left
            row += (16 * bucket - row) >> 3
            columns[x] += (16 * bucket - columns[x]) >> 3
            all_before += (16 * bucket - all_before) >> 5
            place += 1
    return True


@compiled
def _code_parts(coder, content, models, parts, scratch, symbols, decoding):  # type: ignore[no-untyped-def]
    """Encode or decode all matrices; return whether all symbols are in their bounds."""
    model, place = models[0], 0
    for number in range(len(parts)):
        tensor, rows, width, bits = parts[number, 0], parts[number, 1], parts[number, 2], parts[number, 3]
        if not code_matrix(
            coder, content, model, tensor, rows, width, bits, scratch, symbols, place, np.int64(_MOST_BITS), decoding
        ):
            return False
        place += rows * width
    return True


__all__ = [
    "MAX_BUCKET_CODE", "MAX_SYMBOL", "MIXING_CODER", "MOST_BYTES", "OWN_DECISIONS", "WEIGHT", "Matrix", "Symbols",
    "bucket_code", "check_ended", "code_matrix", "code_symbol", "decode_symbols", "encode_symbols", "estimated_bits",
    "joined", "parted",
]  # fmt: skip
