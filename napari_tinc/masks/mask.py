"""The mask of one item: which voxels have the background value, in a pyramid of blocks decoded region by region."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_tinc.arrays import scratch
from napari_tinc.geometry.octree import Octree
from napari_tinc.geometry.pyramid import (
    Block,
    BlockCache,
    BlockPyramid,
    Bounds,
    Cell,
    bounds_of,
    dyadic_splits,
    leaf_bytes,
    overlap,
    slices_of,
)
from napari_tinc.geometry.sampling import sample_positions
from napari_tinc.limits import LIMITS
from napari_tinc.masks.coder import INSIDE, MIXED, OUTSIDE, Decoder, Encoder, States, joined
from napari_tinc.mixing import Statistics
from napari_tinc.system.threads import block_threads

# Sides of blocks are powers of two; a block has at most so many cells.
SIDE_CODES = range(1, 10)
MAX_CELLS = 2**21
# Larger blocks cost fewer bytes; but a plane across the first axis should meet no more voxels than a tenth of a second
# decodes, or else blocks of no more than so many.
_ROW_VOXELS, _FEW_CELLS = 2**23, 2**18
_FIRST = (0, 0, 0)


@dataclass(frozen=True)
class CodedMask:
    """The coded mask of one spatial volume.

    Parameters
    ----------
    pyramid : BlockPyramid
        Halves all axes of more than one cell at every octave.
    background : int or float
        Value of the voxels outside, in the volume's dtype.
    trunk : bytes
        Stream of the coarse octaves.
    streams : tuple of bytes
        One per block outside the trunk, octave by octave from coarse to fine.
    """

    pyramid: BlockPyramid
    background: int | float
    trunk: bytes
    streams: tuple[bytes, ...]


def pyramid_of(shape: tuple[int, int, int], side: int) -> BlockPyramid:
    """Return the pyramid of a mask."""
    return BlockPyramid(shape, dyadic_splits(shape, math.inf), side)


def encode_mask(inside: npt.NDArray[np.bool_], background: int | float) -> CodedMask:
    """Code a mask without loss.

    Parameters
    ----------
    inside : ndarray of bool, shape (z, y, x)
        Of more than one voxel.
    background : int or float
    """
    z, y, x = inside.shape
    pyramid = pyramid_of((z, y, x), _side((z, y, x)))
    octaves = _octaves(pyramid, inside)
    encoder, statistics = Encoder(), Statistics.fresh()
    for octave in reversed(range(pyramid.trunk, pyramid.octaves)):
        parents = _surrounded(octaves[octave + 1], pyramid.box(octave, _FIRST))
        encoder.add(statistics, parents, pyramid.factors(octave), octaves[octave], octave == 0)
    learnt = {_FIRST: statistics}
    streams: list[bytes] = []

    def coded(octave: int, cell: Cell, start: Statistics | None) -> tuple[bytes, Statistics | None]:
        box = pyramid.box(octave, cell)
        if start is None or not (octaves[octave + 1][box] == MIXED).any():
            return b"", None
        block, after = Encoder(), start.copy()
        states = np.ascontiguousarray(octaves[octave][_children(pyramid, octave, box)])
        block.add(after, _surrounded(octaves[octave + 1], box), pyramid.factors(octave), states, octave == 0)
        return block.finish(), after if octave else None

    for octave in reversed(range(pyramid.trunk)):
        cells = list(pyramid.cells(octave))
        starts = [learnt.get(pyramid.parent_cell(octave, cell)) for cell in cells]
        done = list(block_threads().map(coded, [octave] * len(cells), cells, starts))
        streams += [stream for stream, _ in done]
        learnt = {cell: after for cell, (_, after) in zip(cells, done, strict=True) if after is not None}
    return CodedMask(pyramid, background, encoder.finish(), tuple(streams))


def _side(shape: tuple[int, int, int]) -> int:
    """Side of the largest blocks that are quick to decode, in a plane as in a volume."""
    fitting: int = 2 ** SIDE_CODES[0]
    for code in SIDE_CODES:
        pyramid = pyramid_of(shape, 2**code)
        cells = max(cells_of_block(pyramid, octave) for octave in range(pyramid.octaves))
        row = min(2 * pyramid.side, shape[0]) * shape[1] * shape[2]
        if cells <= (MAX_CELLS if row <= _ROW_VOXELS else _FEW_CELLS):
            fitting = pyramid.side
    return fitting


def cells_of_block(pyramid: BlockPyramid, octave: int) -> int:
    """Cells of the largest block of an octave."""
    return math.prod(min(2 * pyramid.side, n) for n in pyramid.shapes[octave])


def _octaves(pyramid: BlockPyramid, inside: npt.NDArray[np.bool_]) -> list[States]:
    """States of all cells of all octaves; last, that of the whole."""
    finest = scratch.zeros(pyramid.shape, np.int8)
    for slab in scratch.slabs(pyramid.shape, LIMITS.voxels):
        finest[slab] = np.where(inside[slab], INSIDE, OUTSIDE)
    octaves: list[States] = [finest]
    for octave in range(pyramid.octaves):
        octaves.append(scratch.zeros(pyramid.shapes[octave + 1], np.int8))
        joined(octaves[octave], pyramid.factors(octave), octaves[octave + 1])
    octaves[-1][...] = MIXED  # which decoders begin with
    return octaves


def _children(pyramid: BlockPyramid, octave: int, box: Sequence[slice]) -> tuple[slice, ...]:
    """Cells of an octave that a box of cells one octave coarser is divided into."""
    sides = zip(box, pyramid.factors(octave), pyramid.shapes[octave], strict=True)
    return tuple(slice(s.start * f, min(s.stop * f, n)) for s, f, n in sides)


def _surrounded(states: States, box: Sequence[slice]) -> States:
    """Return a box of states and one more on every side, mixed beyond the end."""
    grown = [(max(s.start - 1, 0), min(s.stop + 1, n)) for s, n in zip(box, states.shape, strict=True)]
    beyond = [(a - s.start + 1, s.stop + 1 - b) for (a, b), s in zip(grown, box, strict=True)]
    return np.pad(states[tuple(slice(a, b) for a, b in grown)], beyond, constant_values=MIXED)


class Mask:
    """The mask of one item, decoded region by region.

    Parameters
    ----------
    coded : CodedMask
    cache : BlockCache
        Where decoded blocks are kept; others may share it.
    nbytes : int
        Size of its segment in a frame, to be shared out by :meth:`leaf_bytes`.
    """

    def __init__(self, coded: CodedMask, cache: BlockCache, nbytes: int = 0) -> None:
        self._coded, self._cache, self._nbytes = coded, cache, nbytes
        self._pyramid = coded.pyramid
        self.background = coded.background

    def states(self, bounds: Bounds, scale: float) -> States:
        """Say what the samples of a region are.

        Parameters
        ----------
        bounds : tuple of (int, int)
            Start and stop of every spatial axis, in samples at ``scale``.
        scale : float
            Samples per voxel.

        Returns
        -------
        ndarray of int8, shape of the bounds
            ``OUTSIDE``, ``INSIDE``; below scale 1 also ``MIXED``.
        """
        octave, places = self._places(bounds, scale)
        around = tuple((int(place[0]), int(place[-1]) + 1) for place in places)
        states = self._region(octave, around)[0]
        if states.shape != tuple(map(len, places)):
            states = states[np.ix_(*(place - place[0] for place in places))]
        return states.reshape([b - a for a, b in bounds])

    def _places(self, bounds: Bounds, scale: float) -> tuple[int, list[npt.NDArray[np.int64]]]:
        """Octave that is decoded for a scale, and the cells that samples are in, along z, y, x."""
        octave, halvings = self._pyramid.octave_of(scale)
        missing, shape = 3 - len(bounds), self._pyramid.shape
        places = [np.zeros(1, np.int64)] * missing
        for (start, stop), side, halved in zip(bounds, shape[missing:], halvings[missing:], strict=True):
            voxels = np.floor(sample_positions(start, stop, scale, side) + 0.5)
            places.append(np.clip(voxels, 0, side - 1).astype(np.int64) >> halved)
        return octave, places

    def _region(self, octave: int, bounds: Bounds) -> tuple[States, Mapping[Cell, Any]]:
        """States of a region of the cells of an octave, of voxels at octave 0; and what its blocks have learnt."""
        if octave >= self._pyramid.trunk:
            key = self, octave
            states, learnt = self._cache.decoded([key], lambda _: [self._read_trunk(octave)])[key]
            assert states is not None
            return states[slices_of(bounds)], {_FIRST: learnt}
        pyramid, region = self._pyramid, slices_of(bounds)
        inner, around = self._above(octave, bounds)
        parents, starts = self._region(octave + 1, around)
        near = parents[overlap(slices_of(inner), around)]
        states = near
        for axis, factor in enumerate(pyramid.factors(octave)):
            states = np.repeat(states, factor, axis)
        states = states[overlap(region, bounds_of(_children(pyramid, octave, slices_of(inner))))]
        boxes = {cell: pyramid.box(octave, cell) for cell in pyramid.meeting(inner)}
        cells = [cell for cell, box in boxes.items() if (near[overlap(box, inner)] == MIXED).any()]
        blocks = self._blocks(octave, cells, parents, around, starts)
        for cell, (decoded, _) in blocks.items():
            children = _children(pyramid, octave, boxes[cell])
            states[overlap(children, bounds)] = decoded[overlap(region, bounds_of(children))]
        return states, {cell: after for cell, (_, after) in blocks.items()}

    def _above(self, octave: int, bounds: Bounds) -> tuple[Bounds, Bounds]:
        """Parents of a region, and what their blocks look at: all parents in them, and one more on every side."""
        side, shape = self._pyramid.side, self._pyramid.shapes[octave + 1]
        factors = self._pyramid.factors(octave)
        inner = tuple((a // f, -(-b // f)) for (a, b), f in zip(bounds, factors, strict=True))
        pairs = zip(inner, shape, strict=True)
        return inner, tuple((max(a // side * side - 1, 0), min(-(-b // side) * side + 1, n)) for (a, b), n in pairs)

    def _blocks(
        self, octave: int, cells: list[Cell], parents: States, around: Bounds, starts: Mapping[Cell, Any]
    ) -> dict[Cell, Any]:
        """Blocks of an octave; those that are not in the cache are decoded side by side."""
        pyramid = self._pyramid

        def decoded(key: tuple[Mask, int, Cell]) -> Block:
            cell = key[2]
            box = pyramid.box(octave, cell)
            above = _surrounded(
                parents, [slice(s.start - a, s.stop - a) for s, (a, _) in zip(box, around, strict=True)]
            )
            shape = tuple(s.stop - s.start for s in _children(pyramid, octave, box))
            learnt = starts[pyramid.parent_cell(octave, cell)].copy()
            decoder = Decoder(self._coded.streams[pyramid.number(octave, cell)])
            states = decoder.take(learnt, above, pyramid.factors(octave), shape, octave == 0)
            return states, learnt if octave else None

        blocks = self._cache.decoded(
            [(self, octave, cell) for cell in cells], lambda missing: block_threads().map(decoded, missing)
        )
        return {cell: block for (_, _, cell), block in blocks.items()}

    def _read_trunk(self, wanted: int) -> Block:
        """Decode the coarse octaves, which have one block each, and return one of them."""
        pyramid, decoder, statistics = self._pyramid, Decoder(self._coded.trunk), Statistics.fresh()
        states = np.full(pyramid.shapes[-1], MIXED, np.int8)
        coarse: dict[int, Block] = {pyramid.octaves: (states, statistics)}
        for octave in reversed(range(pyramid.trunk, pyramid.octaves)):
            parents = _surrounded(states, pyramid.box(octave, _FIRST))
            states = decoder.take(statistics, parents, pyramid.factors(octave), pyramid.shapes[octave], octave == 0)
            coarse[octave] = states, statistics  # which go on learning: children start with those after the last octave
        for octave, block in coarse.items():
            self._cache.put((self, octave), block)
        return coarse[wanted]

    def region_bytes(self, bounds: Bounds, scale: float) -> int:
        """Bytes of the blocks that a region needs, what these need, the trunk and the head."""
        first, places = self._places(bounds, scale)
        around = tuple((int(place[0]), int(place[-1]) + 1) for place in places)
        total = self._nbytes - sum(map(len, self._coded.streams))
        for octave in range(first, self._pyramid.trunk):
            inner, around = self._above(octave, around)
            numbers = [self._pyramid.number(octave, cell) for cell in self._pyramid.meeting(inner)]
            total += sum(len(self._coded.streams[number]) for number in numbers)
        return total

    def leaf_bytes(self, tree: Octree) -> npt.NDArray[np.float64]:
        """Bytes of the segment spent on every leaf, see :func:`napari_tinc.geometry.pyramid.leaf_bytes`."""
        return leaf_bytes(self._pyramid, [len(stream) for stream in self._coded.streams], self._nbytes, tree)


__all__ = ["MAX_CELLS", "SIDE_CODES", "CodedMask", "Mask", "cells_of_block", "encode_mask", "pyramid_of"]
