"""Context-mixing coder of a block of whole numbers: neighbouring intensities, or corrections that are mostly 0.

A number is predicted from its known neighbours by a linear predictor, with which the block's stream begins, and by what
that was wrong by in the same surroundings (bias cancellation; Wu and Memon, *Context-Based, Adaptive, Lossless Image
Coding*, IEEE Transactions on Communications 45, 1997). What is left is written as the number of its bits, its sign, and
its bits, each a decision that :mod:`napari_tinc.mixing` codes. How large the errors next to it were says most about it.
All of it is integer arithmetic; ``docs/format.md`` gives it to the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc.kernels import compiled, part
from napari_tinc.mixing import EVEN, Statistics, beginning, decode, encode, ended, get, opened, put
from napari_tinc.vectors import leading_zeros

Numbers = npt.NDArray[np.int64]

# Neighbours that are known: W N NW NE WW NN of the same plane; U UW UE UN US UNW UNE USW USE of the plane before; UU.
NEIGHBOURS, IN_PLANE = 16, 6
_W, _N, _NW, _NE, _WW, _NN, _U, _UW, _UE, _UN, _US = range(11)
# Predictors of a block, at most; binary digits of their weights.
MAX_CLASSES, DIGITS = 8, 12
# Numbers are below 2**BITS: a residual has as many bits at most, and 16 times its sum with others fits 64 bits.
BITS = 33
_LONG = np.int64(64)

# Decisions on the number of bits: is it at least so many, asked upwards from the expected one, or downwards.
_SIZES = 20
_ASKED = 2 * _SIZES
_STARTS = (0, 1600, 5600, 9600, 16000, 21120, 24320)
_SIGN = 25920
_SIGN_STARTS = (0, 144, 1296, 1440, 1800, 1944, 2124)
_BIT = _SIGN + 2304
_BIT_STARTS = (0, 2080, 2288, 3328, 4160, 4264, 5096)
_CONTEXTS = _BIT + 6136
# Bits of a residual that are mixed, after the leading one; the others are even.
_MIXED_BITS = 3
_SIGN_ROW = _ASKED
_BIT_ROW = _SIGN_ROW + 9
_SETS = _BIT_ROW + 3 * 13
_BIASES, _BIAS_LIMIT = 2048, 255


@dataclass(frozen=True, eq=False)
class Predictor:
    """What a block is predicted with.

    Parameters
    ----------
    thresholds : ndarray of int64, shape (classes - 1,)
        Ascending: a number belongs to the class of as many as are not above its activity.
    weights : ndarray of int64, shape (classes + 1, 16)
        Of every class, in 4096ths; the last row is that of a block's first plane, whose last ten are 0. A block of one
        plane has classes of these only, and no last row.
    """

    thresholds: Numbers
    weights: Numbers


def encode_block(numbers: Numbers, predictor: Predictor | None, largest: int) -> bytes:
    """Return the stream of a block.

    Parameters
    ----------
    numbers : ndarray of int64, shape (z, y, x)
        0 to ``largest``; without a predictor, from ``-largest`` on.
    predictor : Predictor or None
        None for corrections, which are mostly 0 and predicted as such.
    largest : int
    """
    known = np.append(numbers.ravel(), 0)
    room = numbers.size * 6 + 64
    while True:
        coder, buffer, state = beginning(), np.empty(room, np.uint8), _State(numbers.size, predictor)
        _encode(coder, buffer, state.model, known, state.errors, state.biases, numbers.shape, state.thresholds,
                state.weights, largest, predictor is not None)  # fmt: skip
        if coder[2] <= room:
            return ended(buffer[: coder[2]].tobytes(), coder)
        room = int(coder[2])  # seldom: numbers that nothing predicts


def decode_block(stream: bytes, shape: tuple[int, ...], predictor: Predictor | None, largest: int) -> Numbers:
    """Invert :func:`encode_block`; any bytes decode to something, in bounded time."""
    count = shape[0] * shape[1] * shape[2]
    state = _State(count, predictor)
    known = np.zeros(count + 1, np.int64)
    _decode(opened(stream), np.frombuffer(stream, np.uint8).copy(), state.model, known, state.errors, state.biases,
            shape, state.thresholds, state.weights, largest, predictor is not None)  # fmt: skip
    return known[:-1].reshape(shape)


class _State:
    """What both directions learn."""

    def __init__(self, count: int, predictor: Predictor | None) -> None:
        self.model = Statistics.fresh(contexts=_CONTEXTS, sets=_SETS).model
        self.errors = np.zeros(count + 1, np.int64)  # in 16ths; the last is nobody's
        self.biases = np.zeros((_BIASES, 2), np.int64)  # sum in 16ths, and how many
        self.thresholds = np.zeros(0, np.int64) if predictor is None else predictor.thresholds
        self.weights = np.zeros((1, NEIGHBOURS), np.int64) if predictor is None else predictor.weights


def gather(numbers: Numbers, at: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Return what the predictor of some numbers sees.

    Parameters
    ----------
    numbers : ndarray of int64, shape (z, y, x)
    at : ndarray of int64, shape (n,)
        Which, row-major.

    Returns
    -------
    neighbours : ndarray of int64, shape (n, 16)
        Less the reference.
    reference : ndarray of int64, shape (n,)
    activity : ndarray of int64, shape (n,)
    """
    seen = np.zeros((len(at), NEIGHBOURS), np.int64)
    reference, activity = np.zeros(len(at), np.int64), np.zeros(len(at), np.int64)
    _gather(np.append(numbers.ravel(), 0), numbers.shape, at, seen, reference, activity)
    return seen, reference, activity


@compiled
def _gather(known, shape, at, seen, reference, activity):  # type: ignore[no-untyped-def]
    near = np.zeros(NEIGHBOURS, np.uint64)
    depth, height, width = shape
    for i in range(at.size):
        z, y, x = at[i] // (height * width), at[i] // width % height, at[i] % width
        _locate(near, z, y, x, depth, height, width)
        reference[i] = _reference(known, near, z)
        activity[i] = _activity(known, near, z)
        for k in range(NEIGHBOURS if z else IN_PLANE):
            seen[i, k] = known[near[k]] - reference[i]


@part()
def _locate(near, z, y, x, depth, height, width):  # type: ignore[no-untyped-def]
    """Find the neighbours that are known; where there is none, the nearest that is; the last number is for nobody."""
    here, plane = (z * height + y) * width + x, height * width
    before = here - plane
    left, right = np.int64(x > 0), np.int64(x + 1 < width)
    if x:
        w = here - 1
    elif y:
        w = here - width
    else:
        w = before if z else depth * plane
    if y:
        n, nw, ne = here - width, here - width - left, here - width + right
    elif z:
        n, nw, ne = before, before - left, before + right
    else:
        n, nw, ne = w, w, w
    near[_W], near[_N], near[_NW], near[_NE] = w, n, nw, ne
    near[_WW] = here - 2 if x > 1 else w
    near[_NN] = here - 2 * width if y > 1 else n
    if not z:
        for k in range(_U, NEIGHBOURS):
            near[k] = depth * plane
        return
    up, down = (width if y else 0), (width if y + 1 < height else 0)
    near[_U], near[_UW], near[_UE], near[_UN], near[_US] = (
        before,
        before - left,
        before + right,
        before - up,
        before + down,
    )
    near[_US + 1], near[_US + 2] = before - up - left, before - up + right
    near[_US + 3], near[_US + 4] = before + down - left, before + down + right
    near[_US + 5] = before - plane if z > 1 else before


@part()
def _reference(known, near, z):  # type: ignore[no-untyped-def]
    """What differences are taken from."""
    if z:
        return (known[near[_W]] + known[near[_N]] + 2 * known[near[_U]] + 2) >> 2
    return (known[near[_W]] + known[near[_N]] + 1) >> 1


@part()
def _activity(known, near, z):  # type: ignore[no-untyped-def]
    """How much the neighbours differ, which says what predictor is used."""
    w, n, nw = known[near[_W]], known[near[_N]], known[near[_NW]]
    total = (
        abs(w - nw) + abs(n - nw) + abs(n - known[near[_NE]]) + abs(w - known[near[_WW]]) + abs(n - known[near[_NN]])
    )
    if z:
        u = known[near[_U]]
        for k in (_UW, _UE, _UN, _US):
            total += abs(u - known[near[k]])
    return total


@part()
def _bits(number):  # type: ignore[no-untyped-def]
    return _LONG - leading_zeros(np.int64(number))  # type: ignore[call-arg]


@part()
def _quarters(number):  # type: ignore[no-untyped-def]
    """Logarithm in quarters of an octave."""
    if number < 4:
        return number
    count = _bits(number)
    return 4 * (count - 2) + (number >> (count - 3) & 3)


@part()
def _predict(known, near, z, thresholds, weights):  # type: ignore[no-untyped-def]
    """Return the linear prediction, in 16ths."""
    row = np.int64(0)
    if z or weights.shape[0] == thresholds.size + 1:
        activity = _activity(known, near, z)
        while row < thresholds.size and thresholds[row] <= activity:
            row += 1
    else:
        row = weights.shape[0] - 1
    reference = _reference(known, near, z)
    total = np.int64(0)
    for k in range(NEIGHBOURS if z else IN_PLANE):
        total += weights[row, k] * (known[near[k]] - reference)
    return (reference << 4) + ((total + (1 << (DIGITS - 5))) >> (DIGITS - 4))


# What is known before a number is: its prediction in 16ths, with the bias and without; and views of its surroundings.
_PREDICTED, _PLAIN, _ENERGY, _ENERGIES, _BEFORE, _SIDES, _SIGNS, _PLACE, _EXPECTED, _FRACTION, _BIAS = range(11)


@part()
def _look(seen, near, known, errors, biases, z, thresholds, weights, largest, predicts):  # type: ignore[no-untyped-def]
    """Collect what the contexts of a number are made of."""
    w, n, u = errors[near[_W]], errors[near[_N]], errors[near[_U]]
    ahead = abs(errors[near[_UE]]) + abs(errors[near[_US]]) + abs(errors[near[_UW]]) + abs(errors[near[_UN]])
    corners = abs(errors[near[_NW]]) + abs(errors[near[_NE]]) + abs(errors[near[_WW]]) + abs(errors[near[_NN]])
    energy = 2 * (abs(w) + abs(n) + abs(u)) + corners + ahead
    pattern = np.int64(0)
    predicted: Any = np.int64(0)
    place: Any = np.int64(0)
    if predicts:
        predicted = _predict(known, near, z, thresholds, weights)
        seen[_PLAIN] = predicted
        level = predicted >> 4
        for i, k in enumerate((_W, _N, _U, _NW, _NE, _UE, _US)):
            pattern |= np.int64(known[near[k]] > level) << i
        bias = 16 * pattern + min(15, _quarters(energy >> 5) >> 1)
        if biases[bias, 1]:
            predicted += biases[bias, 0] // biases[bias, 1]
        predicted = min(max(predicted, 0), largest << 4)
        seen[_BIAS] = bias
        place = min(15, _quarters(predicted >> 4) >> 2)
    else:
        for i, k in enumerate((_W, _N, _U, _NW, _NE, _UE, _US)):
            pattern |= np.int64(errors[near[k]] != 0) << i
        for k in (_WW, _NN, _UW, _UN, _US + 1, _US + 2, _US + 3, _US + 4, _US + 5):
            place += np.int64(errors[near[k]] != 0)
    seen[_PREDICTED], seen[_SIDES], seen[_PLACE] = predicted, pattern, place
    seen[_ENERGY] = min(39, _quarters(energy * 5 >> 6))
    seen[_ENERGIES] = 10 * min(9, _bits(abs(w) >> 3)) + min(9, _bits(abs(n) >> 3))
    seen[_BEFORE] = 10 * min(9, _bits(abs(u) >> 3)) + min(9, _bits(ahead >> 5))
    seen[_SIGNS] = np.int64(w > 0) + 2 * np.int64(n > 0) + 4 * np.int64(u > 0)
    seen[_EXPECTED] = _bits(energy >> 8)
    seen[_FRACTION] = predicted + 8 & 15


@part()
def _on_size(model, seen, size, downwards):  # type: ignore[no-untyped-def]
    """Set the contexts of the decision whether a residual has at least ``size`` bits."""
    asked = min(size, _SIZES - 1) + (_SIZES if downwards else 0)
    energy, contexts = seen[_ENERGY], model.contexts
    contexts[0] = np.uint64(_STARTS[0] + 40 * asked + energy)
    contexts[1] = np.uint64(_STARTS[1] + 100 * asked + seen[_ENERGIES])
    contexts[2] = np.uint64(_STARTS[2] + 100 * asked + seen[_BEFORE])
    contexts[3] = np.uint64(_STARTS[3] + 160 * asked + 8 * (energy >> 1) + (seen[_FRACTION] >> 1))
    contexts[4] = np.uint64(_STARTS[4] + 128 * asked + seen[_SIDES])
    contexts[5] = np.uint64(_STARTS[5] + 80 * asked + 5 * seen[_PLACE] + min(4, energy >> 3))
    contexts[6] = np.uint64(_STARTS[6] + 40 * asked + 4 * (seen[_BEFORE] // 10) + min(3, seen[_BEFORE] % 10 >> 1))
    model.row = np.uint64(asked)


@part()
def _on_sign(model, seen, size):  # type: ignore[no-untyped-def]
    """Set the contexts of the decision whether a residual of so many bits is above 0."""
    size, contexts = min(size, 8), model.contexts
    contexts[0] = np.uint64(_SIGN + _SIGN_STARTS[0] + 16 * size + seen[_FRACTION])
    contexts[1] = np.uint64(_SIGN + _SIGN_STARTS[1] + 128 * size + seen[_SIDES])
    contexts[2] = np.uint64(_SIGN + _SIGN_STARTS[2] + 16 * size + seen[_SIGNS])
    contexts[3] = np.uint64(_SIGN + _SIGN_STARTS[3] + 40 * size + seen[_ENERGY])
    contexts[4] = np.uint64(_SIGN + _SIGN_STARTS[4] + 16 * size + seen[_PLACE])
    contexts[5] = np.uint64(_SIGN + _SIGN_STARTS[5] + 20 * size + 2 * (seen[_ENERGIES] // 10) + (seen[_SIGNS] & 1))
    contexts[6] = np.uint64(_SIGN + _SIGN_STARTS[6] + 20 * size + 2 * (seen[_BEFORE] // 10) + (seen[_SIGNS] >> 2))
    model.row = np.uint64(_SIGN_ROW + size)


@part()
def _on_bit(model, seen, size, prefix, position, positive):  # type: ignore[no-untyped-def]
    """Set the contexts of the decision on a bit after the leading ones, which are ``prefix``."""
    size, contexts = min(size, 12), model.contexts
    node = 8 * size + prefix
    contexts[0] = np.uint64(_BIT + _BIT_STARTS[0] + 20 * node + (seen[_ENERGY] >> 1))
    contexts[1] = np.uint64(_BIT + _BIT_STARTS[1] + 2 * node + positive)
    contexts[2] = np.uint64(_BIT + _BIT_STARTS[2] + 10 * node + seen[_ENERGIES] // 10)
    contexts[3] = np.uint64(_BIT + _BIT_STARTS[3] + 8 * node + (seen[_FRACTION] >> 1 if size < 4 else 0))
    contexts[4] = np.uint64(_BIT + _BIT_STARTS[4] + node)
    contexts[5] = np.uint64(_BIT + _BIT_STARTS[5] + 8 * node + (seen[_PLACE] >> 1))
    contexts[6] = np.uint64(_BIT + _BIT_STARTS[6] + 10 * node + seen[_BEFORE] // 10)
    model.row = np.uint64(_BIT_ROW + 13 * position + size)


@part()
def _learn(seen, errors, biases, here, number, predicts):  # type: ignore[no-untyped-def]
    """Remember how far off the prediction was, here and in such surroundings."""
    errors[here] = (number << 4) - seen[_PREDICTED]
    if predicts:
        bias = seen[_BIAS]
        if biases[bias, 1] == _BIAS_LIMIT:
            biases[bias, 0] >>= 1
            biases[bias, 1] >>= 1
        biases[bias, 0] += (number << 4) - seen[_PLAIN]
        biases[bias, 1] += 1


@compiled
def _encode(coder, buffer, models, known, errors, biases, shape, thresholds, weights, largest, predicts):  # type: ignore[no-untyped-def]
    model, top = models[0], _bits(largest)
    # Unsigned: an index that may be negative is looked at for it.
    seen, near = np.zeros(11, np.int64), np.zeros(NEIGHBOURS, np.uint64)
    depth, height, width = shape
    here = np.int64(0)
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                _locate(near, z, y, x, depth, height, width)
                _look(seen, near, known, errors, biases, z, thresholds, weights, largest, predicts)
                number = known[here]
                residual = number - (seen[_PREDICTED] + 8 >> 4)
                _put_residual(coder, buffer, model, seen, residual, min(seen[_EXPECTED], top), top)
                _learn(seen, errors, biases, here, number, predicts)
                here += 1


@part()
def _put_residual(coder, buffer, model, seen, residual, expected, top):  # type: ignore[no-untyped-def]
    rest = abs(residual)
    size, at = _bits(rest), max(1, expected)
    _on_size(model, seen, at, False)
    encode(coder, buffer, model, np.int64(size >= at))
    if size >= at:
        for more in range(at + 1, min(top, size + 1) + 1):
            _on_size(model, seen, more, False)
            encode(coder, buffer, model, np.int64(size >= more))
    else:
        for fewer in range(at - 1, max(0, size - 1), -1):
            _on_size(model, seen, fewer, True)
            encode(coder, buffer, model, np.int64(size >= fewer))
    if size:
        positive, prefix = np.int64(residual > 0), np.int64(1)
        _on_sign(model, seen, size)
        encode(coder, buffer, model, positive)
        for position in range(size - 1):
            bit = rest >> (size - 2 - position) & 1
            if position < _MIXED_BITS:
                _on_bit(model, seen, size, prefix, position, positive)
                encode(coder, buffer, model, bit)
                prefix = 2 * prefix + bit
            else:
                put(coder, buffer, bit, EVEN)


@part()
def _get_residual(coder, stream, model, seen, expected, top):  # type: ignore[no-untyped-def]
    size, at = np.int64(0), max(1, expected)
    _on_size(model, seen, at, False)
    if decode(coder, stream, model):
        size = np.int64(at)
        while size < top:
            _on_size(model, seen, size + 1, False)
            if not decode(coder, stream, model):
                break
            size += 1
    else:
        for fewer in range(at - 1, 0, -1):
            _on_size(model, seen, fewer, True)
            if decode(coder, stream, model):
                size = np.int64(fewer)
                break
    if not size:
        return size
    _on_sign(model, seen, size)
    positive = decode(coder, stream, model)
    rest, prefix = np.int64(1), np.int64(1)
    for position in range(size - 1):
        if position < _MIXED_BITS:
            _on_bit(model, seen, size, prefix, position, positive)
            bit = decode(coder, stream, model)
            prefix = 2 * prefix + bit
        else:
            bit = get(coder, stream, EVEN)
        rest = 2 * rest + bit
    return rest if positive else -rest


@compiled
def _decode(coder, stream, models, known, errors, biases, shape, thresholds, weights, largest, predicts):  # type: ignore[no-untyped-def]
    model, top = models[0], _bits(largest)
    # Unsigned: an index that may be negative is looked at for it.
    seen, near = np.zeros(11, np.int64), np.zeros(NEIGHBOURS, np.uint64)
    depth, height, width = shape
    here = np.int64(0)
    for z in range(depth):
        for y in range(height):
            for x in range(width):
                _locate(near, z, y, x, depth, height, width)
                _look(seen, near, known, errors, biases, z, thresholds, weights, largest, predicts)
                residual = _get_residual(coder, stream, model, seen, min(seen[_EXPECTED], top), top)
                number = residual + (seen[_PREDICTED] + 8 >> 4)
                number = min(max(number, 0 if predicts else -largest), largest)
                known[here] = number
                _learn(seen, errors, biases, here, number, predicts)
                here += 1


__all__ = [
    "BITS", "DIGITS", "IN_PLANE", "MAX_CLASSES", "NEIGHBOURS", "Numbers", "Predictor", "decode_block",
    "encode_block", "gather",
]  # fmt: skip
