"""Context-mixing coder of the states of a mask, one block of one octave at a time.

A cell of the pyramid is outside, inside, or *mixed*: some of its voxels are outside, others inside. Only what mixed
cells consist of is coded, so that the cost, in bytes and in time, is that of the border. A decision sees all 26
neighbours: those that are decoded as they are, others as their parents were. :mod:`napari_tinc.mixing` codes it, and
``docs/format.md`` gives all of it to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from napari_tinc.kernels import compiled, part
from napari_tinc.mixing import INPUTS, Array, Statistics, beginning, decode, encode, ended, opened

States = npt.NDArray[np.int8]

OUTSIDE, MIXED, INSIDE = 0, 1, 2
# How far the cells that a decision looks at are away.
_REACH = 2
# Kinds of decisions are: is it mixed; is it inside. Contexts of a kind, and where those of each input start.
_CONTEXTS, _SETS = 1996, 8
_STARTS = (0, 512, 1024, 1213, 1469, 1582, 1771)
# No decision has a probability below 2**-12, and a cell has two at most.
_MOST_BYTES = 3


class Encoder:
    """Write blocks into one stream."""

    def __init__(self) -> None:
        self._coder = beginning()
        self._chunks: list[bytes] = []

    def add(
        self, statistics: Statistics, parents: States, factors: Sequence[int], states: States, finest: bool
    ) -> None:
        """Append a block; ``statistics`` learn from it.

        Parameters
        ----------
        statistics, parents, factors, finest
            As for :meth:`Decoder.take`.
        states : ndarray of int8, shape (z, y, x)
        """
        buffer = np.empty(_MOST_BYTES * states.size + 8, np.uint8)
        self._coder[2] = 0
        known = _known(parents, factors, states.shape)
        _encode_block(self._coder, buffer, statistics.model, known, np.array(factors), states, finest)
        self._chunks.append(buffer[: self._coder[2]].tobytes())

    def finish(self) -> bytes:
        """Return the stream: the shortest whose continuation with zeros decodes alike."""
        return ended(b"".join(self._chunks), self._coder)


class Decoder:
    """Read the blocks of one stream in the order they were written."""

    def __init__(self, stream: bytes) -> None:
        self._stream = np.frombuffer(stream, np.uint8).copy()
        self._coder = opened(stream)

    def take(
        self, statistics: Statistics, parents: States, factors: Sequence[int], shape: tuple[int, ...], finest: bool
    ) -> States:
        """Read a block; ``statistics`` learn from it. Any bytes decode to something, in bounded time.

        Parameters
        ----------
        statistics : Statistics
        parents : ndarray of int8, shape (z + 2, y + 2, x + 2)
            States one octave coarser: of the cells that the block divides, and of one more on every side, which are
            mixed where they are not known.
        factors : sequence of int
            Cells of the block per parent, along every axis: 1 or 2.
        shape : tuple of int
            Cells of the block.
        finest : bool
            Whether these are voxels, none of which is mixed.

        Returns
        -------
        ndarray of int8, shape ``shape``
        """
        known = _known(parents, factors, shape)
        _decode_block(self._coder, self._stream, statistics.model, known, np.array(factors), finest)
        return known[(slice(_REACH, -_REACH),) * 3].astype(np.int8)


def joined(fine: States, factors: Sequence[int], coarse: States) -> None:
    """Fill in what the cells of one octave are one octave coarser."""
    _join(fine, np.array(factors), coarse)


def _known(parents: States, factors: Sequence[int], shape: tuple[int, ...]) -> Array:
    """What is known of the cells of a block, and of two more on every side, before any of them is decoded."""
    known = np.full([side + 2 * _REACH for side in shape], MIXED, np.int32)
    _spread(parents, np.array(factors), known)
    return known


@compiled
def _join(fine, factors, coarse):  # type: ignore[no-untyped-def]
    depth, height, width = fine.shape
    for z in range(coarse.shape[0]):
        for y in range(coarse.shape[1]):
            for x in range(coarse.shape[2]):
                z0, y0, x0 = z * factors[0], y * factors[1], x * factors[2]
                state = fine[z0, y0, x0]
                for cz in range(z0, min(z0 + factors[0], depth)):
                    for cy in range(y0, min(y0 + factors[1], height)):
                        for cx in range(x0, min(x0 + factors[2], width)):
                            if fine[cz, cy, cx] != state:
                                state = MIXED
                coarse[z, y, x] = state


@compiled
def _spread(parents, factors, known):  # type: ignore[no-untyped-def]
    """Give every cell its parent's state, and those next to the block theirs."""
    depth, height, width = known.shape
    for z in range(depth):
        pz = (z - _REACH) // factors[0] + 1
        if not 0 <= pz < parents.shape[0]:
            continue
        for y in range(height):
            py = (y - _REACH) // factors[1] + 1
            if not 0 <= py < parents.shape[1]:
                continue
            for x in range(width):
                px = (x - _REACH) // factors[2] + 1
                if 0 <= px < parents.shape[2]:
                    known[z, y, x] = parents[pz, py, px]


@part()
def _look(model, k, z, y, x, siblings):  # type: ignore[no-untyped-def]
    """Say which context every input uses for whether a cell is mixed, and which weights mix them."""
    w, n, u = k[z, y, x - 1], k[z, y - 1, x], k[z - 1, y, x]
    e, s, d = k[z, y, x + 1], k[z, y + 1, x], k[z + 1, y, x]
    nw, ne, uw, ue = k[z, y - 1, x - 1], k[z, y - 1, x + 1], k[z - 1, y, x - 1], k[z - 1, y, x + 1]
    un, us = k[z - 1, y - 1, x], k[z - 1, y + 1, x]
    edges = (
        nw + ne + uw + ue + un + us + k[z, y + 1, x - 1] + k[z, y + 1, x + 1] + k[z + 1, y, x - 1]
        + k[z + 1, y, x + 1] + k[z + 1, y - 1, x] + k[z + 1, y + 1, x]
    )  # fmt: skip
    corners = (
        k[z - 1, y - 1, x - 1] + k[z - 1, y - 1, x + 1] + k[z - 1, y + 1, x - 1] + k[z - 1, y + 1, x + 1]
        + k[z + 1, y - 1, x - 1] + k[z + 1, y - 1, x + 1] + k[z + 1, y + 1, x - 1] + k[z + 1, y + 1, x + 1]
    )  # fmt: skip
    far = k[z, y, x - 2] + 3 * k[z, y - 2, x] + 9 * k[z - 2, y, x]
    total = 4 * (w + n + u + e + s + d) + 2 * edges + corners
    inside, outside = np.int64(0), np.int64(0)
    for i, state in enumerate((w, n, u, nw, ne, uw, ue, un, us)):
        inside |= (state >> 1) << i
        outside |= np.int64(state == OUTSIDE) << i
    contexts = model.contexts
    contexts[0] = np.uint64(_STARTS[0] + inside)
    contexts[1] = np.uint64(_STARTS[1] + outside)
    contexts[2] = np.uint64(_STARTS[2] + 7 * (w + 3 * n + 9 * u) + e + s + d)
    contexts[3] = np.uint64(_STARTS[3] + siblings)
    contexts[4] = np.uint64(_STARTS[4] + total)
    contexts[5] = np.uint64(_STARTS[5] + 7 * far + w + n + u)
    contexts[6] = np.uint64(_STARTS[6] + 9 * edges + (corners >> 1))
    unknown = w == MIXED or n == MIXED or u == MIXED
    model.row = np.uint64((w >> 1) + (n >> 1) + (u >> 1) + (4 if unknown else 0))


@part()
def _then_inside(model):  # type: ignore[no-untyped-def]
    """Go on to whether the same cell is inside."""
    for i in range(INPUTS):
        model.contexts[i] += np.uint64(_CONTEXTS)
    model.row += np.uint64(_SETS)


@compiled
def _decode_block(coder, stream, models, known, factors, finest):  # type: ignore[no-untyped-def]
    """Replace the states that cells have from their parents by their own."""
    model = models[0]
    depth, height, width = known.shape[0] - _REACH, known.shape[1] - _REACH, known.shape[2] - _REACH
    for z0 in range(_REACH, depth, factors[0]):
        for y0 in range(_REACH, height, factors[1]):
            for x0 in range(_REACH, width, factors[2]):
                if known[z0, y0, x0] != MIXED:
                    continue
                siblings = np.int64(1)
                for z in range(z0, min(z0 + factors[0], depth)):
                    for y in range(y0, min(y0 + factors[1], height)):
                        for x in range(x0, min(x0 + factors[2], width)):
                            _look(model, known, z, y, x, siblings)
                            mixed = 0 if finest else decode(coder, stream, model)
                            state = MIXED
                            if not mixed:
                                _then_inside(model)
                                state = INSIDE if decode(coder, stream, model) else OUTSIDE
                            known[z, y, x] = state
                            siblings = 2 * siblings + (state >> 1)


@compiled
def _encode_block(coder, buffer, models, known, factors, states, finest):  # type: ignore[no-untyped-def]
    """Invert `_decode_block`."""
    model = models[0]
    depth, height, width = known.shape[0] - _REACH, known.shape[1] - _REACH, known.shape[2] - _REACH
    for z0 in range(_REACH, depth, factors[0]):
        for y0 in range(_REACH, height, factors[1]):
            for x0 in range(_REACH, width, factors[2]):
                if known[z0, y0, x0] != MIXED:
                    continue
                siblings = np.int64(1)
                for z in range(z0, min(z0 + factors[0], depth)):
                    for y in range(y0, min(y0 + factors[1], height)):
                        for x in range(x0, min(x0 + factors[2], width)):
                            state = np.int64(states[z - _REACH, y - _REACH, x - _REACH])
                            _look(model, known, z, y, x, siblings)
                            if not finest:
                                encode(coder, buffer, model, np.int64(state == MIXED))
                            if state != MIXED:
                                _then_inside(model)
                                encode(coder, buffer, model, state >> 1)
                            known[z, y, x] = state
                            siblings = 2 * siblings + (state >> 1)


__all__ = ["INSIDE", "MIXED", "OUTSIDE", "Decoder", "Encoder", "States", "joined"]
