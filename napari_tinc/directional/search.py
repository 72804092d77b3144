"""Choose the blocks of a tile by rate and distortion: how they are split, predicted and quantised, in a closed loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_tinc.directional.coder import LARGEST, encode_tile, fresh
from napari_tinc.directional.layer import CodedDirections
from napari_tinc.directional.layout import Layout, Tile
from napari_tinc.directional.payload import packed_directions_size
from napari_tinc.directional.prediction import (
    BASES,
    DIRECTIONS,
    FACE,
    LONGEST,
    MEAN,
    SLOPES,
    SMOOTH,
    TURNED_BASES,
    Rules,
    blend,
    extend,
    face_of,
    family_of,
    fill_layer,
    synthesise,
    turn,
)
from napari_tinc.geometry.pyramid import Bounds, Cell
from napari_tinc.kernels import compiled, part
from napari_tinc.mixing import Array
from napari_tinc.quantiser import step_of
from napari_tinc.system.threads import block_threads

Floats32 = npt.NDArray[np.float32]
Read = Callable[[Bounds], Floats32]

# λ: squared steps that are worth a bit.
LAMBDA = 0.085
# What decisions cost about, in bits: a split or none, a mode that a neighbour has and another one, a block without
# symbols, and the box of one with some.
_SPLIT_BITS, _SAME_BITS, _OTHER_BITS, _NONE_BITS, _BOX_BITS = 0.7, 1.8, 12.0, 0.5, 6.5
# Of the squared error of a prediction, what its mode must save to be worth a bit.
_MODE_WEIGHT = 1.5
# What is no farther than so many times the least error is transformed, too.
_NEAR = 2.0
# Modes of a block that are transformed: the mean, the blend, one direction an axis; those of the blocks at its three
# faces, which cost few bits, and of the one that it is a part of.
_FOUND = DIRECTIONS + 3
_CANDIDATES = _FOUND + 4
# Of the pairs of slopes, every other one is compared, as on a checkerboard, then those around the best.
_EVERY_OTHER, _AROUND = np.arange(0, SLOPES**2, 2), np.array([-SLOPES, -1, 1, SLOPES])
# Reconstruction offsets of symbols of magnitude 1, and of larger ones, in 256ths, where none were seen; and how many
# must be seen to learn as much from them.
_OFFSETS, _TRUSTED = (23, 11), 64
_WORTH_TRYING, _SHRINK = 0.5, 0.08
_CLASSES = 6
_PLACES = _CLASSES**3
# Symbols before one that are not 0, which make it likely: none, one, or more.
_NEIGHBOURS = 3
_CODES = np.array([n.bit_length() for n in range(LONGEST)], np.uint8)


@dataclass(frozen=True, eq=False)
class Prices:
    """What symbols cost, in bits, by how many before them are not 0, and by the classes of their frequencies.

    Parameters
    ----------
    used, unused : ndarray of float64, shape (3 * 216,)
        Of a symbol that is not 0, its sign included; of a 0 within the box of a block.
    offsets : tuple of int
        By how many 256ths of a step coefficients are smaller than their magnitudes: 1, and larger ones. They must be
        known before the first block is.
    """

    used: Array
    unused: Array
    offsets: tuple[int, int] = _OFFSETS

    @classmethod
    def guessed(cls) -> Prices:
        """Know nothing of the volume."""
        steps = np.add.outer(np.add.outer(np.arange(_CLASSES), np.arange(_CLASSES)), np.arange(_CLASSES)).ravel()
        return cls(np.tile(4.5 + 0.35 * steps, _NEIGHBOURS), np.tile(0.5 * 0.8**steps, _NEIGHBOURS))

    @classmethod
    def counted(cls, counts: Array, missed: Array) -> Prices:
        """Learn from a layer.

        Parameters
        ----------
        counts : ndarray of float64, shape (2, 3 * 216)
            Symbols that are 0 and that are not.
        missed : ndarray of float64, shape (2, 2)
            Symbols of magnitude 1 and larger ones: how many, and the sum of what coefficients are smaller.
        """
        guess = cls.guessed()
        together = np.tile(counts.reshape(2, _NEIGHBOURS, -1).sum(1), _NEIGHBOURS)
        known = together + 4.0 * np.array([0.95, 0.05])[:, None]
        some = counts + 8 * known / known.sum(0)  # where few were seen, what holds for any neighbours
        share = some[1] / some.sum(0)
        weight = 8 / (8 + together.sum(0))
        used = -np.log2(share) + 2.0
        first, others = (256 * missed[:, 1] + _TRUSTED * np.array(_OFFSETS)) / (missed[:, 0] + _TRUSTED)
        return cls(
            weight * guess.used + (1 - weight) * used,
            weight * guess.unused - (1 - weight) * np.log2(1 - share),
            (min(127, max(0, round(first))), min(127, max(0, round(others)))),
        )


@dataclass(frozen=True, eq=False)
class Fit:
    """A directional layer, and what it costs.

    Parameters
    ----------
    coded : CodedDirections
    error : float
        Sum of squared errors, normalised.
    prices : Prices
        What symbols were worth in it.
    """

    coded: CodedDirections
    error: float
    prices: Prices

    @property
    def nbytes(self) -> int:
        """Bytes of the segment."""
        return packed_directions_size(self.coded)


def fit_step(
    read: Read,
    read_weights: Read | None,
    layout: Layout,
    rules: Rules,
    step_code: int,
    prices: Prices,
    lagrangian: float = LAMBDA,
) -> Generator[None, None, Fit]:
    """Make the directional layer of a step.

    Parameters
    ----------
    read : callable
        Return the box of these bounds as float32, finite.
    read_weights : callable or None
        Likewise whether its voxels matter, as 1 or 0; None if all do.
    layout : Layout
    rules : Rules
    step_code : int
        See :func:`napari_tinc.quantiser.step_of`.
    prices : Prices
    lagrangian : float
        Squared steps that are worth a bit: a little more makes a layer a little smaller.

    Yields
    ------
    None
        After every tile.

    Returns
    -------
    Fit
    """

    def searched(cell: Cell) -> tuple[Tile, Array, Array, float]:
        beyond = [(0, n - m) for n, m in zip(layout.padded(cell), layout.extent(cell), strict=True)]
        values, box = np.pad(read(layout.box(cell)), beyond, mode="edge"), layout.box(cell)
        cares = np.ones(layout.extent(cell), np.float32) if read_weights is None else read_weights(box)
        cares = np.pad(cares, beyond)  # nothing beyond the end of the volume matters
        return _search_tile(values, cares, layout, layout.extent(cell), rules, step_of(step_code), prices, lagrangian)

    streams, error, learnt = [], 0.0, fresh()
    counts, missed = np.zeros((2, _NEIGHBOURS * _PLACES)), np.zeros((2, 2))
    cells = list(layout.cells())
    for cell, (tile, counted, smaller, lost) in zip(cells, block_threads().map(searched, cells), strict=True):
        statistics = learnt if cell == cells[0] else learnt.copy()
        used = tile.symbols.any()
        streams.append((encode_tile(tile, layout, layout.extent(cell), rules, statistics) or b"\0") if used else b"")
        error += lost
        counts += counted
        missed += smaller
        yield
    return Fit(
        CodedDirections(layout, rules, step_code, prices.offsets, tuple(streams)), error, Prices.counted(counts, missed)
    )


def _search_tile(
    values: Floats32,
    cares: Floats32,
    layout: Layout,
    extent: tuple[int, ...],
    rules: Rules,
    step: float,
    prices: Prices,
    lagrangian: float,
) -> tuple[Tile, Array, Array, float]:
    """Choose the blocks of a tile.

    Parameters
    ----------
    values : ndarray of float32
        The padded tile.
    cares : ndarray of float32, same shape
        1 where a voxel matters, else 0.
    layout : Layout
    extent : tuple of int
        Voxels of the tile that are inside the volume.
    rules : Rules
    step : float
        Of the quantiser.
    prices : Prices
    lagrangian : float

    Returns
    -------
    tile : Tile
    counts, missed : ndarray of float64
        For :meth:`Prices.counted`.
    error : float
        Sum of squared errors.
    """
    codes, tile = layout.codes, Tile.empty(values.shape, layout)
    wanted, decoded = values / np.float32(step), np.zeros(values.shape, np.float32)
    counts = np.zeros((2, _NEIGHBOURS * _PLACES))
    sides, missed = (len(codes), *(1 << int(code) for code in codes[0])), np.zeros((len(codes) + 1, 2, 2, 2))
    whole = np.empty(sides, np.float32)
    _search(
        wanted, cares, decoded, tile.levels, tile.modes, tile.extents, tile.symbols, codes, np.array(extent),
        rules.slopes, rules.carries, rules.kinds, BASES, TURNED_BASES, prices.used, prices.unused,
        np.array(prices.offsets) / 256, lagrangian, whole, np.empty(sides, np.int16),
        np.empty((len(codes), 8), np.int64), np.empty((len(codes), 2)), missed, counts,
    )  # fmt: skip
    inside = tuple(slice(0, n) for n in extent)
    lost = ((wanted[inside] - decoded[inside]) * cares[inside]).ravel()
    return tile, counts, missed[0, 1], float(step**2 * np.vdot(lost, lost))


@part()
def _class(symbols, z, y, x, i, j, k):  # type: ignore[no-untyped-def]
    """Class of a symbol at a frequency of a block whose symbols begin at a place."""
    near = np.int64(0)
    if k > 0:
        near += symbols[z + i, y + j, x + k - 1] != 0
    if j > 0:
        near += symbols[z + i, y + j - 1, x + k] != 0
    if i > 0:
        near += symbols[z + i - 1, y + j, x + k] != 0
    return _PLACES * min(near, np.int64(2)) + np.int64(36) * _CODES[i] + np.int64(6) * _CODES[j] + _CODES[k]


@part()
def _quantise(  # type: ignore[no-untyped-def]
    values, depth, height, width, used, unused, offsets, lagrangian, symbols, box, missed, excess
):
    """Quantise a block by rate and distortion; return what it costs, and leave the coefficients as decoded.

    ``excess`` is filled with what it costs more, by classes of frequencies, to code the coefficients than not to.
    """
    missed[:] = 0
    excess[:] = 0
    nothing = 0.0
    for i in range(depth):
        for j in range(height):
            for k in range(width):
                value = values[i, j, k]
                size = abs(value)
                energy = np.float64(size * size)
                nothing += energy
                number = _class(symbols, 0, 0, 0, i, j, k)
                least, chosen, decoded = energy, 0, np.float32(0)
                if size >= _WORTH_TRYING:
                    price = used[number] - unused[number]
                    rounded = int(min(size + 0.5 - (_SHRINK if size >= 1.5 else 0.0), LARGEST))
                    for magnitude in range(max(1, rounded - 1), rounded + 1):
                        stands = magnitude - offsets[np.int64(magnitude > 1)]
                        cost = (size - stands) ** 2 + lagrangian * (price + 2 * math.log2(magnitude))
                        if cost < least:
                            least, chosen, decoded = cost, magnitude, np.float32(stands)
                if chosen:
                    missed[np.int64(chosen > 1), 0] += 1
                    missed[np.int64(chosen > 1), 1] += chosen - size
                excess[_CODES[i], _CODES[j], _CODES[k]] += least - energy + lagrangian * unused[number]
                symbols[i, j, k] = chosen if value > 0 else -chosen
                values[i, j, k] = decoded if value > 0 else -decoded
    cost = lagrangian * _BOX_BITS + _best_box(excess, _CODES[depth - 1], _CODES[height - 1], _CODES[width - 1], box)
    if cost >= lagrangian * _NONE_BITS:
        cost = lagrangian * _NONE_BITS
        box[0], box[1], box[2] = -1, -1, -1
    for i in range(depth):
        for j in range(height):
            for k in range(width):
                if box[0] < 0 or i >> box[0] or j >> box[1] or k >> box[2]:
                    symbols[i, j, k] = 0
    return nothing + cost


@part()
def _best_box(excess, depth, height, width, box):  # type: ignore[no-untyped-def]
    """Choose the box outside of which nothing is coded; return what it costs more than nothing at all.

    ``excess`` is summed up to every class of frequencies along all axes, by inclusion and exclusion.
    """
    least = np.inf
    for a in range(depth + 1):
        for b in range(height + 1):
            for c in range(width + 1):
                for corner in range(1, 8):
                    up, north, west = corner & 1, corner >> 1 & 1, corner >> 2
                    if a >= up and b >= north and c >= west:
                        odd = (up + north + west) & 1
                        before = excess[a - up, b - north, c - west]
                        excess[a, b, c] += before if odd else -before
                if excess[a, b, c] < least:
                    least, box[0], box[1], box[2] = excess[a, b, c], a, b, c
    return least


@part()
def _mismatch(turned, partly, cared, face, margin, first, second, thickness, rows, columns, limit):  # type: ignore[no-untyped-def]
    """Squared error of a direction; beyond a limit it is not summed to the end.

    What :func:`slide` does for every plane is done on the way, with all four neighbours: half the time. Columns summed
    by themselves, as vectors, take longer.
    """
    total, one = np.float32(0), np.float32(1)
    for d in range(thickness):
        down, across = -(d + 1) * first, -(d + 1) * second
        u0, v0 = margin + (down >> 3), margin + (across >> 3)
        below, right = np.float32(down & 7) / np.float32(8), np.float32(across & 7) / np.float32(8)
        a, b, c, e = (one - below) * (one - right), (one - below) * right, below * (one - right), below * right
        for u in range(rows):
            for v in range(columns):
                moved = (
                    a * face[u0 + u, v0 + v] + b * face[u0 + u, v0 + v + 1]
                    + c * face[u0 + u + 1, v0 + v] + e * face[u0 + u + 1, v0 + v + 1]
                )  # fmt: skip
                difference = turned[d, u, v] - moved
                if partly:
                    difference *= cared[d, u, v]
                total += difference * difference
        if total > limit:
            return total
    return total


@part()
def _mode_beside(modes, place, axis):  # type: ignore[no-untyped-def]
    """Mode of the block at the face along an axis; -1 if there is none."""
    if place[axis] == 0:
        return np.int64(-1)
    return np.int64(modes[place[0] - (axis == 0), place[1] - (axis == 1), place[2] - (axis == 2)])


@part()
def _mode_bits(modes, mode, place):  # type: ignore[no-untyped-def]
    for axis in range(3):
        if _mode_beside(modes, place, axis) == mode:
            return _SAME_BITS
    return _OTHER_BITS


@part()
def _difference(wanted, cares, z, y, x, predicted, out, depth, height, width):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for i in range(depth):
        for j in range(height):
            for k in range(width):
                difference = cares[z + i, y + j, x + k] * (wanted[z + i, y + j, x + k] - predicted[i, j, k])
                out[i, j, k] = difference
                total += difference * difference
    return total


@part()
def _is_partly(cares, z, y, x, depth, height, width):  # type: ignore[no-untyped-def]
    """Whether a voxel of a block does not matter."""
    for i in range(z, z + depth):
        for j in range(y, y + height):
            for k in range(x, x + width):
                if cares[i, j, k] != 1:
                    return True
    return False


@part()
def _copy(source, out, depth, height, width):  # type: ignore[no-untyped-def]
    for i in range(depth):
        for j in range(height):
            for k in range(width):
                out[i, j, k] = source[i, j, k]


@part()
def _best_of(  # type: ignore[no-untyped-def]
    numbers, first, turned, partly, cared, modes, place, axis, slopes, lagrangian, seen, margin, shape, limit
):
    """Find the best of pairs of slopes, counted from a first one: its mode, or -1 if none is below the limit."""
    best = np.int64(-1)
    for apart in numbers:
        number = first + apart
        if number < 0 or number >= SLOPES**2:
            continue
        mode = DIRECTIONS + axis * SLOPES**2 + number
        bits = np.float32(lagrangian * _MODE_WEIGHT * _mode_bits(modes, mode, place))
        error = bits + _mismatch(
            turned, partly, cared, seen, margin, slopes[number // SLOPES], slopes[number % SLOPES], shape[0], shape[1],
            shape[2], limit - bits,
        )  # fmt: skip
        if error < limit:
            limit, best = error, np.int64(mode)
    return best, limit


@part()
def _best_direction(  # type: ignore[no-untyped-def]
    wanted, cares, partly, decoded, modes, z, y, x, code, place, axis, slopes, lagrangian, face, smoothed, turned,
    cared, limit
):  # fmt: skip
    """Find the direction along an axis of least squared error, its bits included, below a limit; -1 if none is."""
    thickness, rows, columns, margin, seen = face_of(decoded, z, y, x, code, axis, face, smoothed)
    for d in range(thickness):
        for u in range(rows):
            for v in range(columns):
                i, j, k = (d, u, v) if axis == 0 else (u, d, v) if axis == 1 else (u, v, d)
                turned[d, u, v] = wanted[z + i, y + j, x + k]
                if partly:
                    cared[d, u, v] = cares[z + i, y + j, x + k]
    shape = thickness, rows, columns
    best, limit = _best_of(
        _EVERY_OTHER, 0, turned, partly, cared, modes, place, axis, slopes, lagrangian, seen, margin, shape, limit
    )
    if best < 0:
        return best, limit
    beside, limit = _best_of(
        _AROUND, (best - DIRECTIONS) % SLOPES**2, turned, partly, cared, modes, place, axis, slopes, lagrangian, seen,
        margin, shape, limit,
    )  # fmt: skip
    return (beside if beside >= 0 else best), limit


@part()
def _choose(  # type: ignore[no-untyped-def]
    wanted, cares, decoded, modes, z, y, x, code, place, above, slopes, lagrangian, face, smoothed, predicted, block,
    spare, chosen, errors,
):  # fmt: skip
    """Choose the modes that are worth a transform: the mean, what has little error, and what costs few bits."""
    depth, height, width = 1 << code[0], 1 << code[1], 1 << code[2]
    partly = _is_partly(cares, z, y, x, depth, height, width)
    for mode in (MEAN, SMOOTH):
        blend(decoded, mode, z, y, x, depth, height, width, predicted)
        bits = np.float32(lagrangian * _MODE_WEIGHT * _mode_bits(modes, mode, place))
        chosen[mode] = mode
        errors[mode] = bits + _difference(wanted, cares, z, y, x, predicted, block, depth, height, width)
    least = min(errors[MEAN], errors[SMOOTH])
    for axis in range(3):
        chosen[DIRECTIONS + axis], errors[DIRECTIONS + axis] = -1, least
        if (z, y, x)[axis] > 0:
            chosen[DIRECTIONS + axis], errors[DIRECTIONS + axis] = _best_direction(
                wanted, cares, partly, decoded, modes, z, y, x, code, place, axis, slopes, lagrangian, face, smoothed,
                spare, block, np.float32(_NEAR) * least,
            )  # fmt: skip
            least = min(least, errors[DIRECTIONS + axis])
    for i in range(1, _FOUND):
        if errors[i] > np.float32(_NEAR) * least:
            chosen[i] = -1
    for n in range(_FOUND, _CANDIDATES):
        cheap = _mode_beside(modes, place, n - _FOUND) if n < _CANDIDATES - 1 else above
        if cheap >= DIRECTIONS and (z, y, x)[(cheap - DIRECTIONS) // SLOPES**2] == 0:
            cheap = np.int64(-1)
        for i in range(n):
            if chosen[i] == cheap:
                cheap = np.int64(-1)
        chosen[n] = cheap


@part()
def _try(  # type: ignore[no-untyped-def]
    wanted, cares, decoded, z, y, x, code, mode, slopes, carries, kinds, bases, turned_bases, used, unused, offsets,
    lagrangian, face, smoothed, plane, predicted, block, spare, found, box, missed, excess,
):  # fmt: skip
    """Predict, transform and quantise a block; return what it costs without its mode. ``block`` is as decoded."""
    depth, height, width = 1 << code[0], 1 << code[1], 1 << code[2]
    if mode < DIRECTIONS:
        blend(decoded, mode, z, y, x, depth, height, width, predicted)
    else:
        extend(decoded, z, y, x, code, mode, slopes, carries, face, smoothed, plane, predicted)
    kind = kinds[family_of(mode)]
    _difference(wanted, cares, z, y, x, predicted, block, depth, height, width)
    turn(turned_bases[kind[0], code[0]], block, spare, 0, depth, height, width, depth)
    turn(turned_bases[kind[1], code[1]], spare, block, 1, depth, height, width, height)
    turn(turned_bases[kind[2], code[2]], block, spare, 2, depth, height, width, width)
    cost = _quantise(spare, depth, height, width, used, unused, offsets, lagrangian, found, box, missed, excess)
    _copy(predicted, block, depth, height, width)
    if box[0] >= 0:
        synthesise(bases, kind, code, box, spare, predicted)
        for i in range(depth):
            for j in range(height):
                for k in range(width):
                    block[i, j, k] += spare[i, j, k]
    return cost


@part()
def _settle(level, state, whole, kept, decoded, symbols, levels, modes, extents, codes):  # type: ignore[no-untyped-def]
    """Leave a block as it is as a whole."""
    smallest, code = codes[len(codes) - 1], codes[level]
    z, y, x = state[level, 0], state[level, 1], state[level, 2]
    depth, height, width = 1 << code[0], 1 << code[1], 1 << code[2]
    for i in range(depth):
        for j in range(height):
            for k in range(width):
                decoded[z + i, y + j, x + k] = whole[level, i, j, k]
                symbols[z + i, y + j, x + k] = kept[level, i, j, k]
    for i in range(z >> smallest[0], (z + depth) >> smallest[0]):
        for j in range(y >> smallest[1], (y + height) >> smallest[1]):
            for k in range(x >> smallest[2], (x + width) >> smallest[2]):
                levels[i, j, k], modes[i, j, k] = level, state[level, 4]
                for axis in range(3):
                    extents[i, j, k, axis] = state[level, 5 + axis]


@part()
def _next_child(level, state, codes, inside):  # type: ignore[no-untyped-def]
    """Step to the next child of a block; return its level, or that of the block if it begins outside the volume."""
    code, below = codes[level], codes[level + 1]
    across, down = 1 << (code[2] - below[2]), 1 << (code[1] - below[1])
    child = state[level, 3]
    state[level, 3] = child + 1
    z = state[level, 0] + (child // (across * down) << below[0])
    y = state[level, 1] + (child // across % down << below[1])
    x = state[level, 2] + (child % across << below[2])
    if z >= inside[0] or y >= inside[1] or x >= inside[2]:
        return level
    state[level + 1, 0], state[level + 1, 1], state[level + 1, 2], state[level + 1, 3] = z, y, x, -1
    return level + 1


@compiled
def _search(  # type: ignore[no-untyped-def]
    wanted, cares, decoded, levels, modes, extents, symbols, codes, inside, slopes, carries, kinds, bases,
    turned_bases, used, unused, offsets, lagrangian, whole, kept, state, costs, missed, counts,
):  # fmt: skip
    """Descend every root block; a block is split if its children together cost less than it does as a whole.

    Of every level is known: ``state``, the place of its block, the child that is next, mode and box of the block as a
    whole; ``costs``, what it costs as a whole, and what its children have cost so far; ``missed``, one level later,
    what :meth:`Prices.counted` asks for likewise; ``whole`` and ``kept``, its voxels and its symbols as a whole.
    """
    longest = 1 << max(codes[0, 0], max(codes[0, 1], codes[0, 2]))
    face, plane = np.empty((FACE, FACE), np.float32), np.empty((LONGEST + 1, LONGEST + 1), np.float32)
    smoothed = np.zeros_like(face)
    predicted = np.empty((longest, longest, longest), np.float32)
    block, spare = np.empty_like(predicted), np.empty_like(predicted)
    found, box = np.empty(predicted.shape, np.int16), np.empty(3, np.int64)
    place, chosen, smaller = np.empty(3, np.int64), np.empty(_CANDIDATES, np.int64), np.empty((2, 2))
    errors, excess = np.empty(_FOUND, np.float32), np.empty((_CLASSES, _CLASSES, _CLASSES))
    deepest, smallest = len(codes) - 1, codes[len(codes) - 1]
    for root_z in range(0, wanted.shape[0], 1 << codes[0, 0]):
        fill_layer(decoded, root_z, 1 << codes[0, 0])
        for root_y in range(0, wanted.shape[1], 1 << codes[0, 1]):
            for root_x in range(0, wanted.shape[2], 1 << codes[0, 2]):
                state[0, 0], state[0, 1], state[0, 2], state[0, 3] = root_z, root_y, root_x, -1
                level = 0
                while level >= 0:
                    code = codes[level]
                    if state[level, 3] < 0:  # not yet seen
                        z, y, x = state[level, 0], state[level, 1], state[level, 2]
                        for axis in range(3):
                            place[axis] = state[level, axis] >> smallest[axis]
                        above = state[level - 1, 4] if level else np.int64(-1)
                        _choose(
                            wanted, cares, decoded, modes, z, y, x, code, place, above, slopes, lagrangian, face,
                            smoothed, predicted, block, spare, chosen, errors,
                        )  # fmt: skip
                        costs[level, 0], costs[level, 1] = math.inf, lagrangian * _SPLIT_BITS
                        missed[level + 1, 1] = 0
                        for mode in chosen:
                            if mode < 0:
                                continue
                            bits = _mode_bits(modes, mode, place)
                            cost = lagrangian * (bits + (_SPLIT_BITS if level < deepest else 0.0)) + _try(
                                wanted, cares, decoded, z, y, x, code, mode, slopes, carries, kinds, bases,
                                turned_bases, used, unused, offsets, lagrangian, face, smoothed, plane, predicted,
                                block, spare, found, box, smaller, excess,
                            )  # fmt: skip
                            if cost < costs[level, 0]:
                                costs[level, 0], state[level, 4] = cost, mode
                                missed[level + 1, 0] = smaller
                                for axis in range(3):
                                    state[level, 5 + axis] = box[axis]
                                _copy(block, whole[level], 1 << code[0], 1 << code[1], 1 << code[2])
                                _copy(found, kept[level], 1 << code[0], 1 << code[1], 1 << code[2])
                        state[level, 3] = 0
                    children = 1
                    if level < deepest:
                        below = codes[level + 1]
                        children = 1 << (code[0] + code[1] + code[2] - below[0] - below[1] - below[2])
                    if level < deepest and state[level, 3] < children and costs[level, 1] < costs[level, 0]:
                        level = _next_child(level, state, codes, inside)
                        continue
                    cost, settled = costs[level, 1], 1
                    if level == deepest or costs[level, 1] >= costs[level, 0]:
                        cost, settled = costs[level, 0], 0
                        _settle(level, state, whole, kept, decoded, symbols, levels, modes, extents, codes)
                    missed[level, 1] += missed[level + 1, settled]
                    level -= 1
                    if level >= 0:
                        costs[level, 1] += cost
    _count(symbols, levels, extents, codes, counts)


@part()
def _count(symbols, levels, extents, codes, counts):  # type: ignore[no-untyped-def]
    """Count symbols that are 0 and that are not, within the boxes of their blocks, by class."""
    smallest = codes[len(codes) - 1]
    for z in range(symbols.shape[0]):
        for y in range(symbols.shape[1]):
            for x in range(symbols.shape[2]):
                place = z >> smallest[0], y >> smallest[1], x >> smallest[2]
                level = np.int64(levels[place])
                if level < 0 or extents[place][0] < 0:
                    continue
                i, j, k = z & (1 << codes[level, 0]) - 1, y & (1 << codes[level, 1]) - 1, x & (1 << codes[level, 2]) - 1
                box = extents[place]
                if i < 1 << box[0] and j < 1 << box[1] and k < 1 << box[2]:
                    number = _class(symbols, z - i, y - j, x - k, i, j, k)
                    counts[np.int64(symbols[z, y, x] != 0), number] += 1


__all__ = ["LAMBDA", "Fit", "Prices", "Read", "fit_step"]
