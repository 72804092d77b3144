"""Entropy coding of integer symbols with tables every machine computes alike.

Each tensor's symbols follow one of two zero-centred distributions with a coded scale. Its frequency table consists
of integers computed with :mod:`decimal`, whose ``exp`` and ``ln`` are correctly rounded by specification: no float
library can make two machines disagree. The range coder itself is constriction's (Bamler, 2022, arXiv 2201.01741).
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

try:
    import constriction
except ImportError:  # platforms without a wheel write and read the second coder
    constriction = None

Symbols = npt.NDArray[np.int32]

RANGE_CODER, DEFLATE = 1, 2
GAUSSIAN, LAPLACE = 0, 1
MAX_SYMBOL = 2**14 - 1
SCALE_CODES = 120
_TOTAL = 1 << 20  # a frequency over it is exact in float64, and so is all that the coder computes from it
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


def scale_of(code: int) -> float:
    """Scale s in symbols that a code stands for."""
    return float(2.0 ** (code / 8 - 2))


@lru_cache(maxsize=512)
def frequencies(model: SymbolModel) -> npt.NDArray[np.int64]:
    """Integer frequencies of the symbols ``-bound … bound``; each at least 1, their sum 2**20."""
    power = 2 if model.family == GAUSSIAN else 1
    with localcontext(_DECIMAL):
        scale = (_LN2 * (Decimal(model.scale_code) / 8 - 2)).exp()
        divisor = 2 * scale * scale if model.family == GAUSSIAN else scale
        half = [int((-Decimal(k**power) / divisor).exp().scaleb(24)) for k in range(model.bound + 1)]
    weights = half[:0:-1] + half
    spare = _TOTAL - len(weights)
    total = sum(weights)
    counts = [1 + weight * spare // total for weight in weights]
    counts[model.bound] += _TOTAL - sum(counts)
    return np.array(counts, dtype=np.int64)


def code_length(counts: npt.NDArray[np.int64], family: int, scale_code: int) -> float:
    """Bits that a model spends on symbols, by the density's closed form (an estimate within a fraction of 1 %).

    Parameters
    ----------
    counts : ndarray, shape (bound + 1,)
        How often every absolute value occurs.
    """
    magnitude, scale = np.arange(len(counts)), scale_of(scale_code)
    exponent = magnitude**2 / (2 * scale**2) if family == GAUSSIAN else magnitude / scale
    mass = 2 * np.exp(-exponent).sum() - 1
    return float((counts @ exponent + counts.sum() * np.log(mass)) / np.log(2))


def fit_model(symbols: Symbols) -> tuple[SymbolModel, float]:
    """Choose the model that codes the symbols shortest; also return its bits."""
    counts = np.bincount(np.abs(symbols.ravel()))
    bound = len(counts) - 1
    if bound == 0:
        return SymbolModel(GAUSSIAN, 0, 0), 0.0
    magnitude = np.arange(bound + 1)
    spread = {
        GAUSSIAN: np.sqrt(counts @ magnitude**2 / counts.sum()),
        LAPLACE: counts @ magnitude / counts.sum(),
    }
    candidates = []
    for family, moment in spread.items():
        centre = min(max(round(8 * (np.log2(max(moment, 0.1)) + 2)), 0), SCALE_CODES - 1)
        for code in range(max(0, centre - 6), min(SCALE_CODES, centre + 7)):
            candidates.append((code_length(counts, family, code), family, code))
    bits, family, code = min(candidates)
    return SymbolModel(family, code, bound), bits


def encode(tensors: Sequence[Symbols], models: Sequence[SymbolModel], coder: int) -> bytes:
    """Code tensors of symbols one after the other into one stream.

    Parameters
    ----------
    tensors : sequence of ndarray of int32
    models : sequence of SymbolModel
        One per tensor; its bound covers the tensor.
    coder : int
        ``RANGE_CODER`` or ``DEFLATE``.
    """
    if coder == DEFLATE:
        raw = b"".join(tensor.astype("<i2").tobytes() for tensor in tensors)
        return zlib.compress(raw, 9)
    encoder = constriction.stream.queue.RangeEncoder()
    for tensor, model in zip(tensors, models, strict=True):
        if model.bound:
            encoder.encode((tensor.ravel() + model.bound).astype(np.int32), _categorical(model))
    return bytes(encoder.get_compressed().astype("<u4").tobytes())


def decode(payload: bytes, sizes: Sequence[int], models: Sequence[SymbolModel], coder: int) -> list[Symbols]:
    """Invert :func:`encode`.

    Raises
    ------
    FormatError
        If the stream does not hold the symbols asked for, or the coder is not known or not installed.
    """
    if coder == DEFLATE:
        return _decode_deflate(payload, sizes, models)
    if coder != RANGE_CODER:
        raise FormatError(f"expected entropy coder 1 or 2, got {coder}: the file is damaged or from a newer version")
    if constriction is None:
        raise FormatError("the file needs the package 'constriction' to be decoded: install it for this Python")
    if len(payload) % 4:
        raise FormatError(f"expected whole 32-bit words in a range-coded stream, got {len(payload)} bytes")
    decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(payload, dtype="<u4").astype(np.uint32))
    tensors = []
    for size, model in zip(sizes, models, strict=True):
        if model.bound == 0:
            tensors.append(np.zeros(size, dtype=np.int32))
            continue
        try:
            tensors.append(decoder.decode(_categorical(model), size) - np.int32(model.bound))
        except (AssertionError, ValueError) as error:
            raise FormatError("a range-coded stream does not decode: the file is damaged") from error
    if not decoder.maybe_exhausted():
        raise FormatError("expected a range-coded stream to end after its symbols, got more: the file is damaged")
    return tensors


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


def default_coder() -> int:
    """Range coder where constriction is installed, else deflate."""
    return DEFLATE if constriction is None else RANGE_CODER


@lru_cache(maxsize=512)
def _categorical(model: SymbolModel) -> object:
    probabilities = frequencies(model) / _TOTAL
    return constriction.stream.model.Categorical(probabilities, perfect=False)
