"""The context-mixing coder of binary decisions that coefficients and parameters of networks share.

A decision is predicted by seven adaptive probabilities, each looked up by another view (a *context*) of what is already
known. A small logistic mixer, trained as it codes, weighs them (Mahoney, *Adaptive Weighing of Context Models for
Lossless Data Compression*, 2005), and a binary arithmetic coder spends as many bits as the mix says. All of it is
integer arithmetic, so that every machine decodes the same; ``docs/format.md`` gives it to the last bit.

Compiled with numba, which runs it without the interpreter's lock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc.kernels import part
from napari_tinc.vectors import INPUTS, mix, move

Array = npt.NDArray[Any]

# Contexts, and sets of the mixer's weights, of those who need no more.
CONTEXTS, SETS = 3992, 18
# Of coefficients; what else is coded may start with others.
_WEIGHT = 19660
_LEARNING_RATE = 14
# Not a plain number, which would have numba compile all that takes a probability once more for this very one.
EVEN = np.int64(32768)
_ZERO, _ONE = np.int64(0), np.int64(1)

# tests/test_mixing.py shows that no entry is near enough to a half for floats to round it differently.
_SQUASH = np.array(
    [min(65520, max(16, math.floor(65536 / (1 + math.exp(-x / 256)) + 0.5))) for x in range(-2048, 2048)], np.int32
)
_STRETCH = np.array(
    [max(-2047, min(2047, math.floor(256 * math.log((i + 0.5) / (4095.5 - i)) + 0.5))) for i in range(4096)], np.int16
)


@cache
def _model(contexts: int, sets: int) -> np.dtype[Any]:
    """One record, which numba hands on as a pointer: arrays of its own would be counted at every call."""
    fields = [
        ("states", np.int32, contexts),  # 256 times the probability of a one in 65536ths, plus how often it was met
        ("weights", np.int32, (sets, INPUTS)),  # in 65536ths
        ("contexts", np.uint64, INPUTS),  # of the decision at hand; unsigned: not looked at for being negative
        ("row", np.uint64),  # set of weights of the decision at hand
        ("stretched", np.int32, INPUTS),  # what the contexts say of it, as logits in 256ths
    ]
    return np.dtype((np.record, fields))


@dataclass(frozen=True, eq=False)
class Statistics:
    """What the coder has learnt: the probabilities of all contexts and the weights of the mixer.

    Parameters
    ----------
    model : ndarray, shape (1,)
        ``states``, ``weights``, and the decision that is being coded.
    """

    model: Array

    @classmethod
    def fresh(cls, weight: int = _WEIGHT, contexts: int = CONTEXTS, sets: int = SETS) -> Statistics:
        """Know nothing: all probabilities are one half, all weights (in 65536ths) the same."""
        model = np.zeros(1, _model(contexts, sets))
        model["states"], model["weights"] = int(EVEN) << 8, weight
        return cls(model)

    def copy(self) -> Statistics:
        """Return an independent copy: what a block learns must not reach its siblings."""
        return Statistics(self.model.copy())


def beginning() -> Array:
    """State of the arithmetic coder before it has written: lower and upper end, bytes written, and no word."""
    return np.array([0, 0xFFFFFFFF, 0, 0], np.int64)


def opened(stream: bytes) -> Array:
    """State of the arithmetic coder before it has read: lower and upper end, bytes read, and the word between."""
    return np.array([0, 0xFFFFFFFF, 4, int.from_bytes(stream[:4].ljust(4, b"\0"), "big")], np.int64)


def ended(written: bytes, coder: Array) -> bytes:
    """Return the whole stream: the shortest whose continuation with zeros decodes alike."""
    low, high = int(coder[0]), int(coder[1])
    tail = b""
    for count in range(1, 5):
        shift = 32 - 8 * count
        value = -(-low >> shift) << shift
        if value <= high:
            tail = value.to_bytes(4, "big")[:count]
            break
    return (written + tail).rstrip(b"\0")


@part(forceinline=True)
def predict(model):  # type: ignore[no-untyped-def]
    """Mix what the contexts say in the logistic domain; return the probability of a one in 65536ths."""
    total: Any = mix(model, _STRETCH)  # type: ignore[call-arg]
    clipped: Any = max(-2047, min(2047, total >> 16))
    return np.int64(_SQUASH[np.uint64(clipped + 2048)])


@part(forceinline=True)
def learn(model, bit, mixed):  # type: ignore[no-untyped-def]
    """Move the weights along the gradient of the bit's cost, and every probability towards the bit."""
    # By a jump, so that the processor goes on with the likelier bit before it knows.
    if bit:
        move(model, _ONE, (65536 - mixed) * _LEARNING_RATE >> 4)  # type: ignore[call-arg]
    else:
        move(model, _ZERO, -mixed * _LEARNING_RATE >> 4)  # type: ignore[call-arg]


@part()
def put(coder, buffer, bit, probability):  # type: ignore[no-untyped-def]
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


@part(forceinline=True)
def taken(low, high, word, probability):  # type: ignore[no-untyped-def]
    """Invert `put`: return a bit, and the interval narrowed to its side; `refilled` comes next."""
    width = high - low
    middle = low + (width >> 16) * probability + (((width & 0xFFFF) * probability) >> 16)
    if word <= middle:
        return np.int64(1), low, middle
    return np.int64(0), middle + 1, high


@part(forceinline=True)
def refilled(low, high, read, word, stream):  # type: ignore[no-untyped-def]
    """Read while both ends of the interval share their leading byte; past the end the stream goes on with zeros."""
    while ((low ^ high) & 0xFF000000) == 0:
        low = (low << 8) & 0xFFFFFFFF
        high = ((high << 8) & 0xFFFFFFFF) | 255
        following = np.int64(stream[read]) if read < stream.size else np.int64(0)
        read += 1
        word = ((word << 8) & 0xFFFFFFFF) | following
    return low, high, read, word


@part()
def get(coder, stream, probability):  # type: ignore[no-untyped-def]
    """Read a bit of a known probability."""
    bit, low, high = taken(coder[0], coder[1], coder[3], probability)
    coder[0], coder[1], coder[2], coder[3] = refilled(low, high, coder[2], coder[3], stream)
    return bit


@part()
def encode(coder, buffer, model, bit):  # type: ignore[no-untyped-def]
    """Write a decision, and learn from it."""
    mixed = predict(model)
    put(coder, buffer, bit, mixed)
    learn(model, bit, mixed)


@part()
def decode(coder, stream, model):  # type: ignore[no-untyped-def]
    """Read a decision, and learn from it."""
    mixed = predict(model)
    bit, low, high = taken(coder[0], coder[1], coder[3], mixed)
    learn(model, bit, mixed)
    coder[0], coder[1], coder[2], coder[3] = refilled(low, high, coder[2], coder[3], stream)
    return bit


__all__ = [
    "CONTEXTS", "EVEN", "INPUTS", "SETS", "Array", "Statistics", "beginning", "decode", "encode", "ended",
    "get", "learn", "opened", "predict", "put", "refilled",
    "taken",
]  # fmt: skip
