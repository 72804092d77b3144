"""Context-mixing entropy coding of quantised wavelet coefficients, one block of all bands of an octave at a time.

Every binary decision about a coefficient sees its causal neighbours, its parent one octave coarser, and the same place
in the bands coded before (contexts as in Wu, *High-order context modeling … of wavelet coefficients*, 1997);
:mod:`napari_tinc.mixing` codes it. ``docs/format.md`` gives all of it to the last bit. A block is decoded, or quantised
and encoded at once, so that a symbol is chosen by what it costs where it stands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from napari_tinc.kernels import compiled, part
from napari_tinc.mixing import (
    EVEN,
    INPUTS,
    Array,
    Statistics,
    beginning,
    ended,
    learn,
    opened,
    predict,
    put,
    refilled,
    taken,
)
from napari_tinc.wavelets.cells import CELL, Cells, packed, places_for, symbol_at, unpacked

LARGEST = 2**24
# Kinds of decisions: whether a symbol is 0, whether it is 1, the bits of what is left; and whether a cell has any.
# Not plain numbers, which would have numba compile what takes a kind once for each; nor how often a symbol is told of.
_SYMBOL, _FLAG, _TOLD = np.int64(0), np.int64(5), np.int64(1)
# Unsigned: an index that may be negative is looked at for it.
_ONE, _TWO = np.uint64(1), np.uint64(2)
_LAST_KIND = 4
_MOST_ONES = 25
_SETS = 3
# Magnitudes in sums are at most this, so that the sums stay small.
_CLIPPED = 255
# Contexts of a kind, and where those of each input start: fine x orientation, fine x parent, fine x sibling, …
_CONTEXTS = 544
_STARTS = (0, 80, 150, 220, 500, 516, 543)
# Magnitudes from 2 on are rounded down a little more than up: nearer to zero is cheaper.
_SHRINK = 0.08
# Bits of a sign, and what the first symbol of a neighbourhood costs those around it.
_NEW_BITS, _MORE_BITS = 1.5, 1.0
_WORTH_TRYING = 0.6
# Symbols after which the coder knows how many are 0.
_ENOUGH = 128
# Cells with a magnitude above this are kept without asking.
_UNDONE = 2
_BITS = np.array([-math.log2((i + 0.5) / 4096) for i in range(4096)], np.float32)
# One record, as in :mod:`napari_tinc.mixing`: of the cell that is quantised, what goes into the stream if it is used,
# and what has to be restored if it is not.
_SCRATCH = np.dtype(
    (
        np.record,
        [
            ("decisions", np.int32, 2 * _MOST_ONES * CELL**3),  # twice the probability of a one, plus the bit
            ("decided", np.int64),
            ("states", np.int32, (_LAST_KIND + 1) * _CONTEXTS),
            ("kinds", np.int64),
            ("weights", np.int32, (5 * _SETS, INPUTS)),
            ("kept", np.int64),
            ("hope", np.float64, CELL * CELL),  # what its symbols can gain at most, from a row on
        ],
    )
)


def _steps(*edges: int) -> Array:
    """Lookup of a quantiser of sums 0 … 1023: how many edges are not above the sum."""
    return np.searchsorted(np.array(edges), np.arange(1024), side="right").astype(np.uint8)


_FINE = _steps(1, 2, 4, 6, 9, 13, 20, 32, 64)
_COARSE = _steps(1, 3, 6, 12, 24, 60)
_FIVE = _steps(1, 4, 12, 40)
_THREE = _steps(1, 2)
_TOTAL = _steps(1, 2, 3, 5, 7, 10, 14, 19, 26, 36, 50, 70, 100, 160, 300)


@dataclass(frozen=True, eq=False)
class Parent:
    """The block one octave coarser that covers a block.

    Parameters
    ----------
    symbols : Cells
    bands : ndarray of int32, shape (bands of the child,)
        Which of its bands has the orientation of each of the child's; -1 for none.
    origin : ndarray of int32, shape (3,)
        Where in ``symbols`` the child begins.
    factors : ndarray of int32, shape (3,)
        1 or 2: child coefficients per parent coefficient, by axis.
    """

    symbols: Cells
    bands: Array
    origin: Array
    factors: Array


NO_PARENT = Parent(
    Cells.within(np.zeros((1, 1, 1, 1), np.int32)),
    np.full(7, -1, np.int32),
    np.zeros(3, np.int32),
    np.ones(3, np.int32),
)


class _Known(NamedTuple):
    """What is known around every place of a block: sums that what was coded has been added to, for most of it is 0."""

    ahead: Array
    """By place, one more before and two behind: 32 times the sum over causal neighbours, plus a code of three faces."""
    beside: Array
    """By place, one more on every side: the sum over the bands before."""
    coming: Array
    """The same with this band."""
    above: Array
    """By band and place of the parent, two more on every side: the sum over the parent's band."""
    over: Array
    """By band and cell: the sum over the parent's symbols of the cell."""
    cells: Array
    """By cell, one more behind: symbols that are not 0 next to it along x, y, z, in it, and in it in bands before."""
    shifts: tuple[int, int, int]
    """1 along axes where a place of the parent covers two."""
    flat: tuple[Array, Array, Array]
    """The sums of ``ahead``, ``beside`` and ``above``, each as one row."""


_WEST, _NORTH, _UP, _FOUND, _BEFORE = range(5)


def _known(shape: tuple[int, ...], parent: Parent) -> _Known:
    bands, depth, height, width = shape
    fz, fy, fx = parent.factors.tolist()
    grid = -(-depth // CELL) + 1, -(-height // CELL) + 1, -(-width // CELL) + 1
    above = np.zeros((bands, (depth - 1) // fz + 5, (height - 1) // fy + 5, (width - 1) // fx + 5), np.int32)
    over = np.zeros((bands, *grid), np.int32)
    if parent is not NO_PARENT:
        cells = parent.symbols
        _look_above(cells.places, cells.symbols, cells.width, parent.bands, parent.origin, parent.factors, above, over)
    ahead = np.zeros((depth + 3, height + 3, width + 3), np.int32)
    beside, coming = np.zeros((2, depth + 2, height + 2, width + 2), np.int32)
    shifts, flat = (fz - 1, fy - 1, fx - 1), (ahead.ravel(), beside.ravel(), above.ravel())
    return _Known(ahead, beside, coming, above, over, np.zeros((*grid, 5), np.int32), shifts, flat)


class Encoder:
    """Write blocks into one stream."""

    def __init__(self) -> None:
        self._coder = beginning()
        self._chunks: list[bytes] = []

    def add(
        self, statistics: Statistics, values: Array, weights: Array, lagrangian: float, orientations: Array,
        parent: Parent,
    ) -> tuple[Cells, Array]:  # fmt: skip
        """Quantise a block by rate and distortion, and append it: the symbols of least D + λ R.

        D is the squared error; R are the bits of what a symbol decides, by the probabilities that the coder has then
        learnt. It is minimised symbol by symbol, as each comes (rate-distortion optimised quantisation: Karczewicz, Ye
        & Chong, ITU-T VCEG-AH21, 2008), and for every cell as a whole against one of zeros (Ramchandran & Vetterli,
        *Rate-Distortion Optimal Fast Thresholding …*, IEEE Trans. Image Processing 3, 1994).

        Parameters
        ----------
        statistics : Statistics
            Learns from the block.
        values : ndarray of float32, shape (bands, z, y, x)
            Coefficients in steps. With a λ of 0 those that are whole numbers below `LARGEST` become just these symbols.
        weights : ndarray of float32, shape (1 or bands, z, y, x)
            Weight of a coefficient's squared error; one block of size 1 if all weigh the same.
        lagrangian : float
            λ: squared steps that are worth a bit.
        orientations : ndarray of int32, shape (bands,)
            1 … 7, bit *i* set if the band is high-pass along axis *i*.
        parent : Parent

        Returns
        -------
        symbols : Cells
        sums : ndarray of float64, shape (5,)
            Over all coefficients: the weighted squared error; over symbols of magnitude 1, the weights, and these
            times by how much the magnitude exceeds the coefficient's; the same two of larger symbols.
        """
        # Few symbols take more than half a byte: grow when a block did not fit.
        room = values.size // 2 + 1024
        places = places_for(values.shape)
        while True:
            symbols, sums = np.zeros(values.shape, np.int32), np.zeros(5)
            buffer, coder, learnt = np.empty(room, np.uint8), self._coder.copy(), statistics.copy()
            coder[2] = 0
            used = _encode_block(
                coder, buffer, learnt.model, orientations, _known(values.shape, parent), symbols, values, weights,
                lagrangian, np.zeros(1, _SCRATCH), sums, places,
            )  # fmt: skip
            if coder[2] <= room:
                break
            room = int(coder[2])
        self._chunks.append(buffer[: coder[2]].tobytes())
        self._coder = coder
        statistics.model[...] = learnt.model
        return Cells.at(places[:used], symbols), sums

    def finish(self) -> bytes:
        """Return the stream: the shortest whose continuation with zeros decodes alike."""
        return ended(b"".join(self._chunks), self._coder)


class Decoder:
    """Read the blocks of one stream in the order they were written."""

    def __init__(self, stream: bytes) -> None:
        self._stream = np.frombuffer(stream, np.uint8).copy()
        self._coder = opened(stream)

    @property
    def read(self) -> int:
        """Bytes that what was taken so far depends on; beyond the end of the stream they are zeros."""
        return int(self._coder[2])

    def take(
        self, statistics: Statistics, shape: tuple[int, int, int, int], orientations: Array, parent: Parent
    ) -> Cells:
        """Read a block; ``statistics`` learn from it. Any bytes decode to something, in bounded time."""
        places = places_for(shape)
        symbols = np.empty((places.size, CELL**3), np.int32)
        used = _decode_block(
            self._coder, self._stream, statistics.model, orientations, _known(shape, parent), shape, places, symbols
        )
        return Cells.of(shape, places[:used], symbols[:used])


@part(forceinline=True)
def _look_up(model, kind, orientation, same, parent, sibling, faces):  # type: ignore[no-untyped-def]
    """Say which context every input uses, and which weights mix them."""
    same, parent, sibling = np.uint64(same), np.uint64(parent), np.uint64(sibling)
    most, start, orientation = np.uint64(1023), np.uint64(kind * _CONTEXTS), np.uint64(orientation)
    near, total = np.uint64(_FINE[min(same, most)]), np.uint64(_TOTAL[min(same + parent + sibling, most)])
    above, beside = np.uint64(_COARSE[min(parent, most)]), np.uint64(_COARSE[min(sibling, most)])
    contexts = model.contexts
    contexts[0] = start + np.uint64(_STARTS[0]) + orientation * np.uint64(10) + near
    contexts[1] = start + np.uint64(_STARTS[1]) + near * np.uint64(7) + above
    contexts[2] = start + np.uint64(_STARTS[2]) + near * np.uint64(7) + beside
    row = (orientation * np.uint64(7) + above) * np.uint64(5)
    contexts[3] = start + np.uint64(_STARTS[3]) + row + np.uint64(_FIVE[min(sibling, most)])
    contexts[4] = start + np.uint64(_STARTS[4]) + total
    contexts[5] = start + np.uint64(_STARTS[5]) + np.uint64(faces)
    contexts[6] = start + np.uint64(_STARTS[6])
    model.row = np.uint64(kind * _SETS) + np.uint64(total >= 4) + np.uint64(total >= 9)


@part(forceinline=True)
def _next_kind(model):  # type: ignore[no-untyped-def]
    """Go on to the next decision about the same coefficient."""
    for i in range(INPUTS):
        model.contexts[i] += np.uint64(_CONTEXTS)
    model.row += np.uint64(_SETS)


@part()
def _share(band):  # type: ignore[no-untyped-def]
    """2**32 by the number of bands before, rounded up."""
    return (2**32 + band - 1) // band if band > 0 else 0


@part(forceinline=True)
def _per_band(total, band, share):  # type: ignore[no-untyped-def]
    """Twice what the bands before have, by their number, rounded up; without a division, for sums below 2**16."""
    return (2 * np.int64(total) + band - 1) * share >> 32


@part(forceinline=True)
def _look_at_cell(model, over, cells, orientation, band, share, z, y, x):  # type: ignore[no-untyped-def]
    west, north, up = cells[z, y, x, _WEST], cells[z, y, x, _NORTH], cells[z, y, x, _UP]
    faces = _THREE[west] + 3 * _THREE[north] + 9 * _THREE[up]
    sibling = _per_band(cells[z, y, x, _BEFORE], band, share)
    _look_up(model, _FLAG, orientation, west + north + up, over[band, z, y, x], sibling, faces)


@part()
def _predict_cell(model, over, cells, orientation, band, share, z, y, x):  # type: ignore[no-untyped-def]
    _look_at_cell(model, over, cells, orientation, band, share, z, y, x)
    return predict(model)


@part(forceinline=True)
def _row_of(known, band, z, y):  # type: ignore[no-untyped-def]
    """Say where a row of a block begins in the flat sums."""
    ahead, beside, above, shifts = known.ahead, known.beside, known.above, known.shifts
    z, y, parent = np.uint64(z), np.uint64(y), np.uint64(band) * np.uint64(above.shape[1])
    in_ahead = ((z + _ONE) * np.uint64(ahead.shape[1]) + y + _ONE) * np.uint64(ahead.shape[2]) + _ONE
    in_beside = ((z + _ONE) * np.uint64(beside.shape[1]) + y + _ONE) * np.uint64(beside.shape[2]) + _ONE
    z, y = (z >> np.uint64(shifts[0])) + _TWO, (y >> np.uint64(shifts[1])) + _TWO
    return in_ahead, in_beside, ((parent + z) * np.uint64(above.shape[2]) + y) * np.uint64(above.shape[3]) + _TWO


@part(forceinline=True)
def _look_at(model, known, row, orientation, band, share, x):  # type: ignore[no-untyped-def]
    """Say which contexts and weights a symbol of a row uses."""
    (ahead, beside, above), x = known.flat, np.uint64(x)
    seen, sibling = ahead[row[0] + x], _per_band(beside[row[1] + x], band, share)
    parent = above[row[2] + (x >> np.uint64(known.shifts[2]))]
    _look_up(model, _SYMBOL, orientation, seen >> 5, parent, sibling, seen & 31)


@part()
def _spread(sums, z, y, x, centre, face):  # type: ignore[no-untyped-def]
    """Add to a place and its six face neighbours."""
    sums[z, y, x] += centre
    sums[z - 1, y, x] += face
    sums[z + 1, y, x] += face
    sums[z, y - 1, x] += face
    sums[z, y + 1, x] += face
    sums[z, y, x - 1] += face
    sums[z, y, x + 1] += face


@compiled
def _look_above(places, symbols, width, bands, origin, factors, above, over):  # type: ignore[no-untyped-def]
    """Gather what the parent says of the child's places, and of its cells."""
    _, depth, height, length = above.shape
    depth, height, length = depth - 4, height - 4, length - 4
    for i in range(places.size):
        own, z0, y0, x0 = unpacked(np.int64(places[i]))
        z0, y0, x0 = z0 - origin[0], y0 - origin[1], x0 - origin[2]
        for z in range(max(z0, -1), min(z0 + CELL, depth + 1)):
            for y in range(max(y0, -1), min(y0 + CELL, height + 1)):
                for x in range(max(x0, -1), min(x0 + CELL, length + 1)):
                    place = ((i * CELL + z - z0) * CELL + y - y0) * CELL + x - x0
                    size = min(abs(symbol_at(symbols, place, width)), _CLIPPED)
                    if size == 0:
                        continue
                    inside = 0 <= z < depth and 0 <= y < height and 0 <= x < length
                    for band in range(len(above)):
                        if bands[band] == own:
                            _spread(above[band], z + 2, y + 2, x + 2, 4 * size, size)
                            if inside:
                                cell = z * factors[0] // CELL, y * factors[1] // CELL, x * factors[2] // CELL
                                over[band, cell[0], cell[1], cell[2]] += 2 * size


@part()
def _found(ahead, coming, cells, z, y, x, size, times):  # type: ignore[no-untyped-def]
    """Tell the places and the cells that look back on this one of a symbol that is not 0; -1 times to take it back."""
    cz, cy, cx = z >> 2, y >> 2, x >> 2
    cells[cz, cy, cx, _FOUND] += times
    cells[cz, cy, cx + 1, _WEST] += times * (x & 3 == 3)
    cells[cz, cy + 1, cx, _NORTH] += times * (y & 3 == 3)
    cells[cz + 1, cy, cx, _UP] += times * (z & 3 == 3)
    face, size = times * min(size, 2), times * min(size, _CLIPPED)
    once, twice, thrice = 32 * size, 64 * size, 96 * size
    z, y, x = z + 1, y + 1, x + 1
    _spread(coming, z, y, x, 3 * size, size)
    ahead[z, y, x + 1] += thrice + face
    ahead[z, y + 1, x] += thrice + 3 * face
    ahead[z + 1, y, x] += thrice + 9 * face
    ahead[z, y + 1, x + 1] += twice
    ahead[z, y + 1, x - 1] += twice
    ahead[z + 1, y, x + 1] += twice
    ahead[z + 1, y, x - 1] += twice
    ahead[z + 1, y + 1, x] += twice
    ahead[z + 1, y - 1, x] += twice
    ahead[z, y, x + 2] += once
    ahead[z, y + 2, x] += once
    ahead[z + 2, y, x] += once


@part()
def _next_band(ahead, beside, coming, cells):  # type: ignore[no-untyped-def]
    """Show this band to the next one, and forget what only this one looks at."""
    for z in range(ahead.shape[0]):
        for y in range(ahead.shape[1]):
            for x in range(ahead.shape[2]):
                ahead[z, y, x] = 0
    depth, height, width = coming.shape
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                beside[z, y, x] = coming[z, y, x]
    for z in range(cells.shape[0]):
        for y in range(cells.shape[1]):
            for x in range(cells.shape[2]):
                cells[z, y, x, _BEFORE] += cells[z, y, x, _FOUND]
                for i in range(_BEFORE):
                    cells[z, y, x, i] = 0


@part()
def _more(magnitude, ones):  # type: ignore[no-untyped-def]
    """Decide about a magnitude, after so many ones: is it not 0, not 1, is there another bit in what is left."""
    return np.int64(magnitude > ones if ones < 2 else (magnitude - 1) >> (ones - 1) > 0)


@part()
def _bits(probability):  # type: ignore[no-untyped-def]
    return _BITS[np.uint64(probability >> 4)]


@part()
def _take_down(cell, bit, probability):  # type: ignore[no-untyped-def]
    """Keep a decision for the stream."""
    cell.decisions[cell.decided] = probability << 1 | bit
    cell.decided += 1


@part()
def _take_down_kind(model, cell):  # type: ignore[no-untyped-def]
    """Keep how the probabilities of one more kind of decision stand."""
    start = np.uint64(cell.kinds * _CONTEXTS)
    for i in range(_CONTEXTS):
        place = start + np.uint64(i)
        cell.states[place] = model.states[place]
    cell.kinds += 1


@part()
def _quantise_symbol(model, cell, value, lagrangian):  # type: ignore[no-untyped-def]
    """Round a value, or to one less where the bits saved are worth the error; return the symbol and its bits."""
    size = abs(value)
    magnitude = int(min(size + 0.5 - (_SHRINK if size >= 1.5 else 0.0), LARGEST - 1.0))
    ones, bit, spent = 0, 1, 0.0
    while bit and ones < _MOST_ONES:
        mixed = predict(model)
        if (ones == 0 and magnitude > 0) or (ones == 1 and magnitude == 2):
            bits = _bits(mixed) - _bits(65536 - mixed) + (_MORE_BITS if ones else _NEW_BITS)
            if (size - ones) * (size - ones) < (size - magnitude) * (size - magnitude) + lagrangian * bits:
                magnitude = ones
        if ones and magnitude > _UNDONE:
            cell.kept = 1
        bit = _more(magnitude, ones)
        spent += _bits(mixed if bit else 65536 - mixed)
        _take_down(cell, bit, mixed)
        learn(model, bit, mixed)
        ones += bit
        if bit and ones <= _LAST_KIND:
            if ones == cell.kinds:
                _take_down_kind(model, cell)
            _next_kind(model)
    if magnitude == 0:
        return 0, spent
    for position in range(ones - 3, -1, -1):
        _take_down(cell, ((magnitude - 1) >> position) & 1, EVEN)
    _take_down(cell, np.int64(value < 0), EVEN)
    return -magnitude if value < 0 else magnitude, spent + _NEW_BITS


@part()
def _promise(values, weights, band, z0, z1, y0, y1, x0, x1, price):  # type: ignore[no-untyped-def]
    """Return what the symbols of a cell gain over zeros in squared error, less a price for each of those that gain."""
    total = 0.0
    for z in range(z0, z1):
        for y in range(y0, y1):
            for x in range(x0, x1):
                size = abs(values[band, z, y, x])
                if size >= _WORTH_TRYING:
                    weight = weights[0, 0, 0, 0] if weights.size == 1 else weights[0, z, y, x]
                    total += max(0.0, weight * (size * size if size > 1.0 else 2 * size - 1) - price)
    return total


@part()
def _hope(cell, values, weights, band, z0, z1, y0, y1, x0, x1, price):  # type: ignore[no-untyped-def]
    """Say of every row of a cell what its symbols, and those behind it, can gain at most: each has its price at least.

    Not what they are likely to gain, as :func:`_promise` says, so that a cell is given up only if it would be anyway.
    """
    total, rows = 0.0, y1 - y0
    for row in range((z1 - z0) * rows - 1, -1, -1):
        z, y = z0 + row // rows, y0 + row % rows
        for x in range(x0, x1):
            size = np.float64(abs(values[band, z, y, x]))
            weight = np.float64(weights[0, 0, 0, 0] if weights.size == 1 else weights[0, z, y, x])
            total += max(0.0, weight * (size * size if size > 1.0 else 2 * size - 1) - price)
        cell.hope[row] = total


@compiled
def _decode_block(coder, stream, models, orientations, known, shape, places, symbols):  # type: ignore[no-untyped-def]
    """Read the cells of a block that are used, band by band, cell of 4 x 4 x 4 by cell, and return how many they are.

    Of a symbol: is it 0, is its magnitude 1, an Elias-gamma code of the rest, its sign. All decisions are taken at one
    place of the code, so that the compiler puts there what takes them, and keeps the coder's state at hand.
    """
    ahead, beside, coming, _, over, cells, _, _ = known
    model = models[0]
    low, high, read, word = coder[0], coder[1], coder[2], coder[3]
    bands, depth, height, width = shape
    used = 0
    for band in range(bands):
        orientation, share, before = orientations[band], _share(band), used
        for cz in range(cells.shape[0] - 1):
            for cy in range(cells.shape[1] - 1):
                for cx in range(cells.shape[2] - 1):
                    y0, x0 = cy * CELL, cx * CELL
                    z1, y1, x1 = min(cz * CELL + CELL, depth), min(y0 + CELL, height), min(x0 + CELL, width)
                    # Before the cell's first symbol comes whether it has any.
                    z, y, x, ones = cz * CELL, y0, x0 - 1, 0
                    row = _row_of(known, band, z, y)
                    _look_at_cell(model, over, cells, orientation, band, share, cz, cy, cx)
                    while z < z1:
                        mixed = predict(model)
                        bit, low, high = taken(low, high, word, mixed)
                        learn(model, bit, mixed)
                        low, high, read, word = refilled(low, high, read, word, stream)
                        if x < x0:
                            if bit == 0:
                                break
                            places[used] = packed(band, cz, cy, cx)
                            for place in range(symbols.shape[1]):
                                symbols[used, place] = 0
                            used += 1
                        else:
                            ones += bit
                            if bit and ones < _MOST_ONES:
                                if ones <= _LAST_KIND:
                                    _next_kind(model)
                                continue
                            if ones:
                                magnitude = np.int64(ones > 1)
                                # The last bit is the sign.
                                for _ in range(max(ones - 1, 1)):
                                    bit, low, high = taken(low, high, word, EVEN)
                                    low, high, read, word = refilled(low, high, read, word, stream)
                                    magnitude = 2 * magnitude + bit
                                magnitude = (magnitude >> 1) + 1
                                place = ((z & 3) * CELL + (y & 3)) * CELL + (x & 3)
                                symbols[used - 1, place] = -magnitude if bit else magnitude
                                _found(ahead, coming, cells, z, y, x, magnitude, _TOLD)
                                ones = 0
                        x += 1
                        if x == x1:
                            x, y = x0, y + 1
                            if y == y1:
                                y, z = y0, z + 1
                            row = _row_of(known, band, z, y)
                        _look_at(model, known, row, orientation, band, share, x)
        if used > before:
            _next_band(ahead, beside, coming, cells)
    coder[0], coder[1], coder[2], coder[3] = low, high, read, word
    return used


@part()
def _begin_cell(model, cell):  # type: ignore[no-untyped-def]
    """Take down no decisions yet, and how the weights stand, and the probabilities of the first kind."""
    cell.decided, cell.kept, cell.kinds = 0, 0, 0
    _take_down_kind(model, cell)
    for row in range(_FLAG * _SETS):
        for i in range(INPUTS):
            cell.weights[row, i] = model.weights[row, i]


@part()
def _forget(model, cell):  # type: ignore[no-untyped-def]
    """Unlearn what a cell's symbols decided; what flags have learnt is apart."""
    for i in range(np.uint64(cell.kinds * _CONTEXTS)):
        model.states[i] = cell.states[i]
    for row in range(_FLAG * _SETS):
        for i in range(INPUTS):
            model.weights[row, i] = cell.weights[row, i]


@part()
def _add_up(sums, symbols, values, weights, band):  # type: ignore[no-untyped-def]
    """Sum over a band what the reconstruction offsets and the error follow from."""
    one = weights.size == 1
    for z in range(symbols.shape[1]):
        for y in range(symbols.shape[2]):
            for x in range(symbols.shape[3]):
                weight, size = weights[0, 0, 0, 0] if one else weights[0, z, y, x], abs(symbols[band, z, y, x])
                excess = np.float64(size) - abs(values[band, z, y, x])
                sums[0] += weight * excess * excess
                if size:
                    kind = 1 if size == 1 else 3
                    sums[kind] += weight
                    sums[kind + 1] += weight * excess


@compiled
def _encode_block(  # type: ignore[no-untyped-def]
    coder, buffer, models, orientations, known, symbols, values, weights, lagrangian, scratch, sums,
    places,
):  # fmt: skip
    """Fill a block of zeros with the symbols that values are worth, and write them as `_decode_block` reads them.

    Return how many cells are used.
    """
    ahead, beside, coming, _, over, cells, _, _ = known
    model, cell = models[0], scratch[0]
    one = weights.size == 1
    bands, depth, height, width = symbols.shape
    count = 0
    for band in range(bands):
        orientation, share, before = orientations[band], _share(band), count
        for cz in range(cells.shape[0] - 1):
            for cy in range(cells.shape[1] - 1):
                for cx in range(cells.shape[2] - 1):
                    z0, y0, x0 = cz * CELL, cy * CELL, cx * CELL
                    z1, y1, x1 = min(z0 + CELL, depth), min(y0 + CELL, height), min(x0 + CELL, width)
                    mixed, gain = _predict_cell(model, over, cells, orientation, band, share, cz, cy, cx), 0.0
                    cost = lagrangian * (_bits(mixed) - _bits(65536 - mixed))  # of using it
                    # Cells that cannot gain half the bits that symbols would take if all had one context are not tried:
                    # neighbours may tell as much. Before the coder knows, what it has to learn is not a cell's cost.
                    single = model.states[_STARTS[-1]]
                    knows, none, new = single & 255 >= _ENOUGH, 0.0, lagrangian * _NEW_BITS
                    if knows:
                        none = 0.5 * lagrangian * _bits(65536 - (single >> 8))
                        new += 0.5 * lagrangian * _bits(single >> 8) - none
                    else:
                        cost = 0.0
                    most = _promise(values, weights, band, z0, z1, y0, y1, x0, x1, new)
                    tried = most > cost + none * (z1 - z0) * (y1 - y0) * (x1 - x0)
                    if tried:
                        _begin_cell(model, cell)
                        _hope(cell, values, weights, band, z0, z1, y0, y1, x0, x1, lagrangian * _NEW_BITS)
                        rows = y1 - y0
                        for number in range((z1 - z0) * rows):
                            if knows and cell.kept == 0 and gain + cell.hope[number] <= cost:
                                break  # it will not be used
                            z, y = z0 + number // rows, y0 + number % rows
                            row = _row_of(known, band, z, y)
                            for x in range(x0, x1):
                                weight = weights[0, 0, 0, 0] if one else weights[0, z, y, x]
                                _look_at(model, known, row, orientation, band, share, x)
                                value = values[band, z, y, x]
                                symbol, bits = _quantise_symbol(model, cell, value, lagrangian / max(weight, 1e-6))
                                gain -= lagrangian * bits
                                if symbol:
                                    symbols[band, z, y, x] = symbol
                                    size = abs(symbol)
                                    gain += weight * size * (2 * abs(value) - size)
                                    _found(ahead, coming, cells, z, y, x, size, _TOLD)
                        _predict_cell(model, over, cells, orientation, band, share, cz, cy, cx)
                    used = tried and cells[cz, cy, cx, _FOUND] > 0 and (cell.kept > 0 or gain > cost or not knows)
                    put(coder, buffer, np.int64(used), mixed)
                    learn(model, np.int64(used), mixed)
                    if used:
                        places[count] = packed(band, cz, cy, cx)
                        count += 1
                        for i in range(cell.decided):
                            put(coder, buffer, np.int64(cell.decisions[i] & 1), np.int64(cell.decisions[i] >> 1))
                    elif tried:
                        _forget(model, cell)
                        for z in range(z0, z1):
                            for y in range(y0, y1):
                                for x in range(x0, x1):
                                    symbol = symbols[band, z, y, x]
                                    if symbol:
                                        symbols[band, z, y, x] = 0
                                        _found(ahead, coming, cells, z, y, x, np.int64(abs(symbol)), -_TOLD)
        if count > before:
            _next_band(ahead, beside, coming, cells)
        _add_up(sums, symbols, values, weights, band)
    return count


__all__ = ["LARGEST", "NO_PARENT", "Decoder", "Encoder", "Parent", "Statistics"]
