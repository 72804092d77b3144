"""Decoders of the parameters in files of before the mixing coder: tables and a range coder, or deflate.

Each tensor's symbols follow one of two zero-centred distributions with a coded scale. Its frequency table consists
of integers computed with :mod:`decimal`, whose ``exp`` and ``ln`` are correctly rounded by specification: no float
library can make two machines disagree. The range coder was that of the package constriction (Bamler, 2022, arXiv
2201.01741), which the tests hold this one against.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from napari_tinc.errors import FormatError
from napari_tinc.format.cursor import Cursor
from napari_tinc.kernels import compiled
from napari_tinc.networks.entropy import MAX_SYMBOL, Symbols

RANGE_CODER, DEFLATE = 1, 2
GAUSSIAN, LAPLACE = 0, 1
SCALE_CODES = 120
_TOTAL = 1 << 20  # a frequency over it is exact in float64, and so is all that the coder computes from it
# Symbols' intervals are parts of 2**24; the symbol of a place is looked for among those of its 4096th.
_PRECISION, _BUCKET_BITS = 24, 12
# Spelt out, and used for every operation: the settings of the program around must not reach the tables.
_DECIMAL = Context(prec=30, rounding=ROUND_HALF_EVEN, Emin=-999999, Emax=999999, capitals=1, clamp=0, traps=[])
_LN2 = _DECIMAL.ln(Decimal(2))


@dataclass(frozen=True, slots=True)
class SymbolModel:
    """Distribution of one tensor's symbols.

    Parameters
    ----------
    family : int
        ``GAUSSIAN``: p(k) ∝ exp(-k²/2s²), or ``LAPLACE``: p(k) ∝ exp(-|k|/s).
    scale_code : int
        s = 2**(scale_code / 8 - 2) symbols; below ``SCALE_CODES``.
    bound : int
        Largest absolute symbol; 0 means that all symbols are 0.
    """

    family: int
    scale_code: int
    bound: int


@lru_cache(maxsize=512)
def frequencies(model: SymbolModel) -> npt.NDArray[np.int64]:
    """Integer frequencies of the symbols ``-bound … bound``; each at least 1, their sum 2**20."""
    power = 2 if model.family == GAUSSIAN else 1
    with localcontext(_DECIMAL):
        scale = (_LN2 * (Decimal(model.scale_code) / 8 - 2)).exp()
        divisor = 2 * scale * scale if model.family == GAUSSIAN else scale
        half = []
        for k in range(model.bound + 1):
            half.append(int((-Decimal(k**power) / divisor).exp().scaleb(24)))
            if not half[-1]:  # nor is any further one
                half += [0] * (model.bound - k)
                break
    weights = half[:0:-1] + half
    spare = _TOTAL - len(weights)
    total = sum(weights)
    counts = [1 + weight * spare // total for weight in weights]
    counts[model.bound] += _TOTAL - sum(counts)
    return np.array(counts, dtype=np.int64)


def decode(payload: bytes, sizes: Sequence[int], models: Sequence[SymbolModel], coder: int) -> list[Symbols]:
    """Decode tensors of symbols, one after the other in one stream.

    Parameters
    ----------
    payload : bytes
    sizes : sequence of int
        Symbols of every tensor.
    models : sequence of SymbolModel
        One per tensor.
    coder : int
        ``RANGE_CODER`` or ``DEFLATE``.

    Raises
    ------
    FormatError
        If the stream does not hold the symbols asked for.
    """
    if coder == DEFLATE:
        return _decode_deflate(payload, sizes, models)
    if len(payload) % 4:
        raise FormatError(f"expected whole 32-bit words in a range-coded stream, got {len(payload)} bytes")
    return _decode_range(np.frombuffer(payload, dtype="<u4").astype(np.uint64), sizes, models)


def read_model(cursor: Cursor) -> SymbolModel:
    """Read a tensor's symbol model from the head of a segment.

    Raises
    ------
    FormatError
        If the head ends within it, or it is none.
    """
    packed, bound = cursor.u8("symbol model"), cursor.varint("symbol bound")
    if packed & 127 >= SCALE_CODES or bound > MAX_SYMBOL:
        raise FormatError(
            f"expected a symbol model below scale {SCALE_CODES} and bound {MAX_SYMBOL + 1}, got {packed & 127} and "
            f"{bound}: damaged file"
        )
    return SymbolModel(packed >> 7, packed & 127, bound)


def _decode_range(words: npt.NDArray[np.uint64], sizes: Sequence[int], models: Sequence[SymbolModel]) -> list[Symbols]:
    first, second = (int(words[i]) if i < len(words) else 0 for i in (0, 1))
    # How far into the interval the stream points, the interval's width, and the next word.
    state = np.array([first << 32 | second, 2**64 - 1, 2], np.uint64)
    tensors, coded = [], False
    for size, model in zip(sizes, models, strict=True):
        symbols = np.zeros(size, dtype=np.int32)
        tensors.append(symbols)
        if model.bound == 0 or size == 0:  # the tables of a model cost time, which nothing must be worth
            continue
        coded = True
        if not _take(words, state, *_intervals(model), model.bound, symbols):
            raise FormatError("a range-coded stream does not decode: the file is damaged")
    if int(state[2]) < len(words) or (coded and int(state[0]) >= 2**33 - 1):
        raise FormatError("expected a range-coded stream to end after its symbols, got more: the file is damaged")
    return tensors


@compiled
def _take(words, state, left, buckets, bound, out):  # type: ignore[no-untyped-def]
    """Decode the symbols of a tensor; return whether the stream has them."""
    inside, width, position = state[0], state[1], np.int64(state[2])
    # Unsigned, all of them: numba makes floats of an unsigned and a signed number.
    precision, word, bucket = np.uint64(_PRECISION), np.uint64(32), np.uint64(_PRECISION - _BUCKET_BITS)
    whole, narrow = np.uint64(1 << _PRECISION), np.uint64(1 << 32)
    for i in range(out.size):
        unit = width >> precision
        place = inside // unit
        if place >= whole:
            return False
        low, high = buckets[np.int64(place >> bucket)], buckets[np.int64(place >> bucket) + 1]
        while low < high:
            middle = (low + high + 1) >> 1
            if left[middle] <= place:
                low = middle
            else:
                high = middle - 1
        out[i] = low - bound
        inside -= unit * left[low]
        width = unit * (left[low + 1] - left[low])
        if width < narrow:
            width <<= word
            inside = inside << word | (words[position] if position < words.size else np.uint64(0))
            position += 1
    state[0], state[1], state[2] = inside, width, np.uint64(position)
    return True


def _decode_deflate(payload: bytes, sizes: Sequence[int], models: Sequence[SymbolModel]) -> list[Symbols]:
    expected = 2 * sum(sizes)
    inflater = zlib.decompressobj()
    try:
        raw = inflater.decompress(payload, expected + 1)
    except zlib.error as error:
        raise FormatError(f"a deflated stream does not decode ({error}): the file is damaged") from error
    if len(raw) != expected or not inflater.eof or inflater.unused_data:
        raise FormatError(f"expected {expected} bytes in a deflated stream, got another number: the file is damaged")
    flat = np.frombuffer(raw, dtype="<i2").astype(np.int32)
    tensors = np.split(flat, np.cumsum(sizes)[:-1])
    for tensor, model in zip(tensors, models, strict=True):
        if tensor.size and np.abs(tensor).max() > model.bound:
            raise FormatError("a deflated stream holds symbols beyond their bound: the file is damaged")
    return tensors


@lru_cache(maxsize=512)
def _intervals(model: SymbolModel) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Where symbols begin in 2**24, and 2**24; the symbol at the start of every 4096th, and the last symbol."""
    table = frequencies(model)
    count = len(table)
    before = np.cumsum(table) - table
    left = np.append(before * ((1 << _PRECISION) - count) // _TOTAL + np.arange(count), 1 << _PRECISION)
    starts = np.arange(1 << _BUCKET_BITS) << _PRECISION - _BUCKET_BITS
    buckets = np.append(np.searchsorted(left, starts, side="right") - 1, count - 1)
    return left.astype(np.uint64), buckets.astype(np.int64)


__all__ = ["DEFLATE", "RANGE_CODER", "SymbolModel", "decode", "read_model"]
