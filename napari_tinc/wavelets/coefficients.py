"""Context-mixing entropy coding of quantised wavelet coefficients, one block of all bands of a level at a time.

Every binary decision is predicted by seven adaptive probabilities, each looked up by another view of what is already
known around the coefficient: its causal neighbours, its parent one level coarser, and the same place in the bands
coded before. A small logistic mixer, trained as it codes, weighs them (Mahoney, *Adaptive Weighing of Context Models
for Lossless Data Compression*, 2005; contexts as in Wu, *High-order context modeling … of wavelet coefficients*,
1997). All of it is integer arithmetic, so that every machine decodes the same symbols; ``docs/format.md`` gives it
to the last bit. Compiled with numba, which runs it without the interpreter's lock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

Array = npt.NDArray[Any]

DECODE, ENCODE, CHOOSE = 0, 1, 2
INPUTS = 7
KINDS = 6
LARGEST = 2**24
_FLAG = 5
_CELL = 4
_SETS = 3
# Magnitudes in sums are at most this, so that the sums stay small.
_CLIPPED = 255
_CROSS = ((0, 0, 0, 4), (-1, 0, 0, 1), (1, 0, 0, 1), (0, -1, 0, 1), (0, 1, 0, 1), (0, 0, -1, 1), (0, 0, 1, 1))
_BYPASS = 32768
_LEARNING_RATE = 14
_LEAST = 32
_SATURATED = 250
# Where the contexts of each input start: fine x orientation, fine x parent, fine x sibling, …; see `_contexts`.
_STARTS = (0, 80, 150, 220, 500, 516, 543)
CONTEXTS = 544
# Magnitudes from this on round to the nearest symbol; below, `CHOOSE` asks what a symbol costs.
_SHRINK = 0.08
# Bits of a sign, and what the first symbol of a neighbourhood costs those around it.
_NEW_BITS, _MORE_BITS = 1.5, 1.0
_WORTH_TRYING = 0.6


def _steps(*edges: int) -> Array:
    """Lookup of a quantiser of sums 0 … 1023: how many edges are not above the sum."""
    return np.searchsorted(np.array(edges), np.arange(1024), side="right").astype(np.int32)


_FINE = _steps(1, 2, 4, 6, 9, 13, 20, 32, 64)
_COARSE = _steps(1, 3, 6, 12, 24, 60)
_FIVE = _steps(1, 4, 12, 40)
_THREE = _steps(1, 2)
_TOTAL = _steps(1, 2, 3, 5, 7, 10, 14, 19, 26, 36, 50, 70, 100, 160, 300)
_RATES = np.array([int(65536 / (n + 1.6)) for n in range(_SATURATED + 1)], np.int32)
# tests/test_coefficients.py shows that no entry is near enough to a half for floats to round it differently.
_SQUASH = np.array(
    [min(65520, max(16, math.floor(65536 / (1 + math.exp(-x / 256)) + 0.5))) for x in range(-2048, 2048)], np.int32
)
_STRETCH = np.array(
    [max(-2047, min(2047, math.floor(256 * math.log((i + 0.5) / (4095.5 - i)) + 0.5))) for i in range(4096)], np.int32
)


@dataclass(frozen=True, eq=False)
class Statistics:
    """What the coder has learnt: the probabilities of all contexts and the weights of the mixer.

    Parameters
    ----------
    probabilities, counts : ndarray of int32, shape (KINDS * CONTEXTS,)
        Probability of a one in 65536ths, and how many decisions it has seen.
    weights : ndarray of int32, shape (KINDS * 3, INPUTS)
        In 65536ths.
    """

    probabilities: Array
    counts: Array
    weights: Array

    @classmethod
    def fresh(cls) -> Statistics:
        """Know nothing."""
        probabilities = np.full(KINDS * CONTEXTS, 32768, np.int32)
        weights = np.full((KINDS * _SETS, INPUTS), 19660, np.int32)
        return cls(probabilities, np.zeros(KINDS * CONTEXTS, np.int32), weights)

    def copy(self) -> Statistics:
        """Return an independent copy: what a block learns must not reach its siblings."""
        return Statistics(self.probabilities.copy(), self.counts.copy(), self.weights.copy())


@dataclass(frozen=True, eq=False)
class Parent:
    """The block one level coarser that covers a block.

    Parameters
    ----------
    symbols : ndarray of int32, shape (bands, z, y, x)
    bands : ndarray of int32, shape (bands of the child,)
        Which of its bands has the orientation of each of the child's; -1 for none.
    origin : ndarray of int32, shape (3,)
        Where in ``symbols`` the child begins.
    factors : ndarray of int32, shape (3,)
        1 or 2: child coefficients per parent coefficient, by axis.
    """

    symbols: Array
    bands: Array
    origin: Array
    factors: Array


NO_PARENT = Parent(
    np.zeros((1, 1, 1, 1), np.int32), np.full(7, -1, np.int32), np.zeros(3, np.int32), np.ones(3, np.int32)
)


class Encoder:
    """Write blocks into one stream."""

    def __init__(self) -> None:
        self._coder = np.array([0, 0xFFFFFFFF, 0, 0], np.int64)
        self._chunks: list[bytes] = []

    def add(self, statistics: Statistics, symbols: Array, orientations: Array, parent: Parent) -> None:
        """Append a block; ``statistics`` learn from it.

        Parameters
        ----------
        statistics : Statistics
        symbols : ndarray of int32, shape (bands, z, y, x)
            Magnitudes below `LARGEST`.
        orientations : ndarray of int32, shape (bands,)
            1 … 7, bit *i* set if the band is high-pass along axis *i*.
        parent : Parent
        """
        # At most 64 bits a coefficient, but those are rare: grow when a block did not fit.
        room = symbols.size // 2 + 1024
        while True:
            buffer, coder, learnt = np.empty(room, np.uint8), self._coder.copy(), statistics.copy()
            coder[2] = 0
            _code(
                ENCODE, coder, buffer, learnt.probabilities, learnt.counts, learnt.weights, orientations,
                np.zeros_like(symbols), symbols, parent.symbols, parent.bands, parent.origin, parent.factors,
                _NO_VALUES, _NO_VALUES, 0.0,
            )  # fmt: skip
            if coder[2] <= room:
                break
            room = int(coder[2])
        self._chunks.append(buffer[: coder[2]].tobytes())
        self._coder = coder
        for own, new in zip(_arrays(statistics), _arrays(learnt), strict=True):
            own[...] = new

    def finish(self) -> bytes:
        """Return the stream: the shortest whose continuation with zeros decodes alike."""
        low, high = int(self._coder[0]), int(self._coder[1])
        tail = b""
        for count in range(1, 5):
            shift = 32 - 8 * count
            value = -(-low >> shift) << shift
            if value <= high:
                tail = value.to_bytes(4, "big")[:count]
                break
        return (b"".join(self._chunks) + tail).rstrip(b"\0")


class Decoder:
    """Read the blocks of one stream in the order they were written."""

    def __init__(self, stream: bytes) -> None:
        self._stream = np.frombuffer(stream, np.uint8).copy()
        start = int.from_bytes(stream[:4].ljust(4, b"\0"), "big")
        self._coder = np.array([0, 0xFFFFFFFF, 4, start], np.int64)

    def take(
        self, statistics: Statistics, shape: tuple[int, int, int, int], orientations: Array, parent: Parent
    ) -> Array:
        """Read a block; ``statistics`` learn from it. Any bytes decode to something, in bounded time.

        Returns
        -------
        ndarray of int32, shape ``shape``
        """
        symbols = np.zeros(shape, np.int32)
        _code(
            DECODE, self._coder, self._stream, statistics.probabilities, statistics.counts, statistics.weights,
            orientations, symbols, symbols, parent.symbols, parent.bands, parent.origin, parent.factors,
            _NO_VALUES, _NO_VALUES, 0.0,
        )  # fmt: skip
        return symbols


def choose(
    statistics: Statistics, values: Array, weights: Array, trade_off: float, orientations: Array, parent: Parent
) -> Array:
    """Quantise a block by rate and distortion, with the prices of the moment.

    Parameters
    ----------
    statistics : Statistics
        Learns from the block.
    values : ndarray of float32, shape (bands, z, y, x)
        Coefficients in steps.
    weights : ndarray of float32, shape (1 or bands, z, y, x)
        Weight of a coefficient's squared error; one block of size 1 if all weigh the same.
    trade_off : float
        Squared steps that are worth a bit.
    orientations, parent
        As in :meth:`Encoder.add`.

    Returns
    -------
    ndarray of int32, shape of ``values``
    """
    symbols = np.zeros(values.shape, np.int32)
    _code(
        CHOOSE, np.zeros(4, np.int64), _NO_BYTES, statistics.probabilities, statistics.counts, statistics.weights,
        orientations, symbols, symbols, parent.symbols, parent.bands, parent.origin, parent.factors,
        values, weights, trade_off,
    )  # fmt: skip
    return symbols


@njit(cache=True, nogil=True)
def dequantise(symbols, values, step, first, others):  # type: ignore[no-untyped-def]
    """Write what symbols stand for: ``first`` for ones, ``step`` times the magnitude less ``others`` beyond."""
    for i in range(symbols.size):
        symbol = symbols[i]
        if symbol == 0:
            values[i] = 0
            continue
        size = first if abs(symbol) == 1 else abs(symbol) * step - others
        values[i] = size if symbol > 0 else -size


_NO_BYTES = np.zeros(1, np.uint8)
_NO_VALUES = np.ones((1, 1, 1, 1), np.float32)


def _arrays(statistics: Statistics) -> tuple[Array, Array, Array]:
    return statistics.probabilities, statistics.counts, statistics.weights


@njit(cache=True, nogil=True)
def _put(coder, buffer, bit, probability):  # type: ignore[no-untyped-def]
    """Narrow the interval to the side of ``bit``; leading bytes that both ends share are written."""
    low, high = coder[0], coder[1]
    width = high - low
    middle = low + (width >> 16) * probability + (((width & 0xFFFF) * probability) >> 16)
    if bit:
        high = middle
    else:
        low = middle + 1
    while ((low ^ high) & 0xFF000000) == 0:
        if coder[2] < buffer.size:
            buffer[coder[2]] = high >> 24
        coder[2] += 1
        low = (low << 8) & 0xFFFFFFFF
        high = ((high << 8) & 0xFFFFFFFF) | 255
    coder[0], coder[1] = low, high


@njit(cache=True, nogil=True)
def _get(coder, buffer, probability):  # type: ignore[no-untyped-def]
    """Invert `_put`; past the end the stream goes on with zeros."""
    low, high, word = coder[0], coder[1], coder[3]
    width = high - low
    middle = low + (width >> 16) * probability + (((width & 0xFFFF) * probability) >> 16)
    if word <= middle:
        bit = 1
        high = middle
    else:
        bit = 0
        low = middle + 1
    while ((low ^ high) & 0xFF000000) == 0:
        low = (low << 8) & 0xFFFFFFFF
        high = ((high << 8) & 0xFFFFFFFF) | 255
        following = buffer[coder[2]] if coder[2] < buffer.size else 0
        coder[2] += 1
        word = ((word << 8) & 0xFFFFFFFF) | following
    coder[0], coder[1], coder[3] = low, high, word
    return bit


@njit(cache=True, nogil=True)
def _contexts(kind, orientation, same, parent, sibling, faces, index):  # type: ignore[no-untyped-def]
    """Look up which context every input uses, and which weights mix them."""
    near = _FINE[min(same, 1023)]
    above, beside = _COARSE[min(parent, 1023)], _COARSE[min(sibling, 1023)]
    total = _TOTAL[min(same + parent + sibling, 1023)]
    start = kind * CONTEXTS
    index[0] = start + _STARTS[0] + orientation * 10 + near
    index[1] = start + _STARTS[1] + near * 7 + above
    index[2] = start + _STARTS[2] + near * 7 + beside
    index[3] = start + _STARTS[3] + (orientation * 7 + above) * 5 + _FIVE[min(sibling, 1023)]
    index[4] = start + _STARTS[4] + total
    index[5] = start + _STARTS[5] + faces
    index[6] = start + _STARTS[6]
    return kind * _SETS + (0 if total < 4 else (1 if total < 9 else 2))


@njit(cache=True, nogil=True)
def _predict(probabilities, weights, index, row, stretched):  # type: ignore[no-untyped-def]
    """Mix the inputs in the logistic domain; return the probability of a one in 65536ths."""
    total = np.int64(0)
    for i in range(INPUTS):
        stretched[i] = _STRETCH[np.uint64(probabilities[index[i]] >> 4)]
        total += np.int64(stretched[i]) * weights[row, i]
    clipped: Any = max(-2047, min(2047, total >> 16))
    return np.int64(_SQUASH[clipped + 2048])


@njit(cache=True, nogil=True)
def _learn(probabilities, counts, weights, index, row, stretched, bit, mixed):  # type: ignore[no-untyped-def]
    """Move the weights along the gradient of the bit's cost, and every probability towards the bit."""
    error = ((bit << 16) - mixed) * _LEARNING_RATE >> 4
    for i in range(INPUTS):
        weights[row, i] = max(-(2**24), min(2**24, weights[row, i] + ((stretched[i] * error + 0x8000) >> 16)))
        context = index[i]
        old = np.int64(probabilities[context])
        new = old + ((((bit << 16) - bit - old) * _RATES[counts[context]]) >> 16)
        probabilities[context] = max(_LEAST, min(65535 - _LEAST, new))
        if counts[context] < _SATURATED:
            counts[context] += 1


@njit(cache=True, nogil=True)
def _used(symbols, band, z0, z1, y0, y1, x0, x1):  # type: ignore[no-untyped-def]
    """Count the symbols of a box that are not 0."""
    count = 0
    for z in range(z0, z1):
        for y in range(y0, y1):
            for x in range(x0, x1):
                count += symbols[band, z, y, x] != 0
    return count


@njit(cache=True, nogil=True)
def _spread(sums, z, y, x, centre, face):  # type: ignore[no-untyped-def]
    """Add to a place and its six face neighbours; ``sums`` has one place more on every side."""
    sums[z + 1, y + 1, x + 1] += centre
    sums[z, y + 1, x + 1] += face
    sums[z + 2, y + 1, x + 1] += face
    sums[z + 1, y, x + 1] += face
    sums[z + 1, y + 2, x + 1] += face
    sums[z + 1, y + 1, x] += face
    sums[z + 1, y + 1, x + 2] += face


@njit(cache=True, nogil=True)
def _spread_ahead(same, faces, z, y, x, size):  # type: ignore[no-untyped-def]
    """Tell the places that look back on this one; both arrays have one place more before, and two behind."""
    z, y, x = z + 1, y + 1, x + 1
    same[z, y, x + 1] += 3 * size
    same[z, y + 1, x] += 3 * size
    same[z + 1, y, x] += 3 * size
    same[z, y + 1, x + 1] += 2 * size
    same[z, y + 1, x - 1] += 2 * size
    same[z + 1, y, x + 1] += 2 * size
    same[z + 1, y, x - 1] += 2 * size
    same[z + 1, y + 1, x] += 2 * size
    same[z + 1, y - 1, x] += 2 * size
    same[z, y, x + 2] += size
    same[z, y + 2, x] += size
    same[z + 2, y, x] += size
    step = min(size, 2)
    faces[z, y, x + 1] += step
    faces[z, y + 1, x] += 3 * step
    faces[z + 1, y, x] += 9 * step


@njit(cache=True, nogil=True)
def _look_above(above, parent, band, origin):  # type: ignore[no-untyped-def]
    """Gather what the parent's band says of the child's places: four times the centre, and its face neighbours."""
    above[:] = 0
    _, depth, height, width = parent.shape
    last_z, last_y, last_x = above.shape[0] - 2, above.shape[1] - 2, above.shape[2] - 2
    for z in range(max(origin[0] - 1, 0), min(origin[0] + last_z + 1, depth)):
        for y in range(max(origin[1] - 1, 0), min(origin[1] + last_y + 1, height)):
            for x in range(max(origin[2] - 1, 0), min(origin[2] + last_x + 1, width)):
                size = min(abs(parent[band, z, y, x]), _CLIPPED)
                if size == 0:
                    continue
                cz, cy, cx = z - origin[0], y - origin[1], x - origin[2]
                for dz, dy, dx, factor in _CROSS:
                    pz, py, px = cz + dz, cy + dy, cx + dx
                    if 0 <= pz < last_z and 0 <= py < last_y and 0 <= px < last_x:
                        above[pz + 1, py + 1, px + 1] += factor * size


@njit(cache=True, nogil=True)
def _bits(probability):  # type: ignore[no-untyped-def]
    return -math.log2(probability / 65536.0)


@njit(cache=True, nogil=True)
def _code(  # type: ignore[no-untyped-def]
    mode, coder, buffer, probabilities, counts, weights, orientations, symbols, targets,
    parent, parent_bands, origin, factors, values, importance, trade_off,
):  # fmt: skip
    """Run over a block, band by band, cell of 4 x 4 x 4 by cell; decode, encode or choose its symbols.

    ``symbols`` is filled as the block is run over. What a symbol means for the contexts of those to come is added up
    where it is found, for most are 0: ``same`` and ``faces`` for its own band, ``beside`` for the bands after it.
    """
    bands, depth, height, width = symbols.shape
    fz, fy, fx = factors[0], factors[1], factors[2]
    # Unsigned, so that no index is looked at for being negative.
    index, stretched = np.zeros(INPUTS, np.uint64), np.zeros(INPUTS, np.int64)
    same = np.zeros((depth + 3, height + 3, width + 3), np.int32)
    faces = np.zeros((depth + 3, height + 3, width + 3), np.int32)
    beside = np.zeros((depth + 2, height + 2, width + 2), np.int32)
    above = np.zeros(((depth - 1) // fz + 3, (height - 1) // fy + 3, (width - 1) // fx + 3), np.int32)
    cells = (-(-depth // _CELL), -(-height // _CELL), -(-width // _CELL))
    filled, filled_before = np.zeros(cells, np.int32), np.zeros(cells, np.int32)
    for band in range(bands):
        covered = parent_bands[band] >= 0
        if covered:
            _look_above(above, parent, parent_bands[band], origin)
        same[:] = 0
        faces[:] = 0
        filled[:] = 0
        for cz in range(cells[0]):
            for cy in range(cells[1]):
                for cx in range(cells[2]):
                    z0, y0, x0 = cz * _CELL, cy * _CELL, cx * _CELL
                    z1, y1, x1 = min(z0 + _CELL, depth), min(y0 + _CELL, height), min(x0 + _CELL, width)
                    # Is anything in this cell?
                    west, north, up = 0, 0, 0
                    if cx > 0 and filled[cz, cy, cx - 1]:
                        west = _used(symbols, band, z0, z1, y0, y1, x0 - 1, x0)
                    if cy > 0 and filled[cz, cy - 1, cx]:
                        north = _used(symbols, band, z0, z1, y0 - 1, y0, x0, x1)
                    if cz > 0 and filled[cz - 1, cy, cx]:
                        up = _used(symbols, band, z0 - 1, z0, y0, y1, x0, x1)
                    siblings = (2 * filled_before[cz, cy, cx] + band - 1) // band if band > 0 else 0
                    covering = 0
                    if covered:
                        for z in range(origin[0] + z0 // fz, origin[0] + (z1 - 1) // fz + 1):
                            for y in range(origin[1] + y0 // fy, origin[1] + (y1 - 1) // fy + 1):
                                for x in range(origin[2] + x0 // fx, origin[2] + (x1 - 1) // fx + 1):
                                    covering += min(abs(parent[parent_bands[band], z, y, x]), _CLIPPED)
                    around = west + north + up
                    cell_faces = _THREE[west] + 3 * _THREE[north] + 9 * _THREE[up]
                    orientation = orientations[band]
                    row = _contexts(_FLAG, orientation, around, 2 * covering, siblings, cell_faces, index)
                    mixed = _predict(probabilities, weights, index, row, stretched)
                    used = 0
                    if mode == DECODE:
                        used = _get(coder, buffer, mixed)
                    elif mode == ENCODE:
                        used = 1 if _used(targets, band, z0, z1, y0, y1, x0, x1) > 0 else 0
                        _put(coder, buffer, used, mixed)
                    else:
                        for z in range(z0, z1):
                            for y in range(y0, y1):
                                for x in range(x0, x1):
                                    used |= abs(values[band, z, y, x]) >= _WORTH_TRYING
                    if mode != CHOOSE or not used:
                        _learn(probabilities, counts, weights, index, row, stretched, used, mixed)
                    if not used:
                        continue
                    found = 0
                    for z in range(z0, z1):
                        for y in range(y0, y1):
                            for x in range(x0, x1):
                                sibling = beside[z + 1, y + 1, x + 1]
                                sibling = (2 * sibling + band - 1) // band if band > 0 else 0
                                over = above[z // fz + 1, y // fy + 1, x // fx + 1] if covered else 0
                                target, value, price = 0, 0.0, 0.0
                                if mode == ENCODE:
                                    target = targets[band, z, y, x]
                                elif mode == CHOOSE:
                                    value = values[band, z, y, x]
                                    weight = importance[0, 0, 0, 0] if importance.size == 1 else importance[0, z, y, x]
                                    price = trade_off / max(weight, 1e-6)
                                symbol = _code_symbol(
                                    mode, coder, buffer, probabilities, counts, weights, orientation,
                                    same[z + 1, y + 1, x + 1], over, sibling, faces[z + 1, y + 1, x + 1],
                                    target, value, price, index, stretched,
                                )  # fmt: skip
                                if symbol != 0:
                                    symbols[band, z, y, x] = symbol
                                    found += 1
                                    _spread_ahead(same, faces, z, y, x, min(abs(symbol), _CLIPPED))
                    filled[cz, cy, cx] = found
                    if mode == CHOOSE:  # only now is it known what the flag will say
                        row = _contexts(_FLAG, orientation, around, 2 * covering, siblings, cell_faces, index)
                        mixed = _predict(probabilities, weights, index, row, stretched)
                        _learn(probabilities, counts, weights, index, row, stretched, int(found > 0), mixed)
        for cz in range(cells[0]):
            for cy in range(cells[1]):
                for cx in range(cells[2]):
                    if filled[cz, cy, cx] == 0:
                        continue
                    filled_before[cz, cy, cx] += filled[cz, cy, cx]
                    for z in range(cz * _CELL, min(cz * _CELL + _CELL, depth)):
                        for y in range(cy * _CELL, min(cy * _CELL + _CELL, height)):
                            for x in range(cx * _CELL, min(cx * _CELL + _CELL, width)):
                                size = min(abs(symbols[band, z, y, x]), _CLIPPED)
                                if size:
                                    _spread(beside, z, y, x, 3 * size, size)


@njit(cache=True, nogil=True)
def _code_symbol(  # type: ignore[no-untyped-def]
    mode, coder, buffer, probabilities, counts, weights, orientation, same, above, sibling, faces,
    target, value, price, index, stretched,
):  # fmt: skip
    """Decode, encode or choose one symbol: is it 0, is its magnitude 1, an Elias-gamma code of the rest, its sign."""
    magnitude, negative, size = 0, 0, 0.0
    if mode == ENCODE:
        magnitude, negative = abs(target), 1 if target < 0 else 0
    elif mode == CHOOSE:
        size, negative = abs(value), 1 if value < 0 else 0
        rounded = size + 0.5 - (_SHRINK if size >= 1.5 else 0.0)
        magnitude = int(min(rounded, LARGEST - 1.0))

    # Decisions 0: not zero? 1: above one? 2, 3, 4 …: another bit in what is left?
    kind, extra = 0, 0
    while True:
        row = _contexts(min(kind, 4), orientation, same, above, sibling, faces, index)
        mixed = _predict(probabilities, weights, index, row, stretched)
        if mode == CHOOSE and kind == 0 and magnitude > 0:
            bits = _bits(mixed) - _bits(65536 - mixed) + _NEW_BITS
            if size * size < (size - magnitude) * (size - magnitude) + price * bits:
                magnitude = 0
        if mode == CHOOSE and kind == 1 and magnitude == 2:
            bits = _bits(mixed) - _bits(65536 - mixed) + _MORE_BITS
            if (size - 1) * (size - 1) < (size - 2) * (size - 2) + price * bits:
                magnitude = 1
        bit = 0
        if mode == DECODE:
            bit = _get(coder, buffer, mixed)
        else:
            bit = 1 if (magnitude > kind if kind < 2 else (magnitude - 1) >> (extra + 1) > 0) else 0
            if mode == ENCODE:
                _put(coder, buffer, bit, mixed)
        _learn(probabilities, counts, weights, index, row, stretched, bit, mixed)
        if kind >= 2 and bit:
            extra += 1
        if bit == 0 or extra == 23:
            break
        kind += 1
    if mode == DECODE:
        magnitude = kind if kind < 2 else 0
    if kind >= 2:
        rest = 1
        for position in range(extra - 1, -1, -1):
            bit = ((magnitude - 1) >> position) & 1
            if mode == DECODE:
                bit = _get(coder, buffer, _BYPASS)
            elif mode == ENCODE:
                _put(coder, buffer, bit, _BYPASS)
            rest = 2 * rest + bit
        magnitude = rest + 1
    if magnitude == 0:
        return 0
    if mode == DECODE:
        negative = _get(coder, buffer, _BYPASS)
    elif mode == ENCODE:
        _put(coder, buffer, negative, _BYPASS)
    return -magnitude if negative else magnitude


__all__ = ["LARGEST", "NO_PARENT", "Decoder", "Encoder", "Parent", "Statistics", "choose", "dequantise"]
